//! Looking at JSON text that is known to be valid, without making values of it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::limits::Limits;

/// What an object counts for in [`Limits::max_values`]: about 640 bytes at 32 bytes per value.
const OBJECT_WEIGHT: usize = 20;

/// The name of a member, borrowed where it has no escapes.
pub(super) struct Key<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor).map(Key)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// What a JSON string stands for; `None` if an escape makes no character.
pub(super) fn string(text: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Key<'_>>(text).ok().map(|key| key.0)
}

/// Where the value at the start of `text` ends: a number, a word, a string, or a list or object.
/// Used on leaves, where lists do not occur and objects are small.
pub(super) fn leaf_end(text: &[u8]) -> usize {
    match text.first() {
        Some(b'"') => string_end(text),
        Some(b'{') => {
            let mut at = 1;
            let mut depth = 1;
            while depth > 0 && at < text.len() {
                match text[at] {
                    b'"' => at += string_end(&text[at..]) - 1,
                    b'{' => depth += 1,
                    b'}' => depth -= 1,
                    _ => {}
                }
                at += 1;
            }
            at
        }
        _ => text
            .iter()
            .position(|c| matches!(c, b',' | b']' | b' ' | b'\t' | b'\r' | b'\n'))
            .unwrap_or(text.len()),
    }
}

/// Where the string at the start of `text` ends, with its closing quote.
fn string_end(text: &[u8]) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// Checks depth and number of values before anything is made of `text`.
pub(super) fn measure(text: &str, limits: &Limits) -> Result<(), String> {
    let bytes = text.as_bytes();
    let (mut depth, mut values, mut at) = (0_usize, 1_usize, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += string_end(&bytes[at..]);
                continue;
            }
            b',' => values += 1,
            c @ (b'[' | b'{') => {
                depth += 1;
                values += if c == b'{' { OBJECT_WEIGHT } else { 1 };
                if depth > limits.max_depth {
                    return Err(format!("nested deeper than {}", limits.max_depth));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if values > limits.max_values {
            return Err(format!(
                "more than {} values; send named tensors (the v2 form), best in CBOR",
                limits.max_values
            ));
        }
        at += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_end_where_they_should() {
        for (text, leaf) in [
            ("1.5e3,2", "1.5e3"),
            ("true]", "true"),
            ("7 ]", "7"),
            (r#""a\",]" , 1"#, r#""a\",]""#),
            (r#"{"b64": "}"} ]"#, r#"{"b64": "}"}"#),
            (r#"{"a":{}},"#, r#"{"a":{}}"#),
        ] {
            assert_eq!(&text[..leaf_end(text.as_bytes())], leaf);
        }
    }

    #[test]
    fn depth_and_values_are_counted_outside_of_strings() {
        let limits = Limits {
            max_depth: 2,
            max_values: 30,
            ..Limits::default()
        };
        assert_eq!(
            measure(r#"["[[[{,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,", [1]]"#, &limits),
            Ok(())
        );
        assert!(measure("[[[1]]]", &limits).is_err());
        assert!(measure("[{},{}]", &limits).is_err());
        assert!(measure(&format!("[{}1]", "1,".repeat(30)), &limits).is_err());
    }
}
