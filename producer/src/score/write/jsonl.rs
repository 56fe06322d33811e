//! JSON lines: an object per row, its members in the order of the columns.

use std::io::Write;

use arrow_array::RecordBatch;
use arrow_schema::Schema;

use super::packed::Packed;
use super::value::{self, Put, Style};
use super::{Sink, SinkError};

pub(super) struct Jsonl {
    out: Packed,
    /// What stands before each value: `{"a":`, `,"b":`.
    before: Vec<Vec<u8>>,
    text: Vec<u8>,
}

impl Jsonl {
    pub(super) fn new(out: Packed, columns: &Schema) -> Self {
        let fields = columns.fields().iter().enumerate();
        let before = fields.map(|(place, field)| {
            let mut before = vec![if place == 0 { b'{' } else { b',' }];
            value::text(field.name(), Style::Json, &mut before);
            before.push(b':');
            before
        });
        Self {
            before: before.collect(),
            out,
            text: Vec::new(),
        }
    }
}

impl Sink for Jsonl {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        let columns = batch.columns().iter();
        let values: Vec<Put<'_>> = columns
            .map(|column| value::put(column, Style::Json))
            .collect();
        for row in 0..batch.num_rows() {
            for (before, value) in self.before.iter().zip(&values) {
                self.text.extend_from_slice(before);
                value(row, &mut self.text);
            }
            let end: &[u8] = if values.is_empty() { b"{}\n" } else { b"}\n" };
            self.text.extend_from_slice(end);
        }
        self.out.write_all(&self.text)?;
        self.text.clear();
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(self.out.finish()?)
    }
}
