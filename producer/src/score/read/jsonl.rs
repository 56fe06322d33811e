//! JSON lines: every line is a row, an object of named cells or a list. A cell is the JSON text of its
//! member, so numbers keep all their digits.

mod row;

use std::collections::{HashSet, VecDeque};
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;

use self::row::{Columns, names_of};
use super::bytes::{self, BUFFER, Bytes, MAX_RECORD, Position, damaged};
use super::{InputError, Piece, Table};
use crate::score::input::InputFile;

/// The first file's columns are the members of so many of its first rows.
const SAMPLED_ROWS: usize = 1_000;

pub(super) struct Jsonl {
    file: InputFile,
    reader: BufReader<Bytes>,
    position: Position,
    /// Lines that were read to find the columns.
    sampled: VecDeque<Line>,
    line: Line,
    columns: Columns,
}

#[derive(Default)]
struct Line {
    number: u64,
    text: Vec<u8>,
}

impl Jsonl {
    /// `None` if the file has no row. Without `known` columns they are found in the first rows.
    pub(super) fn open(
        file: &InputFile,
        known: Option<&SchemaRef>,
    ) -> Result<Option<Self>, InputError> {
        let (text, position) = bytes::text(file)?;
        let mut table = Self {
            file: file.clone(),
            reader: BufReader::with_capacity(BUFFER, text),
            position,
            sampled: VecDeque::new(),
            line: Line::default(),
            columns: Columns::new(Vec::new()),
        };
        match known {
            Some(schema) => {
                let names = schema.fields().iter().map(|field| field.name().clone());
                table.columns = Columns::new(names.collect());
            }
            None => table.sample()?,
        }
        Ok((!table.columns.schema.fields().is_empty()).then_some(table))
    }

    fn sample(&mut self) -> Result<(), InputError> {
        let mut names = Vec::new();
        let (mut seen, mut size) = (HashSet::new(), 0);
        while self.sampled.len() < SAMPLED_ROWS && size < MAX_RECORD as usize && self.fill()? {
            for name in names_of(&self.line.text) {
                if seen.insert(name.clone()) {
                    names.push(name);
                }
            }
            size += self.line.text.len();
            self.sampled.push_back(std::mem::take(&mut self.line));
            // The number goes on from the line that was taken.
            self.line.number = self.sampled.back().map_or(0, |line| line.number);
        }
        if names.is_empty() && !self.sampled.is_empty() {
            let reason = "none of its first lines is a JSON object or list";
            return Err(damaged(&self.file, reason));
        }
        self.columns = Columns::new(names);
        Ok(())
    }

    /// Makes the next line that is not blank the line at hand; `false` at the end.
    fn next(&mut self) -> Result<bool, InputError> {
        if let Some(line) = self.sampled.pop_front() {
            self.line = line;
            return Ok(true);
        }
        self.fill()
    }

    fn fill(&mut self) -> Result<bool, InputError> {
        loop {
            self.line.text.clear();
            let mut bounded = (&mut self.reader).take(MAX_RECORD);
            let read = bounded.read_until(b'\n', &mut self.line.text);
            let read = read.map_err(|source| bytes::unreadable(&self.file, source))?;
            self.line.number += 1;
            if read == 0 {
                return Ok(false);
            }
            if read as u64 == MAX_RECORD && self.line.text.last() != Some(&b'\n') {
                let number = self.line.number;
                let reason = format!("line {number} has more than 64 MiB");
                return Err(damaged(&self.file, reason));
            }
            if self.line.number == 1 && self.line.text.starts_with(b"\xef\xbb\xbf") {
                self.line.text.drain(..3);
            }
            if !self.line.text.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }
}

impl Table for Jsonl {
    fn share_read(&self) -> Option<f64> {
        self.position.share()
    }

    fn columns(&self) -> SchemaRef {
        self.columns.schema.clone()
    }

    fn read(&mut self, rows: usize) -> Result<Option<Piece>, InputError> {
        let columns = self.columns.schema.fields().len();
        let mut cells: Vec<StringBuilder> = (0..columns).map(|_| StringBuilder::new()).collect();
        let (mut have, mut problems) = (0, Vec::new());
        while have < rows && self.next()? {
            match self.columns.cells(&self.line.text) {
                Ok(row) => {
                    for (cells, cell) in cells.iter_mut().zip(row) {
                        cells.append_option(cell);
                    }
                }
                Err(reason) => {
                    let number = self.line.number;
                    problems.push((have, format!("{} line {number}: {reason}", self.file.path)));
                    cells.iter_mut().for_each(StringBuilder::append_null);
                }
            }
            have += 1;
        }
        if have == 0 {
            return Ok(None);
        }
        let arrays = cells
            .iter_mut()
            .map(|cells| Arc::new(cells.finish()) as ArrayRef);
        let batch = RecordBatch::try_new(self.columns.schema.clone(), arrays.collect())
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

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_schema::Schema;

    use super::*;
    use crate::score::input::{Compression, Format, Source};
    use crate::score::read::types::json_column;

    fn open(text: &str, known: Option<&SchemaRef>) -> (tempfile::NamedTempFile, Option<Jsonl>) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        let input = InputFile {
            path: Source::File(file.path().to_owned()),
            format: Format::Jsonl,
            compression: Compression::None,
        };
        let table = Jsonl::open(&input, known).expect("readable");
        (file, table)
    }

    fn read(table: &mut Jsonl) -> (Vec<Vec<String>>, Vec<(usize, String)>) {
        let piece = table.read(100).expect("readable").expect("rows");
        let column = |array: &ArrayRef| {
            let cells = array.as_string::<i32>().iter();
            cells.map(|cell| cell.unwrap_or("-").to_owned()).collect()
        };
        (
            piece.batch.columns().iter().map(column).collect(),
            piece.problems,
        )
    }

    #[test]
    fn cells_are_the_json_text_of_members_wherever_they_stand() {
        let text = "\u{feff}{\"a\": 1.50, \"b\\u0062\": [1, 2]}\n\n{\"bb\":\"x\\n\",\"a\":null}\r\n{\"c\":{\"d\":1},\"a\":-0}";
        let (_file, table) = open(text, None);
        let mut table = table.expect("rows");
        let names: Vec<_> = table
            .columns()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect();
        assert_eq!(names, ["a", "bb", "c"]);
        let (columns, problems) = read(&mut table);
        assert_eq!(columns[0], ["1.50", "-", "-0"]);
        assert_eq!(columns[1], ["[1, 2]", "\"x\\n\"", "-"]);
        assert_eq!(columns[2], ["-", "-", "{\"d\":1}"]);
        assert!(problems.is_empty());
        assert!(table.read(1).expect("the end").is_none());
    }

    #[test]
    fn broken_lines_are_problems_of_their_rows() {
        let known: SchemaRef = Arc::new(Schema::new(vec![json_column("a")]));
        let text = "{\"a\":1}\n{\"a\":\n\n{\"a\":NaN}\n7\n[1]\n{\"a\":1}{}\n{\"a\":2}";
        let (_file, table) = open(text, Some(&known));
        let (columns, problems) = read(&mut table.expect("rows"));
        assert_eq!(columns[0], ["1", "-", "-", "-", "-", "-", "2"]);
        let messages: Vec<_> = problems.iter().map(|(_, why)| why.as_str()).collect();
        let rows: Vec<_> = problems.iter().map(|(row, _)| *row).collect();
        assert_eq!(rows, [1, 2, 3, 4, 5]);
        assert!(
            messages[0].contains(" line 2: EOF while parsing"),
            "{}",
            messages[0]
        );
        assert!(
            messages[1].contains(" line 4: expected value at column 6"),
            "{}",
            messages[1]
        );
        assert!(messages[2].ends_with("line 5: neither an object nor a list"));
        assert!(messages[3].ends_with("line 6: a list, where the rows before are objects"));
        assert!(
            messages[4].contains("line 7: trailing characters"),
            "{}",
            messages[4]
        );
    }

    #[test]
    fn rows_may_be_lists() {
        let (_file, table) = open("[1,2]\n [3, 4]\n[5,\n", None);
        let (columns, problems) = read(&mut table.expect("rows"));
        assert_eq!(columns[0], ["[1,2]", "[3, 4]", "-"]);
        assert_eq!(problems[0].0, 2);
    }

    #[test]
    fn later_members_are_not_read_and_the_columns_of_other_files_are() {
        let mut text = "{\"a\":1}\n".repeat(SAMPLED_ROWS);
        text.push_str("{\"b\":2,\"a\":3}\n");
        let (_file, table) = open(&text, None);
        let mut table = table.expect("rows");
        assert_eq!(table.columns().fields().len(), 1);
        assert_eq!(table.skip(1_000).expect("readable"), 1_000);
        assert_eq!(read(&mut table).0, [["3"]]);
        let (_file, other) = open("{\"z\":1}\n", Some(&table.columns()));
        assert_eq!(read(&mut other.expect("rows")).0, [["-"]]);
        assert!(open("\n \n", None).1.is_none());
    }
}
