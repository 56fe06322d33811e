//! Parquet: row groups outside of what is asked for are never read.

use std::fs::File;

use ::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::bytes::{damaged, seekable, unreadable};
use super::types::{plain_schema, to_plain};
use super::{InputError, Piece, Table};
use crate::score::input::InputFile;

/// Decoded at once: so many bytes as the file's own figures say, and rows.
const BATCH_BYTES: u64 = 8 << 20;
const BATCH_ROWS: u64 = 4_096;

pub(super) struct Parquet {
    file: InputFile,
    source: File,
    metadata: ArrowReaderMetadata,
    columns: SchemaRef,
    rows: u64,
    /// The number in the file of the row that comes next.
    next: u64,
    open: Option<Open>,
}

/// Decoding from `next` on.
struct Open {
    reader: ParquetRecordBatchReader,
    /// What was decoded and not asked for yet.
    rest: Option<RecordBatch>,
}

impl Parquet {
    pub(super) fn open(file: &InputFile) -> Result<Self, InputError> {
        let source = seekable(file)?;
        let options = ArrowReaderOptions::new();
        let metadata =
            ArrowReaderMetadata::load(&source, options).map_err(|error| damaged(file, error))?;
        let rows = metadata.metadata().row_groups().iter();
        let rows = rows.map(|group| group.num_rows().unsigned_abs()).sum();
        Ok(Self {
            file: file.clone(),
            source,
            columns: plain_schema(metadata.schema()),
            metadata,
            rows,
            next: 0,
            open: None,
        })
    }

    /// Starts decoding at the next row.
    fn start(&self) -> Result<Open, InputError> {
        let groups = self.metadata.metadata().row_groups();
        let (mut first, mut before) = (0, 0);
        for group in groups {
            let rows = group.num_rows().unsigned_abs();
            if before + rows > self.next {
                break;
            }
            before += rows;
            first += 1;
        }
        let bytes: u64 = groups
            .iter()
            .map(|group| group.total_byte_size().unsigned_abs())
            .sum();
        let batch = BATCH_BYTES / (bytes / self.rows.max(1)).max(1);
        let source = self.source.try_clone();
        let source = source.map_err(|source| unreadable(&self.file, source))?;
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(source, self.metadata.clone())
                .with_row_groups((first..groups.len()).collect())
                .with_offset((self.next - before) as usize)
                .with_batch_size(batch.clamp(1, BATCH_ROWS) as usize);
        Ok(Open {
            reader: builder
                .build()
                .map_err(|error| damaged(&self.file, error))?,
            rest: None,
        })
    }
}

impl Table for Parquet {
    fn columns(&self) -> SchemaRef {
        self.columns.clone()
    }

    fn share_read(&self) -> Option<f64> {
        Some(self.next as f64 / self.rows.max(1) as f64)
    }

    fn read(&mut self, rows: usize) -> Result<Option<Piece>, InputError> {
        if self.next >= self.rows {
            return Ok(None);
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.start()?,
        };
        let batch = match open.rest.take() {
            Some(rest) => rest,
            None => {
                let next = open.reader.next().transpose();
                let next = next.map_err(|error| damaged(&self.file, error))?;
                let Some(batch) = next else {
                    let (rows, has) = (self.rows, self.next);
                    let reason = format!("it says {rows} rows and has {has}");
                    return Err(damaged(&self.file, reason));
                };
                to_plain(&self.columns, &batch).map_err(|error| damaged(&self.file, error))?
            }
        };
        let (taken, rest) = split(batch, rows);
        open.rest = rest;
        self.open = Some(open);
        self.next += taken.num_rows() as u64;
        Ok(Some(Piece {
            batch: taken,
            problems: Vec::new(),
        }))
    }

    fn skip(&mut self, rows: u64) -> Result<u64, InputError> {
        let passed = rows.min(self.rows - self.next.min(self.rows));
        if passed > 0 {
            self.next += passed;
            self.open = None;
        }
        Ok(passed)
    }
}

/// The first rows of a batch, and the others if there are any.
pub(super) fn split(batch: RecordBatch, rows: usize) -> (RecordBatch, Option<RecordBatch>) {
    let all = batch.num_rows();
    if all <= rows {
        return (batch, None);
    }
    (batch.slice(0, rows), Some(batch.slice(rows, all - rows)))
}
