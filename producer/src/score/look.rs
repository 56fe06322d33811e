//! A quick look at a table: what each column holds, and its first rows, gathered while batches pass.
//!
//! Memory does not grow with the rows: histograms widen as values come, and distinct values are
//! counted up to a bound.

mod histogram;
mod top;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::cast;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, Schema};
use inferq_schemas::shorten;
use serde::Serialize;

use self::histogram::Growing;
pub use self::histogram::Histogram;
use self::top::Top;

/// Rows that are shown.
const FIRST_ROWS: usize = 5;
/// Most bytes of a cell that is shown.
const SHOWN_CELL: usize = 48;
/// Lists of at most so many numbers are taken for one number per class.
const MOST_CLASSES: usize = 10_000;

/// Gathers the summary.
#[derive(Debug)]
pub struct Look {
    rows: u64,
    first: Vec<Vec<String>>,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    name: String,
    datatype: DataType,
    values: u64,
    nulls: u64,
    numbers: Option<Growing>,
    top: Option<Top>,
    largest: Option<Vec<u64>>,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Number of rows.
    pub rows: u64,
    /// One per column, in order.
    pub columns: Vec<ColumnSummary>,
    /// The first rows, a shortened text per column.
    pub first: Vec<Vec<String>>,
}

/// What was seen of one column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColumnSummary {
    /// Its name.
    pub name: String,
    /// Its type.
    pub datatype: String,
    /// Cells with a value; the elements of lists are not counted one by one.
    pub values: u64,
    /// Cells without.
    pub nulls: u64,
    /// If it holds numbers, or lists of them, which count together.
    pub numbers: Option<NumberSummary>,
    /// The most frequent values with their counts, most frequent first; empty if there are too many
    /// different ones.
    pub top: Vec<(String, u64)>,
    /// For lists of numbers: the places whose number was most often the largest of its row, with
    /// their counts. For scores of classes these are the predicted classes.
    pub largest: Vec<(usize, u64)>,
}

/// What was seen of numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NumberSummary {
    /// The smallest, the mean and the largest of the finite numbers, if there is one.
    pub range: Option<Range>,
    /// How many were not a number.
    pub nan: u64,
    /// How many were infinite.
    pub infinite: u64,
    /// How the finite ones are distributed.
    pub histogram: Histogram,
}

/// Smallest, mean and largest of some numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Range {
    /// The smallest.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// The largest.
    pub max: f64,
}

impl Look {
    /// Before the first row of a table of these columns.
    pub fn new(columns: &Schema) -> Self {
        let column = |(name, datatype): (&String, &DataType)| Column {
            name: name.clone(),
            values: 0,
            nulls: 0,
            numbers: is_number(item(datatype)).then(Growing::default),
            top: has_top(datatype).then(Top::default),
            largest: classes(datatype).map(|classes| vec![0; classes]),
            datatype: datatype.clone(),
        };
        let fields = columns.fields().iter();
        Self {
            rows: 0,
            first: Vec::new(),
            columns: fields
                .map(|field| column((field.name(), field.data_type())))
                .collect(),
        }
    }

    /// Looks at a batch of these columns.
    pub fn add(&mut self, batch: &RecordBatch) {
        for row in 0..batch.num_rows().min(FIRST_ROWS - self.first.len()) {
            let cells = batch.columns().iter();
            self.first
                .push(cells.map(|column| shown(column, row)).collect());
        }
        self.rows += batch.num_rows() as u64;
        for (column, cells) in self.columns.iter_mut().zip(batch.columns()) {
            column.add(cells);
        }
    }

    /// What was seen until now.
    pub fn summary(&self) -> Summary {
        Summary {
            rows: self.rows,
            columns: self.columns.iter().map(Column::summary).collect(),
            first: self.first.clone(),
        }
    }
}

impl Column {
    fn add(&mut self, cells: &ArrayRef) {
        let nulls = cells.null_count();
        self.nulls += nulls as u64;
        self.values += (cells.len() - nulls) as u64;
        if let Some(top) = &mut self.top {
            top.add(cells);
        }
        let Some(growing) = &mut self.numbers else {
            return;
        };
        let fixed = cells.as_fixed_size_list_opt();
        let (numbers, ends) = match (fixed, cells.as_list_opt::<i32>()) {
            (Some(lists), _) => (lists.values(), Ends::Every(lists.value_length() as usize)),
            (None, Some(lists)) => (lists.values(), Ends::At(lists.value_offsets())),
            (None, None) => (cells, Ends::Every(1)),
        };
        // Every number type becomes this one; beyond 2^53 rounded, which no picture shows.
        let Ok(floats) = cast(numbers, &DataType::Float64) else {
            return;
        };
        let floats = floats.as_primitive::<Float64Type>();
        for row in (0..cells.len()).filter(|row| cells.is_valid(*row)) {
            let range = ends.range(row);
            for place in range.clone().filter(|place| floats.is_valid(*place)) {
                growing.add(floats.value(place));
            }
            if let Some(largest) = &mut self.largest
                && let Some(place) = place_of_largest(&floats.values()[range])
            {
                largest[place] += 1;
            }
        }
    }

    fn summary(&self) -> ColumnSummary {
        let counts = self.largest.iter().flatten().copied().enumerate();
        let mut largest: Vec<(usize, u64)> = counts.filter(|(_, count)| *count > 0).collect();
        largest.sort_by_key(|(place, count)| (std::cmp::Reverse(*count), *place));
        largest.truncate(top::SHOWN);
        ColumnSummary {
            name: self.name.clone(),
            datatype: name_of(&self.datatype),
            values: self.values,
            nulls: self.nulls,
            numbers: self.numbers.as_ref().map(Growing::summary),
            top: self.top.as_ref().map(Top::most).unwrap_or_default(),
            largest,
        }
    }
}

/// Where the numbers of each row are among all numbers of a column.
enum Ends<'a> {
    Every(usize),
    At(&'a [i32]),
}

impl Ends<'_> {
    fn range(&self, row: usize) -> std::ops::Range<usize> {
        match self {
            Self::Every(size) => row * size..(row + 1) * size,
            Self::At(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
        }
    }
}

/// The first place of the largest number; `None` if none is a number.
fn place_of_largest(list: &[f64]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (place, value) in list.iter().enumerate() {
        if !value.is_nan() && best.is_none_or(|best| *value > list[best]) {
            best = Some(place);
        }
    }
    best
}

fn item(datatype: &DataType) -> &DataType {
    match datatype {
        DataType::List(item) | DataType::FixedSizeList(item, _) => item.data_type(),
        other => other,
    }
}

fn is_number(datatype: &DataType) -> bool {
    datatype.is_numeric()
}

/// Whether single values are worth counting: labels, words, yes and no.
fn has_top(datatype: &DataType) -> bool {
    datatype.is_integer() || matches!(datatype, DataType::Utf8 | DataType::Boolean)
}

fn classes(datatype: &DataType) -> Option<usize> {
    match datatype {
        DataType::FixedSizeList(item, size) if is_number(item.data_type()) => {
            usize::try_from(*size)
                .ok()
                .filter(|size| (2..=MOST_CLASSES).contains(size))
        }
        _ => None,
    }
}

/// The type in a word that fits into a table.
fn name_of(datatype: &DataType) -> String {
    match datatype {
        DataType::FixedSizeList(item, size) => format!("{}[{size}]", item.data_type()),
        DataType::List(item) => format!("{}[]", item.data_type()),
        DataType::Utf8 => "text".to_owned(),
        other => other.to_string(),
    }
}

fn shown(column: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options);
    formatter.map_or_else(
        |_| String::new(),
        |f| shorten(&f.value(row).to_string(), SHOWN_CELL),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Float32Type;
    use arrow_array::{BooleanArray, FixedSizeListArray, Float32Array, Int64Array, StringArray};

    use super::*;

    fn scores(rows: &[Option<[f32; 3]>]) -> ArrayRef {
        let rows = rows.iter().map(|row| row.map(|row| row.map(Some)));
        Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(rows, 3))
    }

    #[test]
    fn a_summary_tells_what_the_columns_hold_over_all_batches() {
        let batch = |from: i64| {
            let labels: Vec<i64> = (from..from + 4).map(|n| n % 3).collect();
            RecordBatch::try_from_iter_with_nullable([
                (
                    "label",
                    Arc::new(Int64Array::from(labels)) as ArrayRef,
                    true,
                ),
                (
                    "x",
                    Arc::new(Float32Array::from(vec![
                        Some(from as f32),
                        None,
                        Some(f32::NAN),
                        Some(f32::INFINITY),
                    ])),
                    true,
                ),
                (
                    "word",
                    Arc::new(StringArray::from(vec![
                        Some("b"),
                        Some("a"),
                        Some("b"),
                        None,
                    ])),
                    true,
                ),
                (
                    "flag",
                    Arc::new(BooleanArray::from(vec![true, true, false, true])),
                    true,
                ),
                (
                    "scores",
                    scores(&[
                        Some([0.1, 0.7, 0.2]),
                        Some([f32::NAN, 0.0, 0.5]),
                        None,
                        Some([0.3, 0.3, 0.1]),
                    ]),
                    true,
                ),
            ])
            .expect("a batch")
        };
        let mut look = Look::new(&batch(0).schema());
        look.add(&batch(0));
        look.add(&batch(4));
        let summary = look.summary();
        assert_eq!(summary.rows, 8);
        assert_eq!(summary.first.len(), FIRST_ROWS);
        assert_eq!(summary.first[4][0], "1");
        let [label, x, word, flag, scores] = &summary.columns[..] else {
            panic!("five columns")
        };
        assert_eq!(
            label.top,
            [
                ("0".to_owned(), 3),
                ("1".to_owned(), 3),
                ("2".to_owned(), 2)
            ]
        );
        let numbers = x.numbers.as_ref().expect("numbers");
        let range = Range {
            min: 0.0,
            mean: 2.0,
            max: 4.0,
        };
        assert_eq!(
            (numbers.range, numbers.nan, numbers.infinite),
            (Some(range), 2, 2)
        );
        assert_eq!((x.values, x.nulls), (6, 2));
        assert_eq!(word.top, [("b".to_owned(), 4), ("a".to_owned(), 2)]);
        assert_eq!(flag.top, [("true".to_owned(), 6), ("false".to_owned(), 2)]);
        assert_eq!(scores.largest, [(0, 2), (1, 2), (2, 2)]);
        assert_eq!(scores.datatype, "Float32[3]");
        assert_eq!((scores.values, scores.nulls), (6, 2));
        assert!(serde_json::to_string(&summary).is_ok());
    }

    #[test]
    fn an_empty_table_has_a_summary_too() {
        let schema = Schema::new(vec![arrow_schema::Field::new("x", DataType::Float64, true)]);
        let summary = Look::new(&schema).summary();
        assert_eq!(summary.rows, 0);
        let numbers = summary.columns[0].numbers.as_ref().expect("numbers");
        assert_eq!(numbers.range, None);
        assert_eq!(numbers.histogram.counts, [0; 0]);
    }
}
