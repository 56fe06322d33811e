//! JSON lines: every line is a row, an object of named cells or a list. A cell is the JSON text of its
//! member, so numbers keep all their digits.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{Schema, SchemaRef};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::bytes::{self, BUFFER, Bytes, MAX_RECORD, Position, damaged};
use super::types::json_column;
use super::{InputError, Piece, Table};
use crate::score::input::InputFile;

/// The first file's columns are the members of so many of its first rows.
const SAMPLED_ROWS: usize = 1_000;
/// How rows that are lists are called.
const LIST_COLUMN: &str = "values";

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

struct Columns {
    schema: SchemaRef,
    places: HashMap<String, usize>,
    list: Option<usize>,
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
        Ok((!table.columns.places.is_empty()).then_some(table))
    }

    fn sample(&mut self) -> Result<(), InputError> {
        let mut names = Vec::new();
        let (mut seen, mut size) = (HashMap::new(), 0);
        while self.sampled.len() < SAMPLED_ROWS && size < MAX_RECORD as usize && self.fill()? {
            for name in names_of(&self.line.text) {
                if seen.insert(name.clone(), ()).is_none() {
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

impl Columns {
    fn new(names: Vec<String>) -> Self {
        let fields: Vec<_> = names.iter().map(|name| json_column(name)).collect();
        let list = names.iter().position(|name| name == LIST_COLUMN);
        let places = names
            .into_iter()
            .enumerate()
            .map(|(place, name)| (name, place));
        Self {
            schema: Arc::new(Schema::new(fields)),
            places: places.collect(),
            list,
        }
    }

    /// The cell of each column: its JSON text, or `None` for `null` and what the row has not.
    fn cells<'a>(&self, line: &'a [u8]) -> Result<Vec<Option<&'a str>>, String> {
        let mut cells = vec![None; self.places.len()];
        match line.trim_ascii_start().first() {
            Some(b'{') => {
                let row = Row {
                    columns: self,
                    cells: &mut cells,
                };
                let mut json = serde_json::Deserializer::from_slice(line);
                let read = row.deserialize(&mut json).and_then(|()| json.end());
                read.map_err(say)?;
            }
            Some(b'[') => {
                let list: &RawValue = serde_json::from_slice(line).map_err(say)?;
                let place = self
                    .list
                    .ok_or("a list, where the rows before are objects")?;
                cells[place] = Some(list.get());
            }
            _ => return Err("neither an object nor a list".to_owned()),
        }
        Ok(cells)
    }
}

/// Puts the members of an object into the places of their columns.
struct Row<'c, 'a> {
    columns: &'c Columns,
    cells: &'c mut [Option<&'a str>],
}

/// The name of a member, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> DeserializeSeed<'a> for Row<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Row<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut members: M) -> Result<(), M::Error> {
        let fields = self.columns.schema.fields();
        let mut likely = 0;
        while let Some(Name(name)) = members.next_key::<Name<'a>>()? {
            let value: &'a RawValue = members.next_value()?;
            // Rows mostly have their members in the same order.
            let place = if fields
                .get(likely)
                .is_some_and(|field| *field.name() == *name)
            {
                likely
            } else if let Some(place) = self.columns.places.get(&*name) {
                *place
            } else {
                continue;
            };
            likely = place + 1;
            self.cells[place] = Some(value.get()).filter(|json| *json != "null");
        }
        Ok(())
    }
}

/// The columns that a row has; none if it is not readable.
fn names_of(line: &[u8]) -> Vec<String> {
    struct Names;
    impl<'a> Visitor<'a> for Names {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<M: MapAccess<'a>>(self, mut members: M) -> Result<Self::Value, M::Error> {
            let mut names = Vec::new();
            while let Some((name, _)) = members.next_entry::<String, serde::de::IgnoredAny>()? {
                names.push(name);
            }
            Ok(names)
        }
    }
    match line.trim_ascii_start().first() {
        Some(b'{') => {
            let mut json = serde_json::Deserializer::from_slice(line);
            json.deserialize_map(Names).unwrap_or_default()
        }
        Some(b'[') if serde_json::from_slice::<&RawValue>(line).is_ok() => {
            vec![LIST_COLUMN.to_owned()]
        }
        _ => Vec::new(),
    }
}

/// The error without the line, which is always 1 here.
fn say(error: serde_json::Error) -> String {
    let text = error.to_string();
    let what = text
        .rsplit_once(" at line ")
        .map_or(&*text, |(what, _)| what);
    format!("{what} at column {}", error.column())
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;

    use super::*;
    use crate::score::input::{Compression, Format, Source};

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
