//! Columns that pass from the input to the output unchanged: `--keep id,label:int64`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, StringArray};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Schema};
use inferq_schemas::{nearest, shorten};

use super::read::{Records, RowProblem, is_json};

/// A column that is kept, as `name` or `name:type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepRule {
    /// The column.
    pub column: String,
    /// What it becomes; else it stays what it is.
    pub kind: Option<KeepType>,
}

/// What a kept column may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepType {
    /// Whole numbers of 64 bits.
    Int64,
    /// Floating-point numbers of 64 bits.
    Float64,
    /// Text.
    Text,
    /// Truth values.
    Bool,
}

/// Why a column cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// It is not there.
    #[error("--keep names column `{column}`, which is not there{}", suggestion(nearest.as_deref()))]
    NoColumn {
        /// The column.
        column: String,
        /// A column with almost that name.
        nearest: Option<String>,
    },
    /// It cannot become what is asked for.
    #[error("--keep makes column `{column}` {wanted}, but it is {found}")]
    Type {
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// The type asked for.
        wanted: String,
    },
    /// Not a type.
    #[error("`{0}` is no type to keep a column as; it is int64, float64, text or bool")]
    Unknown(String),
    /// No column is named.
    #[error("--keep names no column; write COLUMN or COLUMN:TYPE")]
    Nothing,
}

impl KeepType {
    const ALL: [Self; 4] = [Self::Int64, Self::Float64, Self::Text, Self::Bool];

    fn name(self) -> &'static str {
        match self {
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::Text => "text",
            Self::Bool => "bool",
        }
    }

    fn datatype(self) -> DataType {
        match self {
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::Bool => DataType::Boolean,
        }
    }
}

impl fmt::Display for KeepRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.column)?;
        match self.kind {
            Some(kind) => write!(f, ":{}", kind.name()),
            None => Ok(()),
        }
    }
}

impl FromStr for KeepRule {
    type Err = KeepError;

    fn from_str(text: &str) -> Result<Self, KeepError> {
        let (column, kind) = match text.rsplit_once(':') {
            None => (text, None),
            Some((column, kind)) => {
                let named = KeepType::ALL
                    .into_iter()
                    .find(|known| known.name() == kind.trim());
                let kind = named.ok_or_else(|| KeepError::Unknown(kind.trim().to_owned()))?;
                (column, Some(kind))
            }
        };
        match column.trim() {
            "" => Err(KeepError::Nothing),
            column => Ok(Self {
                column: column.to_owned(),
                kind,
            }),
        }
    }
}

/// The columns that are kept, decided once per run.
#[derive(Debug, Clone)]
pub struct Kept {
    columns: Vec<Column>,
}

#[derive(Debug, Clone)]
struct Column {
    place: usize,
    json: bool,
    field: FieldRef,
}

impl Kept {
    /// Finds the columns of `rules` among those of the input.
    ///
    /// # Errors
    /// [`KeepError`] if one is not there, or cannot become what its rule says.
    pub fn decide(columns: &Schema, rules: &[KeepRule]) -> Result<Self, KeepError> {
        let column = |rule: &KeepRule| {
            let names = columns.fields().iter().map(|field| field.name().as_str());
            let Some((place, field)) = columns.column_with_name(&rule.column) else {
                return Err(KeepError::NoColumn {
                    column: rule.column.clone(),
                    nearest: nearest(&rule.column, names).map(str::to_owned),
                });
            };
            let found = field.data_type();
            let wanted = rule.kind.map_or(found.clone(), KeepType::datatype);
            if !arrow_cast::can_cast_types(found, &wanted) {
                return Err(KeepError::Type {
                    column: rule.column.clone(),
                    found: found.to_string(),
                    wanted: wanted.to_string(),
                });
            }
            Ok(Column {
                place,
                json: is_json(field),
                field: Arc::new(Field::new(&rule.column, wanted, true)),
            })
        };
        let columns: Result<Vec<Column>, KeepError> = rules.iter().map(column).collect();
        Ok(Self { columns: columns? })
    }

    /// The kept columns, in the order of the rules.
    pub fn fields(&self) -> Vec<FieldRef> {
        self.columns
            .iter()
            .map(|column| column.field.clone())
            .collect()
    }

    /// The rows of which a cell does not become what its rule says, ascending; [`Self::columns`] has a null there.
    pub fn problems(&self, records: &Records) -> Vec<RowProblem> {
        let mut problems = Vec::new();
        for column in &self.columns {
            let before = column.text(records);
            let Ok(after) = column.convert(&before) else {
                continue;
            };
            let lost = (0..before.len()).filter(|row| before.is_valid(*row) && after.is_null(*row));
            problems.extend(lost.map(|row| {
                let (name, wanted) = (column.field.name(), column.field.data_type());
                let cell = before
                    .as_string_opt::<i32>()
                    .map_or("a value", |cells| cells.value(row));
                let cell = shorten(cell, 40);
                RowProblem {
                    row: records.first_row + row as u64,
                    message: format!(
                        "column `{name}`: `{cell}` is no {wanted}, which --keep asks for"
                    ),
                }
            }));
        }
        problems.sort_by_key(|problem| problem.row);
        problems.dedup_by_key(|problem| problem.row);
        problems
    }

    /// The cells of all rows, a column per rule; null where a cell does not become what its rule says.
    ///
    /// # Errors
    /// What the conversion says of a column as a whole.
    pub fn columns(&self, records: &Records) -> Result<Vec<ArrayRef>, ArrowError> {
        let columns = self.columns.iter();
        columns
            .map(|column| column.convert(&column.text(records)))
            .collect()
    }
}

impl Column {
    /// The cells, JSON text as what it says: strings without quotes, and what is empty as null where
    /// a number is asked for.
    fn text(&self, records: &Records) -> ArrayRef {
        let array = records.batch.column(self.place);
        let Some(cells) = array.as_string_opt::<i32>() else {
            return array.clone();
        };
        if self.json {
            let plain =
                |cell: &str| serde_json::from_str::<String>(cell).unwrap_or(cell.to_owned());
            let cells: StringArray = cells.iter().map(|cell| cell.map(plain)).collect();
            return Arc::new(cells);
        }
        if *self.field.data_type() == DataType::Utf8 {
            return array.clone();
        }
        let cells = cells
            .iter()
            .map(|cell| cell.map(str::trim).filter(|cell| !cell.is_empty()));
        Arc::new(cells.collect::<StringArray>())
    }

    /// Null where a cell is none of the type.
    fn convert(&self, cells: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        if cells.data_type() == self.field.data_type() {
            return Ok(cells.clone());
        }
        cast(cells, self.field.data_type())
    }
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use arrow_array::RecordBatch;
    use arrow_array::types::{Float64Type, Int64Type};

    use super::*;
    use crate::score::input::{Compression, Format, InputFile, Source};
    use crate::score::read::Reader;

    fn records(text: &str, format: Format) -> Records {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        let file = InputFile {
            path: Source::File(file.path().to_owned()),
            format,
            compression: Compression::None,
        };
        let mut reader = Reader::open(vec![file]).expect("readable");
        reader.read(100).expect("readable").expect("rows")
    }

    fn kept(records: &Records, rules: &[&str]) -> Kept {
        let rules: Vec<KeepRule> = rules
            .iter()
            .map(|rule| rule.parse().expect("a rule"))
            .collect();
        Kept::decide(records.batch.schema_ref(), &rules).expect("columns")
    }

    #[test]
    fn rows_keep_their_cells_in_the_type_asked_for() {
        let records = records("id,n,x\n a,1,\nb,,2.5\nc,3,1e3\n", Format::Csv);
        let kept = kept(&records, &["n:int64", "id", "x:float64"]);
        assert!(kept.problems(&records).is_empty());
        let columns = kept.columns(&records).expect("they convert");
        let numbers: Vec<_> = columns[0].as_primitive::<Int64Type>().iter().collect();
        assert_eq!(numbers, [Some(1), None, Some(3)]);
        let ids: Vec<_> = columns[1].as_string::<i32>().iter().collect();
        assert_eq!(ids, [Some(" a"), Some("b"), Some("c")]);
        assert!(columns[2].is_null(0));
        assert_eq!(columns[2].as_primitive::<Float64Type>().value(2), 1000.0);
    }

    #[test]
    fn json_text_is_kept_as_what_it_says() {
        let records = records(
            "{\"id\":\"a\\n\",\"n\":1}\n{\"id\":7,\"n\":\"2\"}\n{\"n\":null}",
            Format::Jsonl,
        );
        let kept = kept(&records, &["id", "n:int64"]);
        let columns = kept.columns(&records).expect("they convert");
        let ids: Vec<_> = columns[0].as_string::<i32>().iter().collect();
        assert_eq!(ids, [Some("a\n"), Some("7"), None]);
        assert_eq!(
            columns[1]
                .as_primitive::<Int64Type>()
                .iter()
                .flatten()
                .collect::<Vec<_>>(),
            [1, 2]
        );
    }

    #[test]
    fn cells_that_do_not_become_it_are_problems_of_their_rows() {
        let mut records = records("n,b\n1,true\nx,true\n3,maybe\ny,maybe\n", Format::Csv);
        records.first_row = 10;
        let kept = kept(&records, &["n:int64", "b:bool"]);
        let problems = kept.problems(&records);
        let rows: Vec<u64> = problems.iter().map(|problem| problem.row).collect();
        assert_eq!(rows, [11, 12, 13]);
        assert!(
            problems[0].message.contains("`x` is no Int64"),
            "{}",
            problems[0].message
        );
        let columns = kept.columns(&records).expect("they convert");
        assert!(columns[0].is_null(1) && columns[0].is_valid(2));
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is_near() {
        let schema = RecordBatch::try_from_iter([(
            "label",
            Arc::new(StringArray::from(vec!["a"])) as ArrayRef,
        )])
        .expect("a batch")
        .schema();
        let rule: KeepRule = "labl".parse().expect("a rule");
        let error = Kept::decide(&schema, &[rule])
            .expect_err("no such column")
            .to_string();
        assert!(error.contains("did you mean `label`?"), "{error}");
        assert!(matches!(
            "a:int".parse::<KeepRule>(),
            Err(KeepError::Unknown(_))
        ));
        assert!(matches!(
            ":text".parse::<KeepRule>(),
            Err(KeepError::Nothing)
        ));
    }
}
