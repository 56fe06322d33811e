//! Reads known keys of a TOML table into typed places and collects every mistake on the way.

use std::ops::RangeInclusive;
use std::time::Duration;

use inferq_schemas::nearest;
use toml::{Table, Value};

/// One table of a settings file, the path that leads to it, and the mistakes found so far.
pub(super) struct Reader<'a> {
    file: &'a str,
    path: String,
    table: Table,
    problems: &'a mut Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str, table: Table, problems: &'a mut Vec<String>) -> Self {
        Self {
            file,
            path: String::new(),
            table,
            problems,
        }
    }

    /// The keys of this table.
    pub(super) fn keys(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }

    /// Refuses every key that is not `known`, with the nearest that is.
    pub(super) fn only(&mut self, known: &[&str]) {
        for key in self.keys() {
            if !known.contains(&key.as_str()) {
                let hint = match nearest(&key, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", known.join(", ")),
                };
                self.problem(&key, &format!("unknown, {hint}"));
            }
        }
    }

    /// Goes into the table under `key`, if there is one.
    pub(super) fn table(&mut self, key: &str, read: impl FnOnce(&mut Reader<'_>)) {
        match self.table.get(key) {
            None => {}
            Some(Value::Table(table)) => {
                let table = table.clone();
                let path = format!("{}{key}.", self.path);
                read(&mut Reader {
                    file: self.file,
                    path,
                    table,
                    problems: self.problems,
                });
            }
            Some(_) => self.problem(key, &format!("write a table, [{}{key}]", self.path)),
        }
    }

    /// Reads `true` or `false`.
    pub(super) fn flag(&mut self, key: &str, place: &mut bool) {
        match self.table.get(key) {
            None => {}
            Some(Value::Boolean(value)) => *place = *value,
            Some(_) => self.problem(key, "write true or false"),
        }
    }

    /// Reads a list of texts, each of them once.
    pub(super) fn strings(&mut self, key: &str, place: &mut Vec<String>) {
        let Some(value) = self.table.get(key) else {
            return;
        };
        let text = |item: &Value| item.as_str().map(str::to_owned);
        match value
            .as_array()
            .and_then(|list| list.iter().map(text).collect::<Option<Vec<_>>>())
        {
            Some(list) => {
                let twice = list
                    .iter()
                    .enumerate()
                    .find(|(place, item)| list[..*place].contains(item));
                if let Some((_, item)) = twice {
                    self.problem(key, &format!("`{item}` twice"));
                }
                *place = list;
            }
            None => self.problem(key, "write a list of texts, such as [\"a\", \"b\"]"),
        }
    }

    /// Reads a time such as `"1h"`.
    pub(super) fn duration(
        &mut self,
        key: &str,
        range: RangeInclusive<Duration>,
        place: &mut Duration,
    ) {
        let Some(value) = self.table.get(key) else {
            return;
        };
        match value
            .as_str()
            .and_then(|text| humantime::parse_duration(text).ok())
        {
            Some(time) if range.contains(&time) => *place = time,
            _ => {
                let (least, most) = (
                    humantime::format_duration(*range.start()),
                    humantime::format_duration(*range.end()),
                );
                self.problem(
                    key,
                    &format!("write a time from \"{least}\" to \"{most}\", such as \"1h\""),
                );
            }
        }
    }

    /// Reads one of several words.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, words: &[(&str, T)], place: &mut T) {
        let Some(value) = self.table.get(key) else {
            return;
        };
        match words.iter().find(|(word, _)| value.as_str() == Some(word)) {
            Some((_, chosen)) => *place = *chosen,
            None => {
                let words: Vec<_> = words
                    .iter()
                    .map(|(word, _)| format!("\"{word}\""))
                    .collect();
                self.problem(key, &format!("write {}", words.join(" or ")));
            }
        }
    }

    fn problem(&mut self, key: &str, problem: &str) {
        self.problems
            .push(format!("{}: {}{key}: {problem}", self.file, self.path));
    }
}
