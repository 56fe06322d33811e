//! The headers of an outcome or a reply.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Found, HeaderProblem, names, valid_traceparent};
use crate::content_type::ContentType;
use crate::error::{ErrorCode, Failure};
use crate::identity::{Digest, JobId};
use crate::reference::PayloadRef;

/// Every header of an outcome that we act on.
const KNOWN: &[&str] = &[
    names::JOB_ID,
    names::STATUS,
    names::SERVICE_ERROR,
    names::SERVICE_ERROR_CODE,
    names::WORKER,
    names::MODEL_VERSION,
    names::ATTEMPT,
    names::BODY_DIGEST,
    names::PAYLOAD_REF,
    names::CONTENT_TYPE,
    names::TRACEPARENT,
];

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// With an answer.
    Ok,
    /// With an error that another attempt cannot help.
    Error,
    /// Its deadline passed first.
    Expired,
    /// Somebody called it off.
    Cancelled,
    /// It was delivered too often.
    Dead,
}

impl Status {
    const ALL: [Self; 5] = [
        Self::Ok,
        Self::Error,
        Self::Expired,
        Self::Cancelled,
        Self::Dead,
    ];

    /// The word in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = crate::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| crate::NameError {
                what: "status",
                name: crate::error::shorten(text, 80),
                rule: "ok, error, expired, cancelled or dead",
            })
    }
}

/// What an outcome says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeHeaders {
    /// Whose outcome it is.
    pub job_id: JobId,
    /// How it ended.
    pub status: Status,
    /// Why there is no answer; its message travels as one line of at most 512 bytes.
    pub failure: Option<Failure>,
    /// Who wrote it.
    pub worker: String,
    /// The version that ran, if one did.
    pub model_version: Option<u64>,
    /// Which delivery this was, from 1.
    pub attempt: u64,
    /// Digest of model and body.
    pub body_digest: Option<Digest>,
    /// The object that holds the body, if it was too large.
    pub payload_ref: Option<PayloadRef>,
    /// How the body is encoded.
    pub content_type: ContentType,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

impl OutcomeHeaders {
    /// The headers to send, in canonical case.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![
            (names::JOB_ID, self.job_id.to_string()),
            (names::STATUS, self.status.to_string()),
            (names::WORKER, self.worker.clone()),
            (names::ATTEMPT, self.attempt.to_string()),
            (names::CONTENT_TYPE, self.content_type.mime().to_owned()),
        ];
        let mut put = |name, value: Option<String>| pairs.extend(value.map(|value| (name, value)));
        if let Some(failure) = &self.failure {
            put(names::SERVICE_ERROR, Some(failure.header_message()));
            put(names::SERVICE_ERROR_CODE, Some(failure.code.to_string()));
        }
        put(
            names::MODEL_VERSION,
            self.model_version.map(|version| version.to_string()),
        );
        put(
            names::BODY_DIGEST,
            self.body_digest.map(|digest| digest.to_string()),
        );
        put(
            names::PAYLOAD_REF,
            self.payload_ref.as_ref().map(ToString::to_string),
        );
        put(names::TRACEPARENT, self.traceparent.clone());
        pairs
    }

    /// Reads headers in any case; unknown ones are passed over.
    ///
    /// # Errors
    /// The first header that is missing or not understood.
    pub fn parse<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, HeaderProblem> {
        let mut found = Found::new(KNOWN, pairs);
        let job_id = found.read(names::JOB_ID, "a job id", |id| JobId::new(id).ok());
        let status = found.read(
            names::STATUS,
            "ok, error, expired, cancelled or dead",
            |status| status.parse().ok(),
        );
        let number = |value: &str| value.parse().ok();
        let attempt = found.read(names::ATTEMPT, "a whole number", number);
        let model_version = found.read(names::MODEL_VERSION, "a whole number", number);
        let body_digest = found.read(names::BODY_DIGEST, "64 hexadecimal digits", |digest| {
            digest.parse().ok()
        });
        let content_type = found.read(
            names::CONTENT_TYPE,
            "`application/json` or `application/cbor`",
            ContentType::parse,
        );
        let payload_ref = found.read(names::PAYLOAD_REF, crate::reference::RULE, |value| {
            value.parse().ok()
        });
        let code = found.read(names::SERVICE_ERROR_CODE, "a known error code", |code| {
            ErrorCode::from_u16(code.parse().ok()?)
        });
        if let Some(problem) = found.problems.first() {
            return Err(problem.clone());
        }
        let missing = |name, accepted| HeaderProblem::new(name, "", accepted);
        let message = found.get(names::SERVICE_ERROR).unwrap_or_default();
        Ok(Self {
            job_id: job_id.ok_or_else(|| missing(names::JOB_ID, "a job id"))?,
            status: status.ok_or_else(|| missing(names::STATUS, "how the job ended"))?,
            failure: code.map(|code| Failure::new(code, message)),
            worker: found
                .get(names::WORKER)
                .ok_or_else(|| missing(names::WORKER, "the worker's id"))?
                .to_owned(),
            model_version,
            attempt: attempt.ok_or_else(|| missing(names::ATTEMPT, "a whole number"))?,
            body_digest,
            payload_ref,
            content_type: content_type
                .ok_or_else(|| missing(names::CONTENT_TYPE, "the body's media type"))?,
            traceparent: found.get(names::TRACEPARENT).and_then(valid_traceparent),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> OutcomeHeaders {
        OutcomeHeaders {
            job_id: JobId::random(),
            status: Status::Error,
            failure: Some(Failure::new(
                ErrorCode::BadInput,
                "inputs[0].data: too short",
            )),
            worker: "w-1".into(),
            model_version: Some(3),
            attempt: 2,
            body_digest: Some(Digest::of(b"body")),
            payload_ref: Some(PayloadRef::fresh(b"body")),
            content_type: ContentType::Cbor,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        }
    }

    fn parse(pairs: &[(&'static str, String)]) -> Result<OutcomeHeaders, HeaderProblem> {
        let upper: Vec<_> = pairs.iter().map(|(n, v)| (n.to_uppercase(), v)).collect();
        OutcomeHeaders::parse(upper.iter().map(|(n, v)| (n.as_str(), v.as_str())))
    }

    #[test]
    fn an_outcome_reads_back_as_it_was_written() {
        let full = outcome();
        assert_eq!(full.pairs().len(), KNOWN.len());
        assert_eq!(parse(&full.pairs()), Ok(full.clone()));
        let bare = OutcomeHeaders {
            status: Status::Ok,
            failure: None,
            model_version: None,
            body_digest: None,
            payload_ref: None,
            traceparent: None,
            ..full
        };
        assert_eq!(parse(&bare.pairs()), Ok(bare.clone()));
    }

    #[test]
    fn a_message_with_line_breaks_cannot_forge_a_header() {
        let mut outcome = outcome();
        outcome.failure = Some(Failure::new(ErrorCode::Model, "a\r\nInfer-Status: ok"));
        let failure = parse(&outcome.pairs()).expect("readable").failure;
        assert_eq!(failure.expect("kept").message, "a Infer-Status: ok");
    }

    #[test]
    fn a_missing_or_wrong_header_is_named() {
        let pairs = outcome().pairs();
        for name in [names::JOB_ID, names::STATUS, names::WORKER, names::ATTEMPT] {
            let without: Vec<_> = pairs.iter().filter(|(n, _)| *n != name).cloned().collect();
            assert_eq!(parse(&without).expect_err("missing").header, name);
        }
        let mut wrong = pairs;
        wrong[1].1 = "fine".into();
        let problem = parse(&wrong).expect_err("not a status");
        assert_eq!(
            (problem.header, problem.value.as_str()),
            (names::STATUS, "fine")
        );
    }
}
