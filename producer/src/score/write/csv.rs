//! CSV and TSV: a header, then a line per row. Lists of one length are a column per element.

use std::collections::HashSet;
use std::io::Write;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema};

use super::packed::Packed;
use super::value::{self, Put, Style};
use super::{Sink, SinkError};

pub(super) struct Csv {
    out: Packed,
    delimiter: u8,
    text: Vec<u8>,
}

impl Csv {
    pub(super) fn new(out: Packed, delimiter: u8, columns: &Schema) -> Result<Self, SinkError> {
        let mut names = Vec::new();
        for field in columns.fields() {
            match flat(field.data_type()) {
                Some(size) => names.extend((0..size).map(|n| format!("{}_{n}", field.name()))),
                None => names.push(field.name().clone()),
            }
        }
        let mut seen = HashSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
            return Err(SinkError::Other(format!(
                "two columns are called `{twice}`"
            )));
        }
        let mut csv = Self {
            out,
            delimiter,
            text: Vec::new(),
        };
        let style = Style::Csv(delimiter);
        let count = names.len();
        csv.line(count, |place, text| value::text(&names[place], style, text));
        csv.flush()?;
        Ok(csv)
    }

    /// Adds a line of `count` cells.
    fn line(&mut self, count: usize, cell: impl Fn(usize, &mut Vec<u8>)) {
        let start = self.text.len();
        for place in 0..count {
            if place > 0 {
                self.text.push(self.delimiter);
            }
            cell(place, &mut self.text);
        }
        if self.text.len() == start {
            // A blank line would not be a row.
            self.text.extend_from_slice(b"\"\"");
        }
        self.text.push(b'\n');
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.out.write_all(&self.text)?;
        self.text.clear();
        Ok(())
    }
}

impl Sink for Csv {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        let mut cells: Vec<Put<'_>> = Vec::new();
        for column in batch.columns() {
            let style = Style::Csv(self.delimiter);
            let Some(size) = flat(column.data_type()) else {
                cells.push(value::put(column, style));
                continue;
            };
            for place in 0..size {
                let item = value::put(column.as_fixed_size_list().values(), style);
                cells.push(Box::new(move |row, out| {
                    if column.is_valid(row) {
                        item(row * size + place, out);
                    }
                }));
            }
        }
        for row in 0..batch.num_rows() {
            self.line(cells.len(), |place, text| cells[place](row, text));
        }
        self.flush()
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(self.out.finish()?)
    }
}

/// How many columns a column of lists becomes.
fn flat(datatype: &DataType) -> Option<usize> {
    match datatype {
        DataType::FixedSizeList(item, size) => match item.data_type() {
            DataType::List(_) | DataType::FixedSizeList(..) => None,
            _ => usize::try_from(*size).ok(),
        },
        _ => None,
    }
}
