//! Names that become part of subjects: lanes and models.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::shorten;

/// Longest model name in bytes.
pub const MAX_MODEL_NAME_BYTES: usize = 64;

/// How urgent a job is: one consumer and one share of the pull grants for each lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Somebody waits for the answer; the default of RPC.
    High,
    /// The default of jobs.
    Normal,
    /// Bulk work, such as scoring a file.
    Low,
}

impl Lane {
    /// All lanes, the most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The token in subjects and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// Grants a lane gets in each round when all three have work: 8, 4 and 1.
    pub fn weight(self) -> u32 {
        match self {
            Self::High => 8,
            Self::Normal => 4,
            Self::Low => 1,
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Lane {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL
            .into_iter()
            .find(|lane| lane.as_str() == text)
            .ok_or_else(|| NameError {
                what: "lane",
                name: shorten(text, 80),
                rule: "high, normal or low",
            })
    }
}

/// A name that breaks the grammar of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a {what}: it must be {rule}")]
pub struct NameError {
    /// Kind of name, such as `model name`.
    pub what: &'static str,
    /// The name, shortened.
    pub name: String,
    /// What would have been accepted.
    pub rule: &'static str,
}

/// The name of a model: `[a-z0-9_-]{1,64}`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName(Arc<str>);

impl ModelName {
    /// Checks the grammar.
    ///
    /// # Errors
    /// [`NameError`] if `name` is not `[a-z0-9_-]{1,64}`.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if is_word(name, MAX_MODEL_NAME_BYTES, |c| c.is_ascii_lowercase()) {
            Ok(Self(name.into()))
        } else {
            Err(NameError {
                what: "model name",
                name: shorten(name, 80),
                rule: "1 to 64 of a-z, 0-9, `_` and `-`",
            })
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ModelName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for ModelName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl Serialize for ModelName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ModelName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::new(&name).map_err(serde::de::Error::custom)
    }
}

/// Whether `text` is 1 to `max` bytes of digits, `_`, `-` and the given letters.
pub(crate) fn is_word(text: &str, max: usize, letter: impl Fn(u8) -> bool) -> bool {
    (1..=max).contains(&text.len())
        && text
            .bytes()
            .all(|c| c.is_ascii_digit() || c == b'_' || c == b'-' || letter(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_names_keep_their_grammar() {
        for good in ["a", "digits", "bert-base_2", &"m".repeat(64)] {
            assert!(ModelName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "Digits", "a.b", "a b", "a*", ">", "ä", &"m".repeat(65)] {
            assert!(ModelName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lanes_are_ordered_by_urgency() {
        assert!(Lane::High < Lane::Normal && Lane::Normal < Lane::Low);
        assert_eq!(Lane::ALL.map(Lane::weight), [8, 4, 1]);
        assert_eq!("low".parse(), Ok(Lane::Low));
        assert!("LOW".parse::<Lane>().is_err());
    }
}
