//! What a caller is told when there is no answer: a code, a sentence, and the body that carries both.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::cbor;
use crate::content_type::ContentType;

/// Longest message in a header, in bytes; servers limit all headers together to a few KiB.
pub const MAX_HEADER_MESSAGE_BYTES: usize = 512;

/// Why there is no answer, with the numbers of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum ErrorCode {
    /// The request does not fit the model, or is not a request. Sending it again cannot help.
    BadInput = 400,
    /// No such model, version or job.
    NotFound = 404,
    /// The deadline passed.
    Deadline = 408,
    /// Cancelled, or the id belongs to another body.
    Conflict = 409,
    /// The body, or the answer, is larger than allowed.
    TooLarge = 413,
    /// No room now; later may work.
    Overloaded = 429,
    /// The model failed on this input.
    Model = 500,
    /// No worker, or it cannot work at the moment.
    Unavailable = 503,
}

impl ErrorCode {
    /// All codes, ascending.
    pub const ALL: [Self; 8] = [
        Self::BadInput,
        Self::NotFound,
        Self::Deadline,
        Self::Conflict,
        Self::TooLarge,
        Self::Overloaded,
        Self::Model,
        Self::Unavailable,
    ];

    /// The number, as in `Nats-Service-Error-Code`.
    pub fn as_u16(self) -> u16 {
        self as u16
    }

    /// Reads the number; `None` if it is not one of ours.
    pub fn from_u16(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_u16() == code)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_u16().fmt(f)
    }
}

/// A code and a sentence for people that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Failure {
    /// The kind of failure.
    pub code: ErrorCode,
    /// What happened, and where.
    pub message: String,
}

/// `{"error": "...", "code": 400}`, the body of an outcome without answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FailureBody {
    pub(crate) error: String,
    pub(crate) code: u16,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The message as one line of at most [`MAX_HEADER_MESSAGE_BYTES`], for a header.
    pub fn header_message(&self) -> String {
        one_line(&self.message, MAX_HEADER_MESSAGE_BYTES)
    }

    /// The body of the outcome and the reply: `{"error": <message>, "code": <code>}`.
    pub fn body(&self, content_type: ContentType) -> Bytes {
        let body = FailureBody {
            error: self.message.clone(),
            code: self.code.as_u16(),
        };
        match content_type {
            ContentType::Json => serde_json::to_vec(&body)
                .expect("text and a number are always JSON")
                .into(),
            ContentType::Cbor => cbor::encode_failure(&body),
        }
    }

    /// Reads what [`Self::body`] wrote; `None` if `body` is something else.
    pub fn from_body(body: &Bytes, content_type: ContentType) -> Option<Self> {
        let body: FailureBody = match content_type {
            // A list would be read as the members in order.
            ContentType::Json if !body.trim_ascii_start().starts_with(b"{") => return None,
            ContentType::Json => serde_json::from_slice(body).ok()?,
            ContentType::Cbor => cbor::decode_failure(body)?,
        };
        Some(Self {
            code: ErrorCode::from_u16(body.code)?,
            message: body.error,
        })
    }
}

/// The name among `known` that `name` was probably meant to be, if one is close.
///
/// Close is at most a third of its letters, but at least one, added, left out, changed or swapped.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = shorten(name, 256);
    known
        .map(|candidate| (strsim::damerau_levenshtein(&name, candidate), candidate))
        .filter(|(distance, candidate)| {
            let letters = candidate.chars().count();
            *distance <= (letters / 3).max(1) && *distance < letters
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// At most `max` bytes of `text` with control characters escaped, for quoting it in a message.
pub fn shorten(text: &str, max: usize) -> String {
    let mut short = String::new();
    for c in text.chars() {
        let mut escaped = [0; 4];
        if c.is_control() {
            short.extend(c.escape_default());
        } else {
            short.push_str(c.encode_utf8(&mut escaped));
        }
        if short.len() > max {
            let mut end = max;
            while !short.is_char_boundary(end) {
                end -= 1;
            }
            short.truncate(end);
            short.push('…');
            break;
        }
    }
    short
}

/// `text` with every run of white space and control characters as one space, cut to `max` bytes.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max));
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    for word in words.filter(|word| !word.is_empty()) {
        let gap = usize::from(!line.is_empty());
        if line.len() + gap + word.len() > max {
            let room = max.saturating_sub(line.len() + gap + '…'.len_utf8());
            let mut end = room.min(word.len());
            while !word.is_char_boundary(end) {
                end -= 1;
            }
            if end > 0 {
                line.extend((gap == 1).then_some(' '));
                line.push_str(&word[..end]);
                line.push('…');
            }
            break;
        }
        line.extend((gap == 1).then_some(' '));
        line.push_str(word);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_back_from_its_body_in_both_encodings() {
        for code in ErrorCode::ALL {
            let failure = Failure::new(code, "inputs[0].data: 63 values for shape [1,64]\nsecond");
            for kind in [ContentType::Json, ContentType::Cbor] {
                assert_eq!(
                    Failure::from_body(&failure.body(kind), kind),
                    Some(failure.clone())
                );
            }
        }
    }

    #[test]
    fn another_body_is_not_a_failure() {
        for body in ["{}", r#"{"error":"x","code":418}"#, r#"["x",400]"#, "[", ""] {
            let body = Bytes::from_static(body.as_bytes());
            assert_eq!(Failure::from_body(&body, ContentType::Json), None);
            assert_eq!(Failure::from_body(&body, ContentType::Cbor), None);
        }
    }

    #[test]
    fn the_nearest_name_is_suggested_only_if_it_is_near() {
        let known = ["digits", "sentiment", "embed"];
        assert_eq!(nearest("digit", known.into_iter()), Some("digits"));
        assert_eq!(nearest("sentimnet", known.into_iter()), Some("sentiment"));
        assert_eq!(nearest("resnet50", known.into_iter()), None);
        assert_eq!(nearest("x", ["y"].into_iter()), None);
    }

    #[test]
    fn a_header_message_is_one_short_line() {
        let failure = Failure::new(ErrorCode::BadInput, "first\r\nsecond\t third");
        assert_eq!(failure.header_message(), "first second third");
        let long = Failure::new(ErrorCode::BadInput, "ä".repeat(400)).header_message();
        assert!(long.len() <= 512 && long.ends_with('…'), "{}", long.len());
        let words = Failure::new(ErrorCode::BadInput, "word ".repeat(400)).header_message();
        assert!((500..=512).contains(&words.len()), "{}", words.len());
    }

    #[test]
    fn quoted_text_is_cut_at_a_character() {
        assert_eq!(shorten("ääää", 5), "ää…");
        assert_eq!(shorten("a\nb", 9), "a\\nb");
    }
}
