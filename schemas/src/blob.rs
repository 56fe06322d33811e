//! How a body is laid out in the bucket of bodies: a record and its parts, as the object stores of
//! all NATS clients read and write them (ADR-20). What sends and fetches them is elsewhere.

use bytes::Bytes;
use data_encoding::BASE64URL;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::identity::{Digest, JobId};
use crate::names::is_word;
use crate::reference::PayloadRef;

/// Longest name of the parts of a body in bytes; those of client libraries have 22.
const MAX_PARTS_BYTES: usize = 64;
/// Largest part in bytes: fewer and larger ones are no faster, and hold up others on the connection.
const MOST_PART_BYTES: usize = 512 << 10;

/// What the bucket says about one body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRecord {
    /// The object's name.
    pub name: String,
    /// The bucket it is in.
    pub bucket: String,
    /// The token that the subject of its parts ends with; see [`crate::Assets::blob_parts`].
    #[serde(rename = "nuid", default)]
    pub parts: String,
    /// Bytes of all parts.
    #[serde(default)]
    pub size: u64,
    /// How many parts there are.
    #[serde(default)]
    pub chunks: u64,
    /// `SHA-256=` and the digest as base64url: other clients check it when they read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Whether it was deleted; the record stays behind where another client did that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

impl BlobRecord {
    /// The record of `body`, which goes into `bucket` as what `reference` names, in parts of
    /// [`part_bytes`] for a server that takes messages of `max_payload` bytes.
    pub fn new(bucket: &str, reference: &PayloadRef, body: &[u8], max_payload: usize) -> Self {
        let digest = BASE64URL.encode(&<Sha256 as sha2::Digest>::digest(body));
        Self {
            name: reference.name().to_owned(),
            bucket: bucket.to_owned(),
            parts: JobId::random().to_string(),
            size: body.len() as u64,
            chunks: body.len().div_ceil(part_bytes(max_payload)) as u64,
            digest: Some(format!("SHA-256={digest}")),
            deleted: false,
        }
    }

    /// The message on [`crate::Assets::blob_record`]. It goes with the header `Nats-Rollup: sub`.
    ///
    /// # Errors
    /// Never: every field has a form in JSON.
    pub fn encode(&self) -> Result<Bytes, serde_json::Error> {
        serde_json::to_vec(self).map(Bytes::from)
    }

    /// Reads such a message, of any client; `None` if it is none.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(message).ok()?;
        // It becomes part of a subject, and with a wildcard in it of many.
        let is_token = is_word(&record.parts, MAX_PARTS_BYTES, |c| c.is_ascii_alphabetic());
        is_token.then_some(record)
    }
}

/// Bytes of each part but the last, for a server that takes messages of `max_payload` bytes.
pub fn part_bytes(max_payload: usize) -> usize {
    (max_payload / 4 * 3).clamp(1, MOST_PART_BYTES)
}

/// The parts of `body`, which share its memory.
pub fn parts(body: &Bytes, max_payload: usize) -> impl Iterator<Item = Bytes> + Send + use<> {
    let (body, size) = (body.clone(), part_bytes(max_payload));
    (0..body.len())
        .step_by(size)
        .map(move |start| body.slice(start..body.len().min(start + size)))
}

/// A body that is put together again from its parts.
#[derive(Debug)]
pub struct Assembly {
    reference: PayloadRef,
    hasher: blake3::Hasher,
    body: Vec<u8>,
}

impl Assembly {
    /// Takes the memory for the whole body; the caller has made sure that there is room for it.
    ///
    /// `None` if no memory can be addressed that is as large as the reference says.
    pub fn new(reference: &PayloadRef) -> Option<Self> {
        let mut body = Vec::new();
        body.try_reserve_exact(usize::try_from(reference.size()).ok()?)
            .ok()?;
        Some(Self {
            reference: reference.clone(),
            hasher: blake3::Hasher::new(),
            body,
        })
    }

    /// Adds the next part. False if it is more than the reference says: this is another body.
    pub fn add(&mut self, part: &[u8]) -> bool {
        let fits = (self.body.len() + part.len()) as u64 <= self.reference.size();
        if fits {
            self.hasher.update(part);
            self.body.extend_from_slice(part);
        }
        fits
    }

    /// Whether all bytes are there.
    pub fn is_complete(&self) -> bool {
        self.body.len() as u64 == self.reference.size()
    }

    /// The body, if it is what the reference means.
    pub fn finish(self) -> Option<Bytes> {
        let digest = Digest::from_bytes(self.hasher.finalize().into());
        let is_meant = self.is_complete() && digest == self.reference.digest();
        is_meant.then(|| Bytes::from(self.body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_the_body_and_as_many_as_the_record_says() {
        for (bytes, max_payload) in [(1, 1 << 20), (524_288, 1 << 20), (524_289, 1 << 20), (9, 4)] {
            let body = Bytes::from_iter((0..bytes).map(|n| n as u8));
            let reference = PayloadRef::fresh(&body);
            let record = BlobRecord::new("infer_blobs", &reference, &body, max_payload);
            let parts: Vec<Bytes> = parts(&body, max_payload).collect();
            assert_eq!(parts.concat(), body);
            assert_eq!((record.size, record.chunks), (bytes, parts.len() as u64));
            assert!(parts.iter().all(|part| part.len() < max_payload));
        }
    }

    #[test]
    fn only_the_body_that_is_meant_is_put_together() {
        let reference = PayloadRef::fresh(b"body");
        let assembled = |parts: &[&[u8]]| {
            let mut assembly = Assembly::new(&reference).expect("four bytes");
            parts.iter().all(|part| assembly.add(part)).then_some(())?;
            assembly.finish()
        };
        assert_eq!(assembled(&[b"bo", b"", b"dy"]), Some(Bytes::from("body")));
        assert_eq!(assembled(&[b"bo", b"d"]), None, "too short");
        assert_eq!(assembled(&[b"body", b"!"]), None, "too long");
        assert_eq!(assembled(&[b"bodY"]), None, "another one");
        let huge = format!("a;size={};blake3={}", u64::MAX, reference.digest());
        let huge: PayloadRef = huge.parse().expect("a reference");
        assert!(Assembly::new(&huge).is_none());
    }

    #[test]
    fn a_record_is_written_as_other_clients_read_it() {
        let reference = PayloadRef::fresh(b"body");
        let record = BlobRecord::new("infer_blobs", &reference, b"body", 1 << 20);
        let text = record.encode().expect("every field has a form in JSON");
        let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({
                "name": reference.name(),
                "bucket": "infer_blobs",
                "nuid": record.parts,
                "size": 4,
                "chunks": 1,
                // echo -n body | sha256sum
                "digest": "SHA-256=Iw2DWNyOiJC0xY3utikS7i8gNXrpKlzIYbmOaP4xrLU=",
            })
        );
        assert_eq!(BlobRecord::decode(&text), Some(record));
    }

    #[test]
    fn a_record_of_another_client_is_read_and_anything_else_is_not() {
        let other = br#"{"name":"a","options":{"max_chunk_size":131072},"bucket":"b","nuid":"n","size":0,"mtime":"0001-01-01T00:00:00Z","chunks":0,"deleted":true}"#;
        let record = BlobRecord::decode(other).expect("a record");
        assert!(record.deleted && record.digest.is_none());
        let wide = br#"{"name":"a","bucket":"b","nuid":">","size":1,"chunks":1}"#;
        for none in [&b""[..], b"{}", b"[]", wide] {
            assert_eq!(BlobRecord::decode(none), None);
        }
    }
}
