//! What a dead letter says.

use std::{borrow::Cow, time::SystemTime};

use async_nats::jetstream;
use bytes::Bytes;
use inferq_schemas::{
    ContentType, DeadHeaders, Digest, InferRequest, JobId, Lane, Limits, ModelName, PayloadRef,
    Subjects, body_digest,
    headers::{dead, names},
    identity::referenced_body_digest,
};
use serde_json::Value;

use crate::outcome::pairs;

/// The server's header for the size of a body that was left out.
const BODY_SIZE: &str = "Nats-Msg-Size";

/// A dead letter without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadEntry {
    /// Its sequence in the stream of dead letters.
    pub sequence: u64,
    /// The job that failed.
    pub job: JobId,
    /// The model it was for.
    pub model: ModelName,
    /// The lane it waited in.
    pub lane: Lane,
    /// When the server stored the letter.
    pub stored: SystemTime,
    /// Why, when and where it failed.
    pub reason: DeadHeaders,
    /// The headers the job was sent with, by name, less those that only concern the server.
    pub headers: Vec<(String, String)>,
    /// Size of the body in bytes.
    pub bytes: usize,
}

/// A dead letter, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// All but the body.
    pub entry: DeadEntry,
    /// The body as it was sent.
    pub body: Bytes,
}

impl DeadEntry {
    /// A message of a listing, which has all headers and no body; `None` if it is no dead letter.
    pub(super) fn listed(
        subjects: &Subjects,
        message: &jetstream::Message,
        info: &jetstream::message::Info<'_>,
    ) -> Option<Self> {
        let subject = subjects.parse_dead(&message.subject)?;
        let nothing = async_nats::HeaderMap::new();
        let headers = message.headers.as_ref().unwrap_or(&nothing);
        let size = headers.get(BODY_SIZE).map(|size| size.as_str().parse());
        let own = pairs(headers).filter(|(name, _)| !dead::is_of_letter(name));
        let mut own: Vec<(String, String)> = own
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        own.sort();
        Some(Self {
            sequence: info.stream_sequence,
            job: subject.job,
            model: subject.model,
            lane: subject.lane,
            stored: info.published.into(),
            reason: DeadHeaders::parse(pairs(headers)),
            headers: own,
            bytes: size.and_then(Result::ok).unwrap_or_default(),
        })
    }

    /// Why the job failed, in one line.
    pub fn message(&self) -> &str {
        let failure = self.reason.failure.as_ref();
        failure.map_or("it does not say why", |failure| failure.message.as_str())
    }

    /// The value of a header of the job, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(&found.1)
    }
}

impl DeadEntry {
    /// Where the body of its job is, if it did not fit into the message.
    pub fn body_reference(&self) -> Option<PayloadRef> {
        self.header(names::PAYLOAD_REF)?.parse().ok()
    }
}

impl DeadLetter {
    /// What the body is, as the job says or as its first byte does.
    pub fn content_type(&self) -> ContentType {
        let said = self.entry.header(names::CONTENT_TYPE);
        said.and_then(ContentType::parse)
            .unwrap_or_else(|| ContentType::detect(&self.body))
    }

    /// The digest of model and body, which outcomes have in `Infer-Body-Digest`.
    pub fn digest(&self) -> Digest {
        match self.entry.body_reference() {
            Some(reference) => referenced_body_digest(&self.entry.model, reference.digest()),
            None => body_digest(&self.entry.model, &self.body),
        }
    }

    /// The request as a JSON value, whatever it travelled as; `None` if it is not one.
    pub fn json(&self) -> Option<Value> {
        match self.content_type() {
            ContentType::Json => serde_json::from_slice(&self.body).ok(),
            ContentType::Cbor => {
                let limits = Limits::default();
                let decoded = InferRequest::decode(&self.body, Some(ContentType::Cbor), &limits);
                let json = decoded.ok()?.request.encode(ContentType::Json).ok()?;
                serde_json::from_slice(&json).ok()
            }
        }
    }

    /// The request as text for people: as it was sent if it is text, else as JSON, else its size and
    /// digest.
    pub fn text(&self) -> Cow<'_, str> {
        let sent = match self.content_type() {
            ContentType::Json => std::str::from_utf8(&self.body).ok(),
            ContentType::Cbor => None,
        };
        match (sent, self.json()) {
            (Some(text), _) => Cow::Borrowed(text),
            (None, Some(json)) => Cow::Owned(json.to_string()),
            (None, None) => Cow::Owned(format!(
                "<{} bytes that are no {}, digest {}>",
                self.body.len(),
                self.content_type(),
                self.digest()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferq_schemas::{Inputs, Tensor};

    fn letter(content_type: Option<&str>, body: impl Into<Bytes>) -> DeadLetter {
        let body = body.into();
        let content_type = content_type.map(|kind| ("content-type".to_owned(), kind.to_owned()));
        let entry = DeadEntry {
            sequence: 1,
            job: JobId::random(),
            model: "digits".parse().expect("a valid name"),
            lane: Lane::High,
            stored: SystemTime::UNIX_EPOCH,
            reason: DeadHeaders::default(),
            headers: content_type.into_iter().collect(),
            bytes: body.len(),
        };
        DeadLetter { entry, body }
    }

    #[test]
    fn text_is_shown_as_it_was_sent_even_where_it_is_no_json() {
        let cut = letter(None, r#"{"instances": [[1, 2"#);
        assert_eq!(cut.text(), r#"{"instances": [[1, 2"#);
        assert_eq!(cut.json(), None);
        let whole = letter(Some("application/json"), r#"{"instances": [[1]]}"#);
        assert_eq!(whole.json().expect("it is JSON")["instances"][0][0], 1);
    }

    #[test]
    fn cbor_is_shown_as_json_and_what_is_neither_by_size_and_digest() {
        let tensor = Tensor::from_f32("x", vec![1, 2], &[1.0, 2.5]).expect("it fits");
        let request = InferRequest::new(Inputs::Tensors(vec![tensor]));
        let body = request
            .encode(ContentType::Cbor)
            .expect("it can be written");
        let shown = letter(None, body);
        let json = shown.json().expect("it is a request");
        assert_eq!(json["inputs"][0]["data"], serde_json::json!([1.0, 2.5]));
        assert_eq!(shown.text(), json.to_string());
        let broken = letter(Some("application/cbor"), &b"\xa1\xff"[..]);
        let text = broken.text().into_owned();
        assert!(
            text.starts_with("<2 bytes that are no application/cbor, digest "),
            "{text}"
        );
        assert!(text.contains(&broken.digest().to_string()), "{text}");
    }
}
