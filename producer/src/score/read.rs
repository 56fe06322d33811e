//! All files of the input as one long table, read in pieces of as many rows as are asked for.
//!
//! Where a file ends and the next begins is not seen: piece k always holds the same rows. Text formats
//! give text cells, so that a cell that is no number is an error of its row, not of the file; the others
//! keep their types.

mod arrow;
mod bytes;
mod csv;
mod jsonl;
mod numpy;
mod parquet;
mod row;
mod types;

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema, SchemaRef};
use arrow_select::concat::concat_batches;

use super::input::{Format, InputError, InputFile, Source};

pub use self::row::json_row;
pub use self::types::is_json;

/// Rows of the input, in order.
#[derive(Debug, Clone)]
pub struct Records {
    /// The number of the first of them in the whole input, from 0.
    pub first_row: u64,
    /// The rows: text cells (`Utf8`) from text formats, else what the file has. Any cell may be null.
    pub batch: RecordBatch,
    /// The rows among them that could not be read, ascending; their cells are null.
    pub problems: Vec<RowProblem>,
}

/// A row that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowProblem {
    /// Its number in the whole input, from 0.
    pub row: u64,
    /// What is wrong with it, and where.
    pub message: String,
}

/// Rows of one file, as many as were asked for or fewer.
struct Piece {
    batch: RecordBatch,
    /// Rows of the batch that could not be read, and why.
    problems: Vec<(usize, String)>,
}

/// One file of the input.
trait Table: Send {
    /// Its columns, with types as [`types::plain`] has them.
    fn columns(&self) -> SchemaRef;
    /// The share that has been read, 0 to 1, where that can be told.
    fn share_read(&self) -> Option<f64>;
    /// The next rows, at least one and at most `rows`; `None` at the end.
    fn read(&mut self, rows: usize) -> Result<Option<Piece>, InputError>;
    /// Passes over rows and tells how many; fewer than `rows` only at the end.
    fn skip(&mut self, rows: u64) -> Result<u64, InputError>;
}

/// Reads the files one after the other.
pub struct Reader {
    files: std::vec::IntoIter<InputFile>,
    columns: SchemaRef,
    current: Option<Current>,
    next_row: u64,
    /// Bytes of the files that were read to their end, of the current one, and of all.
    sizes: Sizes,
}

#[derive(Debug, Default)]
struct Sizes {
    done: u64,
    current: u64,
    all: u64,
}

impl Sizes {
    fn move_on(&mut self, next: u64) {
        self.done += std::mem::replace(&mut self.current, next);
    }
}

struct Current {
    table: Box<dyn Table>,
    /// Where the columns of the whole input are among those of this file.
    places: Vec<usize>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (files, row) = (self.files.as_slice(), self.next_row);
        write!(f, "Reader(at row {row}, then {} files)", files.len())
    }
}

impl Reader {
    /// Opens the first file that is not empty, whose columns are those of the whole input.
    ///
    /// # Errors
    /// [`InputError`] if it cannot be read, or if there is none.
    pub fn open(files: Vec<InputFile>) -> Result<Self, InputError> {
        let mut sizes = Sizes {
            all: files.iter().map(size).sum(),
            ..Sizes::default()
        };
        let mut files = files.into_iter();
        while let Some(file) = files.next() {
            sizes.move_on(size(&file));
            let Some(table) = open(&file, None)? else {
                continue;
            };
            let columns = table.columns();
            let mut seen = HashSet::new();
            if let Some(twice) = columns.fields().iter().find(|f| !seen.insert(f.name())) {
                return Err(InputError::Columns {
                    name: file.path.to_string(),
                    reason: format!("two are called `{}`; rename one", twice.name()),
                });
            }
            let places = (0..columns.fields().len()).collect();
            return Ok(Self {
                files,
                columns,
                current: Some(Current { table, places }),
                next_row: 0,
                sizes,
            });
        }
        Err(InputError::Empty)
    }

    /// The columns of every piece. The cells of [`Format::Jsonl`] are JSON text; [`is_json`] tells.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// The number of the row that comes next, from 0.
    pub fn next_row(&self) -> u64 {
        self.next_row
    }

    /// How much of the input was read, 0 to 1, by the sizes of the files; `None` where that cannot be told.
    pub fn fraction(&self) -> Option<f64> {
        let within = match &self.current {
            Some(current) => current.table.share_read()?,
            None => 1.0,
        };
        let read = within.mul_add(self.sizes.current as f64, self.sizes.done as f64);
        (self.sizes.all > 0).then(|| (read / self.sizes.all as f64).min(1.0))
    }

    /// The next `rows` rows, fewer only at the end of the whole input, and `None` after it.
    ///
    /// # Errors
    /// [`InputError`] if a file cannot be read or has other columns. A row that cannot be read while
    /// those after it can is no error but one of [`Records::problems`].
    pub fn read(&mut self, rows: usize) -> Result<Option<Records>, InputError> {
        let (first_row, mut have) = (self.next_row, 0);
        let (mut batches, mut problems) = (Vec::new(), Vec::new());
        while have < rows {
            let Some(current) = &mut self.current else {
                break;
            };
            let Some(piece) = current.table.read(rows - have)? else {
                self.next_file()?;
                continue;
            };
            let start = first_row + have as u64;
            have += piece.batch.num_rows();
            problems.extend(piece.problems.into_iter().map(|(row, message)| RowProblem {
                row: start + row as u64,
                message,
            }));
            batches.push(current.arrange(&self.columns, &piece.batch));
        }
        self.next_row += have as u64;
        let batch = match batches.len() {
            0 => return Ok(None),
            1 => batches.remove(0),
            _ => concat_batches(&self.columns, &batches)
                .expect("every piece was arranged to the same columns"),
        };
        Ok(Some(Records {
            first_row,
            batch,
            problems,
        }))
    }

    /// Passes over `rows` rows and tells how many; fewer only at the end of the whole input.
    ///
    /// # Errors
    /// [`InputError`] as for [`Self::read`].
    pub fn skip(&mut self, rows: u64) -> Result<u64, InputError> {
        let mut skipped = 0;
        while skipped < rows {
            let Some(current) = &mut self.current else {
                break;
            };
            let passed = current.table.skip(rows - skipped)?;
            skipped += passed;
            if skipped < rows {
                self.next_file()?;
            }
        }
        self.next_row += skipped;
        Ok(skipped)
    }

    /// Opens the next file that is not empty, if there is one.
    fn next_file(&mut self) -> Result<(), InputError> {
        self.current = None;
        for file in self.files.by_ref() {
            self.sizes.move_on(size(&file));
            if let Some(table) = open(&file, Some(&self.columns))? {
                let places = places(&self.columns, &table.columns(), &file)?;
                self.current = Some(Current { table, places });
                break;
            }
        }
        Ok(())
    }
}

impl Current {
    /// The batch with the columns of the whole input, in their order.
    fn arrange(&self, columns: &SchemaRef, batch: &RecordBatch) -> RecordBatch {
        let arrays = self.places.iter().map(|place| batch.column(*place).clone());
        RecordBatch::try_new(columns.clone(), arrays.collect())
            .expect("names and types were compared when the file was opened")
    }
}

/// Bytes of a file; none for standard input, whose end nobody knows.
fn size(file: &InputFile) -> u64 {
    match &file.path {
        Source::File(path) => std::fs::metadata(path).map_or(0, |about| about.len()),
        Source::Stdin => 0,
    }
}

/// Where the columns of the whole input are in another file. What it has beside them is not read.
fn places(columns: &Schema, of_file: &Schema, file: &InputFile) -> Result<Vec<usize>, InputError> {
    let wrong = |reason| InputError::Columns {
        name: file.path.to_string(),
        reason,
    };
    let place = |field: &Arc<Field>| {
        let name = field.name();
        let Some((place, other)) = of_file.column_with_name(name) else {
            return Err(wrong(format!(
                "`{name}` is missing, which the first file has"
            )));
        };
        if other.data_type() != field.data_type() {
            let (first, here) = (field.data_type(), other.data_type());
            return Err(wrong(format!(
                "`{name}` is {here}, and {first} in the first file; write both alike"
            )));
        }
        Ok(place)
    };
    columns.fields().iter().map(place).collect()
}

/// Opens a file; `None` for an empty text file, which has no columns. `known` are the columns of the
/// files before it.
fn open(file: &InputFile, known: Option<&SchemaRef>) -> Result<Option<Box<dyn Table>>, InputError> {
    fn boxed<T: Table + 'static>(table: T) -> Box<dyn Table> {
        Box::new(table)
    }
    Ok(match file.format {
        Format::Csv => csv::Csv::open(file, b',')?.map(boxed),
        Format::Tsv => csv::Csv::open(file, b'\t')?.map(boxed),
        Format::Jsonl => jsonl::Jsonl::open(file, known)?.map(boxed),
        Format::Parquet => Some(boxed(parquet::Parquet::open(file)?)),
        Format::Arrow => Some(arrow::open(file)?),
        Format::Npy => Some(boxed(numpy::Arrays::npy(file)?)),
        Format::Npz => Some(boxed(numpy::Arrays::npz(file)?)),
    })
}

#[cfg(test)]
mod tests {
    use arrow_array::{Array, StringArray};

    use super::*;
    use crate::score::input;

    fn write(folder: &std::path::Path, name: &str, text: &str) -> String {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }

    fn open_all(paths: &[String]) -> Result<Reader, InputError> {
        Reader::open(input::find(paths, None)?)
    }

    fn column(records: &Records, place: usize) -> Vec<String> {
        let array = records.batch.column(place);
        let text: &StringArray = array.as_any().downcast_ref().expect("text");
        text.iter()
            .map(|cell| cell.unwrap_or("-").to_owned())
            .collect()
    }

    #[test]
    fn pieces_do_not_depend_on_where_files_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = [
            write(folder.path(), "1.csv", "a,b\n0,x\n1,x\n2,x\n"),
            write(folder.path(), "2.csv", ""),
            write(folder.path(), "3.csv", "b,a\n"),
            write(
                folder.path(),
                "4.csv",
                "b,more,a\nx,!,3\nx,!\nx,!,5\nx,!,6\n",
            ),
        ];
        let mut reader = open_all(&paths).expect("files");
        let names: Vec<_> = reader
            .columns()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect();
        assert_eq!(names, ["a", "b"]);
        let mut seen = Vec::new();
        while let Some(records) = reader.read(2).expect("readable") {
            seen.push((records.first_row, column(&records, 0)));
            for problem in records.problems {
                assert_eq!(problem.row, 4);
                assert!(
                    problem.message.contains("4.csv line 3"),
                    "{}",
                    problem.message
                );
            }
        }
        let rows = |from, cells: &[&str]| (from, cells.iter().map(|c| c.to_string()).collect());
        assert_eq!(
            seen,
            [
                rows(0, &["0", "1"]),
                rows(2, &["2", "3"]),
                rows(4, &["-", "5"]),
                rows(6, &["6"])
            ]
        );
        for skip in 0..9 {
            let mut reader = open_all(&paths).expect("files");
            assert_eq!(reader.skip(skip).expect("readable"), skip.min(7));
            let rest = reader.read(10).expect("readable");
            let first = rest.as_ref().map(|rest| rest.first_row);
            assert_eq!(first, (skip < 7).then_some(skip));
            assert_eq!(
                rest.map_or(0, |rest| rest.batch.num_rows() as u64),
                7 - skip.min(7)
            );
        }
    }

    #[test]
    fn columns_that_do_not_fit_together_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = write(folder.path(), "1.csv", "a,b\n1,2\n");
        let second = write(folder.path(), "2.csv", "a,c\n1,2\n");
        let mut reader = open_all(&[first, second]).expect("the first");
        let error = reader.read(5).expect_err("no b").to_string();
        assert!(
            error.contains("2.csv") && error.contains("`b` is missing"),
            "{error}"
        );
        let twice = write(folder.path(), "3.csv", "a,a\n1,2\n");
        let error = open_all(&[twice]).expect_err("twice").to_string();
        assert!(error.contains("two are called `a`"), "{error}");
        let empty = write(folder.path(), "4.csv", "");
        assert!(matches!(open_all(&[empty]), Err(InputError::Empty)));
    }
}
