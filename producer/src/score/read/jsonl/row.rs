//! One line as the cells of its columns.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::score::read::types::json_column;

/// How rows that are lists are called.
const LIST_COLUMN: &str = "values";

/// The columns of a file, and where each is.
pub(super) struct Columns {
    pub(super) schema: SchemaRef,
    places: HashMap<String, usize>,
    list: Option<usize>,
}

impl Columns {
    pub(super) fn new(names: Vec<String>) -> Self {
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
    pub(super) fn cells<'a>(&self, line: &'a [u8]) -> Result<Vec<Option<&'a str>>, String> {
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
pub(super) fn names_of(line: &[u8]) -> Vec<String> {
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
