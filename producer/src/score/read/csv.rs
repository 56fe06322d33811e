//! CSV and TSV: the first line names the columns, every other one is a row of text cells.

use std::sync::Arc;

use ::csv::{ByteRecord, ReaderBuilder};
use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{Schema, SchemaRef};

use super::bytes::{self, BUFFER, Bounded, Bytes, Position, damaged};
use super::types::text_column;
use super::{InputError, Piece, Table};
use crate::score::input::InputFile;

pub(super) struct Csv {
    file: InputFile,
    reader: ::csv::Reader<Bounded<Bytes>>,
    columns: SchemaRef,
    record: ByteRecord,
    position: Position,
}

impl Csv {
    /// `None` if the file has not even a header.
    pub(super) fn open(file: &InputFile, delimiter: u8) -> Result<Option<Self>, InputError> {
        let (text, position) = bytes::text(file)?;
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .buffer_capacity(BUFFER)
            .from_reader(Bounded::new(text));
        let header = reader.byte_headers().map_err(|error| wrong(file, error))?;
        if header.is_empty() {
            return Ok(None);
        }
        let mut fields = Vec::with_capacity(header.len());
        for name in header {
            let name = std::str::from_utf8(name)
                .map_err(|_| damaged(file, "the header is not UTF-8; convert the file"))?;
            fields.push(text_column(name.trim()));
        }
        Ok(Some(Self {
            file: file.clone(),
            reader,
            columns: Arc::new(Schema::new(fields)),
            record: ByteRecord::new(),
            position,
        }))
    }

    /// Reads the next record; `false` at the end.
    fn next(&mut self) -> Result<bool, InputError> {
        self.reader.get_mut().next_record();
        self.reader
            .read_byte_record(&mut self.record)
            .map_err(|error| wrong(&self.file, error))
    }

    /// What is wrong with the record at hand.
    fn problem(&self, reason: String) -> String {
        let line = self.record.position().map_or(0, |at| at.line());
        format!("{} line {line}: {reason}", self.file.path)
    }
}

impl Table for Csv {
    fn columns(&self) -> SchemaRef {
        self.columns.clone()
    }

    fn share_read(&self) -> Option<f64> {
        self.position.share()
    }

    fn read(&mut self, rows: usize) -> Result<Option<Piece>, InputError> {
        let columns = self.columns.fields().len();
        let mut cells: Vec<StringBuilder> = (0..columns).map(|_| StringBuilder::new()).collect();
        let (mut have, mut problems) = (0, Vec::new());
        while have < rows && self.next()? {
            if let Err(reason) = append(&self.record, &mut cells) {
                problems.push((have, self.problem(reason)));
                cells.iter_mut().for_each(StringBuilder::append_null);
            }
            have += 1;
        }
        if have == 0 {
            return Ok(None);
        }
        let arrays = cells
            .iter_mut()
            .map(|cells| Arc::new(cells.finish()) as ArrayRef);
        let batch = RecordBatch::try_new(self.columns.clone(), arrays.collect())
            .expect("every column got a cell of every row");
        Ok(Some(Piece { batch, problems }))
    }

    fn skip(&mut self, rows: u64) -> Result<u64, InputError> {
        let mut passed = 0;
        while passed < rows && self.next()? {
            passed += 1;
        }
        Ok(passed)
    }
}

/// Adds one cell to each column, or none to any.
fn append(record: &ByteRecord, cells: &mut [StringBuilder]) -> Result<(), String> {
    if record.len() != cells.len() {
        let (fields, columns) = (record.len(), cells.len());
        return Err(format!("{fields} fields where the header has {columns}"));
    }
    // One check for the whole line; a character cut in two by a delimiter shows below.
    let not_text = |column: usize| format!("field {} is not UTF-8 text", column + 1);
    let line = std::str::from_utf8(record.as_slice()).map_err(|error| {
        let at = error.valid_up_to();
        let before = |column: &usize| record.range(*column).is_some_and(|range| range.end <= at);
        not_text((0..record.len()).take_while(before).count())
    })?;
    let whole = |column: &usize| {
        let range = record.range(*column).unwrap_or_default();
        line.is_char_boundary(range.end)
    };
    if let Some(column) = (0..record.len()).find(|column| !whole(column)) {
        return Err(not_text(column));
    }
    for (column, cells) in cells.iter_mut().enumerate() {
        cells.append_value(&line[record.range(column).unwrap_or_default()]);
    }
    Ok(())
}

fn wrong(file: &InputFile, error: ::csv::Error) -> InputError {
    let place = error.position().map(::csv::Position::line);
    let reason = match error.into_kind() {
        ::csv::ErrorKind::Io(source) if source.kind() != std::io::ErrorKind::InvalidData => {
            return bytes::unreadable(file, source);
        }
        ::csv::ErrorKind::Io(source) => source.to_string(),
        other => format!("{other:?}"),
    };
    match place {
        Some(line) => damaged(file, format!("line {line}: {reason}")),
        None => damaged(file, reason),
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;

    use super::*;
    use crate::score::input::{Compression, Format, Source};

    fn open(bytes: &[u8]) -> (tempfile::NamedTempFile, Option<Csv>) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        let input = InputFile {
            path: Source::File(file.path().to_owned()),
            format: Format::Csv,
            compression: Compression::None,
        };
        let table = Csv::open(&input, b',').expect("readable");
        (file, table)
    }

    fn cells(piece: &Piece, column: usize) -> Vec<Option<&str>> {
        piece
            .batch
            .column(column)
            .as_string::<i32>()
            .iter()
            .collect()
    }

    #[test]
    fn quotes_line_ends_and_a_byte_order_mark_are_understood() {
        let (_file, table) =
            open(b"\xef\xbb\xbfid, name\r\n1,\"a, \"\"b\"\"\r\nc\"\r\n\r\n2,\xc3\xa4\r\n3,");
        let mut table = table.expect("a header");
        assert_eq!(table.columns.field(0).name(), "id");
        assert_eq!(table.columns.field(1).name(), "name");
        let piece = table.read(10).expect("readable").expect("rows");
        assert_eq!(cells(&piece, 0), [Some("1"), Some("2"), Some("3")]);
        assert_eq!(
            cells(&piece, 1),
            [Some("a, \"b\"\r\nc"), Some("ä"), Some("")]
        );
        assert!(piece.problems.is_empty());
        assert!(table.read(10).expect("readable").is_none());
    }

    #[test]
    fn ragged_lines_and_broken_text_are_problems_of_their_rows() {
        let (_file, table) = open(b"a,b\n1\n1,2,3\n\xe4,2\n1,\xc3\n\xc3,\xa4\n1,2\n");
        let piece = table
            .expect("a header")
            .read(10)
            .expect("readable")
            .expect("rows");
        let problems: Vec<_> = piece
            .problems
            .iter()
            .map(|(row, why)| (*row, why.as_str()))
            .collect();
        let expected = [
            (0, "line 2: 1 fields where the header has 2"),
            (1, "line 3: 3 fields where the header has 2"),
            (2, "line 4: field 1 is not UTF-8 text"),
            (3, "line 5: field 2 is not UTF-8 text"),
            (4, "line 6: field 1 is not UTF-8 text"),
        ];
        assert_eq!(problems.len(), expected.len());
        for ((row, why), (expected_row, expected_why)) in problems.iter().zip(expected) {
            assert_eq!(*row, expected_row);
            assert!(why.ends_with(expected_why), "{why}");
        }
        assert_eq!(cells(&piece, 1), [None, None, None, None, None, Some("2")]);
    }

    #[test]
    fn a_quote_that_is_never_closed_ends_the_reading_and_not_the_memory() {
        let mut text = b"a\n\"".to_vec();
        text.resize(bytes::MAX_RECORD as usize + 2 * BUFFER, b'x');
        let (_file, table) = open(&text);
        let error = table
            .expect("a header")
            .read(1)
            .map(|_| ())
            .expect_err("too long")
            .to_string();
        assert!(error.contains("is a quote not closed?"), "{error}");
    }

    #[test]
    fn a_file_without_a_header_has_no_columns() {
        assert!(open(b"").1.is_none());
    }
}
