//! Arrow IPC, as a file (which Feather 2 is, too) or as a stream.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};

use arrow_array::RecordBatch;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, SchemaRef};

use super::bytes::{self, BUFFER, Bytes, damaged, unreadable};
use super::parquet::split;
use super::types::{plain_schema, to_plain};
use super::{InputError, Piece, Table};
use crate::score::input::{InputFile, Source};

const FILE_MAGIC: &[u8] = b"ARROW1";
const FEATHER_1_MAGIC: &[u8] = b"FEA1";

struct Arrow<B> {
    file: InputFile,
    batches: B,
    columns: SchemaRef,
    rest: Option<RecordBatch>,
}

pub(super) fn open(file: &InputFile) -> Result<Box<dyn Table>, InputError> {
    let mut start = Vec::new();
    let peek = |bytes: &mut dyn Read, start: &mut Vec<u8>| {
        let length = FILE_MAGIC.len() as u64;
        let read = bytes.take(length).read_to_end(start);
        read.map(|_| ()).map_err(|source| unreadable(file, source))
    };
    let mut bytes: Bytes = match &file.path {
        Source::File(_) => {
            let mut source = bytes::seekable(file)?;
            peek(&mut source, &mut start)?;
            source.rewind().map_err(|source| unreadable(file, source))?;
            if start == FILE_MAGIC {
                return random(file, source);
            }
            Box::new(BufReader::with_capacity(BUFFER, source))
        }
        Source::Stdin => {
            let (mut source, _) = bytes::text(file)?;
            peek(&mut source, &mut start)?;
            Box::new(Cursor::new(start.clone()).chain(source))
        }
    };
    if start == FILE_MAGIC {
        let source = bytes::stored(file, &mut bytes)?;
        return random(file, source);
    }
    if start.starts_with(FEATHER_1_MAGIC) {
        let reason = "this is Feather 1; write Feather 2 or Parquet";
        return Err(damaged(file, reason));
    }
    let wrong = |error| damaged(file, error);
    let buffered = BufReader::with_capacity(BUFFER, bytes);
    let batches = StreamReader::try_new(buffered, None).map_err(wrong)?;
    let columns = plain_schema(&batches.schema());
    Ok(Box::new(Arrow::new(file, batches, columns)))
}

fn random(file: &InputFile, source: File) -> Result<Box<dyn Table>, InputError> {
    let buffered = BufReader::with_capacity(BUFFER, source);
    let batches = FileReader::try_new(buffered, None).map_err(|error| damaged(file, error))?;
    let columns = plain_schema(&batches.schema());
    Ok(Box::new(Arrow::new(file, batches, columns)))
}

impl<B: Iterator<Item = Result<RecordBatch, ArrowError>>> Arrow<B> {
    fn new(file: &InputFile, batches: B, columns: SchemaRef) -> Self {
        Self {
            file: file.clone(),
            batches,
            columns,
            rest: None,
        }
    }

    /// At most `rows` rows, in the types of the file.
    fn take(&mut self, rows: usize) -> Result<Option<RecordBatch>, InputError> {
        loop {
            let batch = match self.rest.take() {
                Some(rest) => rest,
                None => match self.batches.next().transpose() {
                    Ok(Some(batch)) => batch,
                    Ok(None) => return Ok(None),
                    Err(error) => return Err(damaged(&self.file, error)),
                },
            };
            if batch.num_rows() > 0 {
                let (taken, rest) = split(batch, rows);
                self.rest = rest;
                return Ok(Some(taken));
            }
        }
    }
}

impl<B: Iterator<Item = Result<RecordBatch, ArrowError>> + Send> Table for Arrow<B> {
    fn columns(&self) -> SchemaRef {
        self.columns.clone()
    }

    fn share_read(&self) -> Option<f64> {
        None
    }

    fn read(&mut self, rows: usize) -> Result<Option<Piece>, InputError> {
        let Some(batch) = self.take(rows)? else {
            return Ok(None);
        };
        let batch = to_plain(&self.columns, &batch).map_err(|error| damaged(&self.file, error))?;
        Ok(Some(Piece {
            batch,
            problems: Vec::new(),
        }))
    }

    fn skip(&mut self, rows: u64) -> Result<u64, InputError> {
        let mut passed = 0;
        while passed < rows {
            let left = usize::try_from(rows - passed).unwrap_or(usize::MAX);
            let Some(batch) = self.take(left)? else {
                break;
            };
            passed += batch.num_rows() as u64;
        }
        Ok(passed)
    }
}
