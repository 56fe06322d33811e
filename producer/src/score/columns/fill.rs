//! The cells of a piece as tensors, and the rows that have none.

use arrow_array::{Array, RecordBatch};
use inferq_schemas::{DataType, Tensor};

use super::cells::Cells;
use super::json_list::Nesting;
use super::shape::row_shape;
use super::{Input, Mapped};
use crate::score::read::{Records, RowProblem, is_json};

/// Most memory that is taken before there is anything for it.
const MOST_AHEAD: usize = 16 << 20;

/// Rows of one input, those of faulty rows included.
struct Filled {
    data: Vec<u8>,
    /// Where each row ends.
    ends: Ends,
}

enum Ends {
    Every(usize),
    Each(Vec<usize>),
}

/// What is wrong with each row of the piece, if anything; the first that is found.
struct Faults(Vec<Option<String>>);

/// A column of an input, and its name for messages.
struct Column<'a> {
    name: &'a str,
    cells: Cells<'a>,
}

pub(super) fn tensors(inputs: &[Input], records: &Records) -> Mapped {
    let rows = records.batch.num_rows();
    let mut faults = Faults(vec![None; rows]);
    for problem in &records.problems {
        faults.add((problem.row - records.first_row) as usize, || {
            problem.message.clone()
        });
    }
    let filled = inputs
        .iter()
        .map(|input| fill(input, &records.batch, &mut faults));
    let filled: Vec<Filled> = filled.collect();

    let number = |row: usize| records.first_row + row as u64;
    let good: Vec<usize> = (0..rows).filter(|row| faults.0[*row].is_none()).collect();
    let problems = faults.0.into_iter().enumerate().filter_map(|(row, fault)| {
        let row = number(row);
        fault.map(|message| RowProblem { row, message })
    });
    let tensors = inputs
        .iter()
        .zip(filled)
        .filter(|_| !good.is_empty())
        .map(|(input, filled)| {
            let data = if good.len() == rows {
                filled.data
            } else {
                filled.only(&good)
            };
            let mut shape = vec![good.len()];
            shape.extend(input.shape.get().into_iter().flatten());
            Tensor {
                name: input.spec.name.clone(),
                datatype: input.spec.datatype,
                shape,
                data: data.into(),
            }
        });
    Mapped {
        tensors: tensors.collect(),
        problems: problems.collect(),
        rows: good.into_iter().map(number).collect(),
    }
}

fn fill(input: &Input, batch: &RecordBatch, faults: &mut Faults) -> Filled {
    let schema = batch.schema_ref();
    let columns = input.places.iter().map(|place| {
        let field = schema.field(*place);
        Column {
            name: field.name(),
            cells: Cells::of(batch.column(*place), is_json(field))
                .expect("only columns of readable types were taken for inputs"),
        }
    });
    let columns: Vec<Column<'_>> = columns.collect();
    let width = input
        .shape
        .get()
        .map(|shape| shape.iter().product::<usize>());
    let lists = columns.iter().any(|column| column.cells.are_lists());
    match input.spec.datatype.size() {
        Some(size) if width == Some(columns.len()) && !lists => {
            single_cells(input.spec.datatype, size, &columns, faults)
        }
        _ => rows(input, &columns, faults),
    }
}

/// Columns whose cells are one element each, column by column.
fn single_cells(
    datatype: DataType,
    size: usize,
    columns: &[Column<'_>],
    faults: &mut Faults,
) -> Filled {
    let stride = size * columns.len();
    let rows = faults.0.len();
    let mut data = vec![0; rows * stride];
    let mut element = Vec::with_capacity(16);
    for (index, column) in columns.iter().enumerate() {
        let mut at = index * size;
        for row in 0..rows {
            let place = &mut data[at..at + size];
            at += stride;
            if let (Cells::Text(texts) | Cells::Json(texts), DataType::Fp32) =
                (&column.cells, datatype)
                && texts.is_valid(row)
                && let Ok(float) = texts.value(row).parse::<f32>()
                && float.is_finite()
            {
                place.copy_from_slice(&float.to_le_bytes());
                continue;
            }
            element.clear();
            let done = column
                .cells
                .append(row, datatype, &mut Nesting::default(), &mut element);
            match done {
                Ok(()) if element.len() == size => place.copy_from_slice(&element),
                Ok(()) => faults.add(row, || {
                    format!(
                        "column `{}`: a list where one {datatype} is expected",
                        column.name
                    )
                }),
                Err(reason) => faults.add(row, || format!("column `{}`: {reason}", column.name)),
            }
        }
    }
    Filled {
        data,
        ends: Ends::Every(stride),
    }
}

/// Any columns, row by row.
fn rows(input: &Input, columns: &[Column<'_>], faults: &mut Faults) -> Filled {
    let (mut data, mut ends) = (Vec::new(), Vec::with_capacity(faults.0.len()));
    for row in 0..faults.0.len() {
        let start = data.len();
        if faults.0[row].is_none()
            && let Err(reason) = append_row(input, columns, row, &mut data)
        {
            data.truncate(start);
            faults.add(row, || reason);
        }
        if row == 0 && input.spec.datatype.size().is_some() {
            // The others must be as long, if this one is as it should be.
            let others = data.len().saturating_mul(faults.0.len() - 1);
            data.reserve(others.min(MOST_AHEAD));
        }
        ends.push(data.len());
    }
    Filled {
        data,
        ends: Ends::Each(ends),
    }
}

fn append_row(
    input: &Input,
    columns: &[Column<'_>],
    row: usize,
    data: &mut Vec<u8>,
) -> Result<(), String> {
    let (datatype, start) = (input.spec.datatype, data.len());
    let mut nested = Vec::new();
    for column in columns {
        let mut nesting = Nesting::default();
        let done = column.cells.append(row, datatype, &mut nesting, data);
        done.map_err(|reason| format!("column `{}`: {reason}", column.name))?;
        nested = nesting.shape();
    }
    if columns.len() > 1 {
        // Their lists stand behind one another.
        nested.clear();
    }
    let count = elements(datatype, &data[start..]);
    let shape = row_shape(&input.spec, &nested, count);
    let shape = shape.map_err(|reason| match columns {
        [column] => format!("column `{}`: {reason}", column.name),
        _ => format!("input `{}`: {reason}", input.spec.name),
    })?;
    let settled = input.shape.get_or_init(|| shape.clone());
    if shape != *settled {
        let name = &input.spec.name;
        return Err(format!(
            "input `{name}`: a row of {shape:?} where the first row of the run has {settled:?}; pad all rows to one length"
        ));
    }
    Ok(())
}

/// Number of elements in bytes that were appended as elements.
fn elements(datatype: DataType, bytes: &[u8]) -> usize {
    if let Some(size) = datatype.size() {
        return bytes.len() / size;
    }
    let (mut count, mut rest) = (0, bytes);
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        rest = after.get(length..).unwrap_or_default();
        count += 1;
    }
    count
}

impl Filled {
    /// The bytes of the rows `good`.
    fn only(&self, good: &[usize]) -> Vec<u8> {
        let range = |row: usize| match &self.ends {
            Ends::Every(stride) => row * stride..(row + 1) * stride,
            Ends::Each(ends) => row.checked_sub(1).map_or(0, |before| ends[before])..ends[row],
        };
        let mut kept = Vec::with_capacity(self.data.len());
        for row in good {
            kept.extend_from_slice(&self.data[range(*row)]);
        }
        kept
    }
}

impl Faults {
    fn add(&mut self, row: usize, message: impl FnOnce() -> String) {
        if let Some(fault) = self.0.get_mut(row) {
            fault.get_or_insert_with(message);
        }
    }
}
