//! Columns as one file, batch by batch.
//!
//! The bytes follow from the batches alone: no time, no version of today. What needs the whole before
//! its first byte, as NumPy's header needs the number of rows, waits in a temporary file.

mod arrow;
mod csv;
mod jsonl;
mod numpy;
mod packed;
mod parquet;
pub(super) mod value;

use std::fmt;
use std::path::PathBuf;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};

use self::packed::Packed;
use super::input::{Compression, Format};
use super::outputs::OutputError;

/// Where the bytes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file, which is replaced.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stdout => f.write_str("standard output"),
        }
    }
}

/// Writes one file.
pub struct Writer {
    target: Target,
    format: Format,
    columns: SchemaRef,
    sink: Box<dyn Sink>,
}

/// A file in the making.
trait Sink: Send {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError>;
    /// Writes what is left and makes sure that it is on the disk.
    fn finish(self: Box<Self>) -> Result<(), SinkError>;
}

/// Why a sink cannot go on; the writer knows the rest of the story.
enum SinkError {
    Io(std::io::Error),
    Other(String),
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({})", self.target)
    }
}

impl Writer {
    /// Begins a file of `columns`. Text formats write lists of one length as columns `<name>_0`, ..;
    /// NPY takes one column of numbers.
    ///
    /// # Errors
    /// [`OutputError`] if it cannot be created or the format has no way to write a column.
    pub fn create(
        target: Target,
        format: Format,
        compression: Compression,
        columns: SchemaRef,
    ) -> Result<Self, OutputError> {
        if compression != Compression::None && !format.is_text() {
            return Err(OutputError::Wrapped { format });
        }
        check_columns(format, &columns)?;
        let failed = |error| failure(&target, format, error);
        let out = Packed::create(&target, compression).map_err(|error| failed(error.into()))?;
        let sink: Result<Box<dyn Sink>, SinkError> = match format {
            Format::Csv => csv::Csv::new(out, b',', &columns).map(boxed),
            Format::Tsv => csv::Csv::new(out, b'\t', &columns).map(boxed),
            Format::Jsonl => Ok(boxed(jsonl::Jsonl::new(out, &columns))),
            Format::Parquet => parquet::Parquet::new(out, &columns).map(boxed),
            Format::Arrow => arrow::Arrow::new(out, &columns).map(boxed),
            Format::Npy => numpy::Npy::new(out, &target, &columns).map(boxed),
            Format::Npz => numpy::Npz::new(out, &target, &columns).map(boxed),
        };
        Ok(Self {
            sink: sink.map_err(failed)?,
            target,
            format,
            columns,
        })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// [`OutputError`] if they cannot be written or have other columns; the file is of no use then.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), OutputError> {
        if batch.schema_ref().fields() != self.columns.fields() {
            let name = self.target.to_string();
            return Err(OutputError::Columns { name });
        }
        let done = self.sink.write(batch);
        done.map_err(|error| failure(&self.target, self.format, error))
    }

    /// Ends the file: everything is written, and on the disk if it is a file.
    ///
    /// # Errors
    /// [`OutputError`] if it cannot be written; the file is of no use then.
    pub fn finish(self) -> Result<(), OutputError> {
        let done = self.sink.finish();
        done.map_err(|error| failure(&self.target, self.format, error))
    }
}

fn boxed<S: Sink + 'static>(sink: S) -> Box<dyn Sink> {
    Box::new(sink)
}

fn failure(target: &Target, format: Format, error: SinkError) -> OutputError {
    let name = target.to_string();
    match error {
        SinkError::Io(source) => OutputError::Io { name, source },
        SinkError::Other(reason) => OutputError::Format {
            name,
            format,
            reason,
        },
    }
}

impl From<std::io::Error> for SinkError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Whether the format has a way to write each column.
fn check_columns(format: Format, columns: &SchemaRef) -> Result<(), OutputError> {
    const TABLE: &str = "write parquet or arrow";
    let unwritable = |column: &str, found: String, hint| OutputError::Unwritable {
        column: column.to_owned(),
        found,
        format,
        hint,
    };
    if let (Format::Npy, [_, second, ..]) = (format, &columns.fields()[..]) {
        let found = "the second column".to_owned();
        return Err(unwritable(
            second.name(),
            found,
            "write npz, or one output alone",
        ));
    }
    for field in columns.fields() {
        let (fits, hint) = match format {
            Format::Csv | Format::Tsv | Format::Jsonl => {
                (value::is_writable(field.data_type()), TABLE)
            }
            Format::Npy | Format::Npz => {
                let hint = "NumPy files hold numbers; write parquet, or leave the column out";
                (numpy::is_writable(field.data_type()), hint)
            }
            Format::Parquet | Format::Arrow => {
                (!matches!(field.data_type(), DataType::Union(..)), TABLE)
            }
        };
        if !fits {
            return Err(unwritable(
                field.name(),
                field.data_type().to_string(),
                hint,
            ));
        }
    }
    Ok(())
}
