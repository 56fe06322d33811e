//! What a run is made of. If any of it changes, the chunks of before and after do not belong together.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::unix_ms;

/// Bytes read at each end of a file. Size and time of change tell the rest.
const ENDS: u64 = 1 << 20;
/// Characters of a value that a difference shows.
const SHOWN: usize = 80;

/// Everything that determines the output of a run, byte by byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    /// The model.
    pub(super) model: String,
    /// Its version.
    pub(super) version: u64,
    /// The digest of everything that determines the version's answers.
    pub(super) digest: String,
    /// Which columns make which input.
    pub(super) mapping: Value,
    /// The outputs asked for; empty for all.
    pub(super) outputs: Vec<String>,
    /// The columns passed through.
    pub(super) keep: Vec<String>,
    /// Whether rows keep their order.
    pub(super) ordered: bool,
    /// The files, in order.
    pub(super) input: Vec<FileIdentity>,
}

/// A file, as far as it can be told apart without reading all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileIdentity {
    /// As it was named.
    pub(super) path: String,
    /// Its size.
    pub(super) bytes: u64,
    /// When it was changed last, in milliseconds since 1970.
    pub(super) modified_unix_ms: u64,
    /// BLAKE3 of its first and last MiB.
    pub(super) ends: String,
}

impl FileIdentity {
    /// Looks at the file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn of(path: &Path) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        let about = file.metadata()?;
        let modified = about.modified()?;
        let mut digest = blake3::Hasher::new();
        std::io::copy(&mut (&mut file).take(ENDS), &mut digest)?;
        if about.len() > ENDS {
            file.seek(SeekFrom::Start(about.len().saturating_sub(ENDS).max(ENDS)))?;
            std::io::copy(&mut file.take(ENDS), &mut digest)?;
        }
        Ok(Self {
            path: path.display().to_string(),
            bytes: about.len(),
            modified_unix_ms: unix_ms(modified),
            ends: digest.finalize().to_hex().to_string(),
        })
    }
}

impl Fingerprint {
    /// What differs, a line each: `version was 1, is 2`. Empty if nothing does.
    pub(super) fn differences(&self, now: &Self) -> Vec<String> {
        let (was, is) = (leaves(self), leaves(now));
        let mut names: Vec<&String> = was.keys().chain(is.keys()).collect();
        names.sort();
        names.dedup();
        let told = |value: Option<&String>| value.map_or("nothing", String::as_str).to_owned();
        names
            .into_iter()
            .filter(|name| was.get(*name) != is.get(*name))
            .map(|name| {
                format!(
                    "{name} was {}, is {}",
                    told(was.get(name)),
                    told(is.get(name))
                )
            })
            .collect()
    }
}

/// Each member by its name, files by their place among the files.
fn leaves(fingerprint: &Fingerprint) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    let Ok(Value::Object(members)) = serde_json::to_value(fingerprint) else {
        return leaves;
    };
    for (name, value) in members {
        match value {
            Value::Array(files) if name == "input" => {
                for (index, file) in files.into_iter().enumerate() {
                    let Value::Object(members) = file else {
                        continue;
                    };
                    for (member, value) in members {
                        leaves.insert(format!("input file {} {member}", index + 1), short(&value));
                    }
                }
            }
            value => {
                leaves.insert(name, short(&value));
            }
        }
    }
    leaves
}

/// Long values keep a digest of the rest, so that they still differ where the values do.
fn short(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(SHOWN) {
        None => text,
        Some((end, _)) => {
            let rest = blake3::hash(text.as_bytes()).to_hex();
            format!("{}... ({})", &text[..end], &rest[..8])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(input: Vec<FileIdentity>) -> Fingerprint {
        Fingerprint {
            model: "digits".into(),
            version: 1,
            digest: "d".into(),
            mapping: serde_json::json!({"x": ["a", "b"]}),
            outputs: Vec::new(),
            keep: Vec::new(),
            ordered: true,
            input,
        }
    }

    #[test]
    fn what_changed_is_named_with_both_values() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows.csv");
        std::fs::write(&path, "a\n1\n").expect("writable");
        let before = fingerprint(vec![FileIdentity::of(&path).expect("readable")]);
        assert_eq!(before.differences(&before), Vec::<String>::new());
        std::fs::write(&path, "a\n1\n2\n").expect("writable");
        let mut after = fingerprint(vec![FileIdentity::of(&path).expect("readable")]);
        after.version = 2;
        let differences = before.differences(&after).join("; ");
        assert!(differences.contains("version was 1, is 2"), "{differences}");
        assert!(
            differences.contains("input file 1 bytes was 4, is 6"),
            "{differences}"
        );
    }

    #[test]
    fn a_change_at_the_end_of_a_large_file_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows.csv");
        let mut text = vec![b'x'; 3 << 20];
        std::fs::write(&path, &text).expect("writable");
        let before = FileIdentity::of(&path).expect("readable");
        text[(3 << 20) - 2] = b'y';
        std::fs::write(&path, &text).expect("writable");
        let after = FileIdentity::of(&path).expect("readable");
        assert_ne!(before.ends, after.ends);
        assert_eq!(before.bytes, after.bytes);
    }

    #[test]
    fn long_values_that_differ_late_still_differ() {
        let long = |last: &str| Value::String(format!("{}{last}", "a".repeat(500)));
        assert_ne!(short(&long("1")), short(&long("2")));
        assert!(short(&long("1")).len() < 120);
    }
}
