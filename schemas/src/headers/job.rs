//! The headers of a job or a request.

mod read;

use super::dead::replay_id;
use super::{HeaderProblem, names};
use crate::content_type::ContentType;
use crate::identity::{BodyDigest, JobId, body_digest, referenced_body_digest};
use crate::reference::PayloadRef;
use crate::subjects::{Lane, ModelName};

/// Deliveries before a job is dead, unless it says otherwise: backed off from 0.5 s, eight
/// attempts span about a minute, longer than a worker takes to restart.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 8;
/// The protocol version written and understood here.
pub const PROTO: u32 = 1;

/// Which version of the model is to run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum VersionSelector {
    /// What the model's policy says.
    #[default]
    Default,
    /// This one and no other.
    Version(u64),
    /// The one the label points to.
    Label(String),
}

/// What becomes of a job's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResultMode {
    /// Keep the outcome and send it to the reply address.
    Both,
    /// Keep the outcome only.
    Store,
    /// Send it; what is kept has no outputs.
    Reply,
}

impl ResultMode {
    const ALL: [Self; 3] = [Self::Both, Self::Store, Self::Reply];

    /// The word in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Store => "store",
            Self::Reply => "reply",
        }
    }
}

/// What a job or request says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobHeaders {
    /// Who it is.
    pub id: JobId,
    /// Where its reply goes, within the allowed prefixes.
    pub reply_to: Option<String>,
    /// What becomes of its result, if said; see [`Self::result_mode`].
    pub result: Option<ResultMode>,
    /// When its answer is worthless, in milliseconds since 1970.
    pub deadline_unix_ms: Option<u64>,
    /// The same, in milliseconds after publication.
    pub timeout_ms: Option<u64>,
    /// Which version is to run.
    pub version: VersionSelector,
    /// Jobs with the same text see the same version of a weighted label.
    pub affinity: Option<String>,
    /// Deliveries before it is dead: 1 to 100, 8 unless said.
    pub max_attempts: u32,
    /// The object that holds its body; the message then has none.
    pub payload_ref: Option<PayloadRef>,
    /// Whether its sender can follow a reference in the reply.
    pub accept_ref: bool,
    /// Whose job it is.
    pub tenant: Option<String>,
    /// Whether the cache may be used; true unless it is `off`.
    pub cache: bool,
    /// The lane of a request, if said.
    pub lane: Option<Lane>,
    /// Whether to tell about progress.
    pub events: bool,
    /// Whether to explain more in the reply.
    pub debug: bool,
    /// Sequence of the outcome that this replay replaces.
    pub supersedes: Option<u64>,
    /// Sequence of the dead letter that this replay sends again.
    pub replays: Option<u64>,
    /// The protocol version it speaks; this crate speaks 1.
    pub proto: u32,
    /// How its body is encoded, if said.
    pub content_type: Option<ContentType>,
    /// W3C trace context; one that is malformed is ignored, as that standard asks.
    pub traceparent: Option<String>,
    /// W3C trace context of vendors; ignored without a `traceparent`.
    pub tracestate: Option<String>,
}

/// What could be read of a job's headers, and what could not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedHeaders {
    /// What was readable; what was not has its default.
    pub headers: JobHeaders,
    /// What was not. Any problem ends the job with code 400.
    pub problems: Vec<HeaderProblem>,
}

impl JobHeaders {
    /// Headers that say nothing but who the job is.
    pub fn new(id: JobId) -> Self {
        Self {
            id,
            reply_to: None,
            result: None,
            deadline_unix_ms: None,
            timeout_ms: None,
            version: VersionSelector::Default,
            affinity: None,
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            payload_ref: None,
            accept_ref: false,
            tenant: None,
            cache: true,
            lane: None,
            events: false,
            debug: false,
            supersedes: None,
            replays: None,
            proto: PROTO,
            content_type: None,
            traceparent: None,
            tracestate: None,
        }
    }

    /// What becomes of the result: as said, else both if there is a reply address, else kept.
    pub fn result_mode(&self) -> ResultMode {
        self.result.unwrap_or(match self.reply_to {
            Some(_) => ResultMode::Both,
            None => ResultMode::Store,
        })
    }

    /// The earlier of the deadline and of the timeout counted from publication, in milliseconds
    /// since 1970; `None` if neither is given.
    pub fn deadline(&self, published_unix_ms: u64) -> Option<u64> {
        let timeout = self
            .timeout_ms
            .map(|timeout| published_unix_ms.saturating_add(timeout));
        match (self.deadline_unix_ms, timeout) {
            (Some(deadline), Some(timeout)) => Some(deadline.min(timeout)),
            (deadline, timeout) => deadline.or(timeout),
        }
    }

    /// The digest of model and body, for a body that came in the message or by reference.
    pub fn body_digest(&self, model: &ModelName, body: &[u8]) -> BodyDigest {
        match &self.payload_ref {
            Some(reference) => referenced_body_digest(model, reference.digest()),
            None => body_digest(model, body),
        }
    }

    /// The headers to send, in canonical case; what has its default is left out.
    ///
    /// The id goes out as `Infer-Job-Id` and as `Nats-Msg-Id`, so the server drops duplicates; a
    /// replay has the number of its dead letter in the latter.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![
            (names::JOB_ID, self.id.to_string()),
            (
                names::MSG_ID,
                self.replays.map_or_else(|| self.id.to_string(), replay_id),
            ),
        ];
        let mut put = |name, value: Option<String>| pairs.extend(value.map(|value| (name, value)));
        let number = |value: Option<u64>| value.map(|value| value.to_string());
        let flag = |set: bool, word: &str| set.then(|| word.to_owned());
        put(names::REPLY_TO, self.reply_to.clone());
        put(
            names::RESULT,
            self.result.map(|mode| mode.as_str().to_owned()),
        );
        put(names::DEADLINE, number(self.deadline_unix_ms));
        put(names::TIMEOUT, number(self.timeout_ms));
        match &self.version {
            VersionSelector::Default => {}
            VersionSelector::Version(version) => put(names::VERSION, Some(version.to_string())),
            VersionSelector::Label(label) => put(names::LABEL, Some(label.clone())),
        }
        put(names::AFFINITY, self.affinity.clone());
        let attempts = (self.max_attempts != DEFAULT_MAX_ATTEMPTS).then_some(self.max_attempts);
        put(names::MAX_ATTEMPTS, attempts.map(|n| n.to_string()));
        put(
            names::PAYLOAD_REF,
            self.payload_ref.as_ref().map(ToString::to_string),
        );
        put(names::ACCEPT, flag(self.accept_ref, "ref"));
        put(names::TENANT, self.tenant.clone());
        put(names::CACHE, flag(!self.cache, "off"));
        put(names::LANE, self.lane.map(|lane| lane.to_string()));
        put(names::EVENTS, flag(self.events, "1"));
        put(names::DEBUG, flag(self.debug, "1"));
        put(names::SUPERSEDES, number(self.supersedes));
        put(
            names::PROTO,
            (self.proto != PROTO).then(|| self.proto.to_string()),
        );
        put(
            names::CONTENT_TYPE,
            self.content_type.map(|kind| kind.mime().to_owned()),
        );
        put(names::TRACEPARENT, self.traceparent.clone());
        put(names::TRACESTATE, self.tracestate.clone());
        pairs
    }
}
