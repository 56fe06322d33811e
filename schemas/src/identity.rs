//! Who a job is ([`JobId`]) and what a body is ([`Digest`]).
//!
//! A job id is never invented by a worker: it is a header, or follows from the stream and sequence
//! the publisher knows from its acknowledgement. Whoever knows an id may read and cancel the job,
//! so [`JobId::random`] is not guessable.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::{BASE32_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::shorten;
use crate::names::{ModelName, NameError, is_word};

/// Longest job id in bytes.
pub const MAX_JOB_ID_BYTES: usize = 64;

/// The name of one job: `[A-Za-z0-9_-]{1,64}`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(Arc<str>);

impl JobId {
    /// Checks the grammar.
    ///
    /// # Errors
    /// [`NameError`] if `id` is not `[A-Za-z0-9_-]{1,64}`.
    pub fn new(id: &str) -> Result<Self, NameError> {
        if is_word(id, MAX_JOB_ID_BYTES, |c| c.is_ascii_alphabetic()) {
            Ok(Self(id.into()))
        } else {
            Err(NameError {
                what: "job id",
                name: shorten(id, 80),
                rule: "1 to 64 of A-Z, a-z, 0-9, `_` and `-`",
            })
        }
    }

    /// A fresh id of 128 random bits from the operating system's generator, as 26 characters.
    pub fn random() -> Self {
        Self::from_bits(&rand::random())
    }

    /// The id of a job that brought none: `<stream>-<sequence>`.
    ///
    /// A stream's name is cut to 43 bytes and characters that no id may hold become `_`; the
    /// names of [`crate::Assets`] always pass unchanged.
    pub fn derived(stream: &str, sequence: u64) -> Self {
        let stream: String = stream
            .bytes()
            .take(MAX_JOB_ID_BYTES - 21)
            .map(|c| match c {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => char::from(c),
                _ => '_',
            })
            .collect();
        Self(format!("{stream}-{sequence}").into())
    }

    /// The id that an idempotency key stands for: equal for equal keys of one tenant and model,
    /// and of 26 characters.
    pub fn keyed(tenant: Option<&str>, model: &ModelName, key: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"inferq job key 1");
        hasher.update(&[u8::from(tenant.is_some())]);
        for part in [tenant.unwrap_or_default(), model.as_str(), key] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let mut bits = [0; 16];
        bits.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self::from_bits(&bits)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn from_bits(bits: &[u8; 16]) -> Self {
        Self(BASE32_NOPAD.encode(bits).to_ascii_lowercase().into())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for JobId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobId {
    type Err = NameError;

    fn from_str(id: &str) -> Result<Self, NameError> {
        Self::new(id)
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = String::deserialize(deserializer)?;
        Self::new(&id).map_err(serde::de::Error::custom)
    }
}

/// A BLAKE3 digest, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// The digest of a job's model and body, as in the header `Infer-Body-Digest`.
pub type BodyDigest = Digest;

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }

    /// Takes 32 bytes that are a digest already.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The digest by which a second body under the same job id is noticed: it covers the model's name
/// and the body as sent.
pub fn body_digest(model: &ModelName, body: &[u8]) -> BodyDigest {
    referenced_body_digest(model, Digest::of(body))
}

/// The same of a body whose own digest is known, as that of a body by reference: nobody has to
/// fetch it to tell whose it is.
pub fn referenced_body_digest(model: &ModelName, body: Digest) -> BodyDigest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(model.as_str().as_bytes());
    // No model name holds a zero byte, so the two parts cannot run into each other.
    hasher.update(&[0]);
    hasher.update(body.as_bytes());
    Digest(hasher.finalize().into())
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| NameError {
                what: "digest",
                name: shorten(text, 80),
                rule: "64 hexadecimal digits",
            })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelName {
        ModelName::new(name).expect("a good name")
    }

    #[test]
    fn random_ids_differ_and_fit_the_grammar() {
        let (one, two) = (JobId::random(), JobId::random());
        assert_ne!(one, two);
        assert_eq!(one.as_str().len(), 26);
        assert_eq!(JobId::new(one.as_str()), Ok(one));
    }

    #[test]
    fn a_derived_id_names_stream_and_sequence() {
        assert_eq!(JobId::derived("INFER_JOBS", 17).as_str(), "INFER_JOBS-17");
        let strange = JobId::derived(&"ä.".repeat(99), u64::MAX);
        assert!(JobId::new(strange.as_str()).is_ok(), "{strange}");
    }

    #[test]
    fn equal_keys_of_two_models_or_tenants_never_meet() {
        let id = JobId::keyed(None, &model("a"), "k");
        assert_eq!(id, JobId::keyed(None, &model("a"), "k"));
        assert_eq!(id.as_str().len(), 26);
        assert_ne!(id, JobId::keyed(None, &model("b"), "k"));
        assert_ne!(id, JobId::keyed(Some(""), &model("a"), "k"));
        assert_ne!(
            JobId::keyed(Some("ab"), &model("c"), "k"),
            JobId::keyed(Some("a"), &model("bc"), "k")
        );
    }

    #[test]
    fn a_digest_reads_back_from_its_text() {
        let digest = Digest::of(b"body");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("abc".parse::<Digest>().is_err());
        assert!("g".repeat(64).parse::<Digest>().is_err());
    }

    #[test]
    fn the_body_digest_covers_the_model() {
        assert_ne!(
            body_digest(&model("a"), b"x"),
            body_digest(&model("b"), b"x")
        );
        assert_ne!(
            body_digest(&model("a"), b"x"),
            body_digest(&model("a"), b"y")
        );
    }
}
