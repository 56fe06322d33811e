//! A body that travels beside its message: [`PayloadRef`], the value of `Infer-Payload-Ref`.
//!
//! `<name>;size=<bytes>;blake3=<digest>` names an object of the deployment's bucket of bodies
//! ([`crate::Assets::blobs_obj`]). Which bucket is not said, so that nobody can be made to read another.
//! Size and digest are those of the body, so that a reader makes room before it fetches and knows
//! afterwards that it has what was meant.

use std::fmt;
use std::str::FromStr;

use crate::error::shorten;
use crate::identity::{Digest, JobId};
use crate::names::{NameError, is_word};

/// Longest name of an object in bytes.
pub const MAX_OBJECT_NAME_BYTES: usize = 64;
/// What a reference has to look like.
pub(crate) const RULE: &str = "`<name>;size=<bytes>;blake3=<digest>`: an object's name of 1 to 64 of A-Z, a-z, 0-9, `_` and `-`, its size from 1, and 64 hexadecimal digits";

/// Where a body is, how large it is, and what it has to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PayloadRef {
    name: String,
    size: u64,
    digest: Digest,
}

impl PayloadRef {
    /// A reference to a body that is about to be stored, under a name of 128 random bits. Whoever
    /// knows the name can read the body.
    pub fn fresh(body: &[u8]) -> Self {
        Self {
            name: JobId::random().to_string(),
            size: body.len() as u64,
            digest: Digest::of(body),
        }
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Size of the body in bytes, at least 1.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// BLAKE3 of the body.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether `body` is what is meant.
    pub fn is_of(&self, body: &[u8]) -> bool {
        body.len() as u64 == self.size && Digest::of(body) == self.digest
    }
}

impl fmt::Display for PayloadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, size, digest } = self;
        write!(f, "{name};size={size};blake3={digest}")
    }
}

impl FromStr for PayloadRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        read(text).ok_or_else(|| NameError {
            what: "reference to a body",
            name: shorten(text, 80),
            rule: RULE,
        })
    }
}

/// Strict, since a reference has one form only: equal texts are equal references.
fn read(text: &str) -> Option<PayloadRef> {
    let mut parts = text.split(';');
    let (name, size, digest) = (parts.next()?, parts.next()?, parts.next()?);
    let size = size.strip_prefix("size=")?;
    let is_number = size.bytes().all(|c| c.is_ascii_digit()) && !size.starts_with('0');
    let reference = PayloadRef {
        name: name.to_owned(),
        size: size.parse().ok().filter(|_| is_number)?,
        digest: digest.strip_prefix("blake3=")?.parse().ok()?,
    };
    let is_name = is_word(name, MAX_OBJECT_NAME_BYTES, |c| c.is_ascii_alphabetic());
    (is_name && parts.next().is_none()).then_some(reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_reads_back_from_its_text() {
        let reference = PayloadRef::fresh(b"body");
        assert_eq!(reference.to_string().parse(), Ok(reference.clone()));
        assert!(reference.is_of(b"body"));
        assert!(!reference.is_of(b"bodY") && !reference.is_of(b"body "));
    }

    #[test]
    fn two_references_to_one_body_have_names_that_nobody_guesses() {
        let (one, two) = (PayloadRef::fresh(b"body"), PayloadRef::fresh(b"body"));
        assert_ne!(one.name(), two.name());
        assert_eq!(one.name().len(), 26);
        assert_eq!(
            (one.size(), one.digest()),
            (two.size(), Digest::of(b"body"))
        );
    }

    #[test]
    fn the_longest_reference_fits_a_header() {
        let digest = Digest::of(b"");
        let long = format!("{};size={};blake3={digest}", "n".repeat(64), u64::MAX);
        assert!(long.parse::<PayloadRef>().is_ok() && long.len() <= 256);
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_rule() {
        let digest = Digest::of(b"body").to_string();
        for (name, size, hash) in [
            ("", "4", digest.as_str()),
            ("a.b", "4", &digest),
            ("a/b", "4", &digest),
            ("a*", "4", &digest),
            (&"n".repeat(65), "4", &digest),
            ("a", "", &digest),
            ("a", "0", &digest),
            ("a", "-1", &digest),
            ("a", "+4", &digest),
            ("a", "04", &digest),
            ("a", "18446744073709551616", &digest),
            ("a", "4", ""),
            ("a", "4", &digest[1..]),
            ("a", "4", &format!("{digest};more=1")),
        ] {
            let text = format!("{name};size={size};blake3={hash}");
            let error = text.parse::<PayloadRef>().expect_err(&text);
            assert!(error.to_string().contains("blake3=<digest>"), "{error}");
        }
        for text in ["", "a", "a;size=4", &format!("a;blake3={digest};size=4")] {
            assert!(text.parse::<PayloadRef>().is_err(), "{text}");
        }
    }
}
