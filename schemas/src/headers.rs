//! Message headers: their names, and the three sets we read and write.
//!
//! [`JobHeaders`] come with a job or a request, [`OutcomeHeaders`] with an outcome or a reply,
//! [`DeadHeaders`] with a dead letter.
//! Names are written in the canonical case of [`names`] and read in any case.

pub mod dead;
mod job;
mod outcome;

pub use dead::DeadHeaders;
pub use job::{
    DEFAULT_MAX_ATTEMPTS, JobHeaders, PROTO, ParsedHeaders, ResultMode, VersionSelector,
};
pub use outcome::{OutcomeHeaders, Status};

use crate::error::shorten;

/// The names of all headers, in canonical case.
pub mod names {
    /// The job's id, in and out.
    pub const JOB_ID: &str = "Infer-Job-Id";
    /// The server's own deduplication id; the job's id where `Infer-Job-Id` is absent and it fits.
    pub const MSG_ID: &str = "Nats-Msg-Id";
    /// Where to send the reply of a job.
    pub const REPLY_TO: &str = "Infer-Reply-To";
    /// What is done with the result: `both`, `store` or `reply`.
    pub const RESULT: &str = "Infer-Result";
    /// When the answer is worthless, in milliseconds since 1970.
    pub const DEADLINE: &str = "Infer-Deadline";
    /// The same, in milliseconds after publication.
    pub const TIMEOUT: &str = "Infer-Timeout";
    /// The version to run, as a number.
    pub const VERSION: &str = "Infer-Version";
    /// The label whose version is to run.
    pub const LABEL: &str = "Infer-Label";
    /// Jobs with the same text see the same version of a weighted label.
    pub const AFFINITY: &str = "Infer-Affinity";
    /// Deliveries before a job is dead.
    pub const MAX_ATTEMPTS: &str = "Infer-Max-Attempts";
    /// The object that holds the body, in and out: a [`crate::PayloadRef`].
    pub const PAYLOAD_REF: &str = "Infer-Payload-Ref";
    /// `ref`: the sender can follow a reference in the reply.
    pub const ACCEPT: &str = "Infer-Accept";
    /// Whose job it is.
    pub const TENANT: &str = "Infer-Tenant";
    /// `off`: neither read nor fill the cache.
    pub const CACHE: &str = "Infer-Cache";
    /// The lane of a request.
    pub const LANE: &str = "Infer-Lane";
    /// `1`: tell about progress.
    pub const EVENTS: &str = "Infer-Events";
    /// `1`: explain more in the reply.
    pub const DEBUG: &str = "Infer-Debug";
    /// Sequence of the outcome that a replay replaces.
    pub const SUPERSEDES: &str = "Infer-Supersedes";
    /// Version of this protocol.
    pub const PROTO: &str = "Infer-Proto";
    /// Media type of the body.
    pub const CONTENT_TYPE: &str = "Content-Type";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// W3C trace context of vendors.
    pub const TRACESTATE: &str = "tracestate";
    /// How it ended: `ok`, `error`, `expired`, `cancelled` or `dead`.
    pub const STATUS: &str = "Infer-Status";
    /// What went wrong, in one line.
    pub const SERVICE_ERROR: &str = "Nats-Service-Error";
    /// The kind of failure, as a number of [`crate::ErrorCode`].
    pub const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";
    /// The worker that wrote the outcome.
    pub const WORKER: &str = "Infer-Worker";
    /// The version that ran.
    pub const MODEL_VERSION: &str = "Infer-Model-Version";
    /// Which delivery this was, from 1.
    pub const ATTEMPT: &str = "Infer-Attempt";
    /// Digest of model and body.
    pub const BODY_DIGEST: &str = "Infer-Body-Digest";
}

/// A header we could not use, and what would have been accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header {header}: `{value}` is not accepted; send {accepted}")]
pub struct HeaderProblem {
    /// Name of the header, in canonical case.
    pub header: &'static str,
    /// Its value, shortened; empty if it is missing.
    pub value: String,
    /// What would have been accepted.
    pub accepted: String,
}

impl HeaderProblem {
    pub(crate) fn new(header: &'static str, value: &str, accepted: impl Into<String>) -> Self {
        Self {
            header,
            value: shorten(value, 80),
            accepted: accepted.into(),
        }
    }
}

/// The values given for each of the headers we know, found in any case.
struct Found<'a> {
    /// One slot for each name in `known`.
    values: Vec<Option<&'a str>>,
    known: &'static [&'static str],
    problems: Vec<HeaderProblem>,
}

impl<'a> Found<'a> {
    /// Sorts `pairs` into slots. A header repeated with another value is a problem; the first counts.
    fn new(
        known: &'static [&'static str],
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut found = Self {
            values: vec![None; known.len()],
            known,
            problems: Vec::new(),
        };
        for (name, value) in pairs {
            let slot = known
                .iter()
                .position(|known| known.eq_ignore_ascii_case(name));
            let Some(slot) = slot else { continue };
            let value = value.trim();
            match found.values[slot] {
                Some(first) if first != value => {
                    found.problem(
                        known[slot],
                        value,
                        "it once, or each time with the same value",
                    );
                }
                _ => found.values[slot] = Some(value),
            }
        }
        found
    }

    fn get(&self, name: &'static str) -> Option<&'a str> {
        let slot = self.known.iter().position(|known| *known == name)?;
        self.values[slot]
    }

    /// The value of `name` as `read` understands it; a value it refuses becomes a problem.
    fn read<T>(
        &mut self,
        name: &'static str,
        accepted: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(name)?;
        let result = read(value);
        if result.is_none() {
            self.problem(name, value, accepted);
        }
        result
    }

    fn problem(&mut self, name: &'static str, value: &str, accepted: &str) {
        self.problems
            .push(HeaderProblem::new(name, value, accepted));
    }
}

/// A `traceparent` of the W3C form; anything else is to be ignored, says that standard.
fn valid_traceparent(value: &str) -> Option<String> {
    let mut parts = value.split('-');
    let ok = [2, 32, 16, 2].into_iter().all(|digits| {
        parts.next().is_some_and(|part| {
            part.len() == digits && part.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
        })
    });
    (ok && value.len() == 55).then(|| value.to_owned())
}
