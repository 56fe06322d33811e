//! The headers of a dead letter: those its job was sent with, and why it is here.
//!
//! A worker adds [`DeadHeaders`] to the job's own; [`replay`] takes them off again and adds what
//! makes the job replace the outcome it failed with.

use super::{Found, Status, names};
use crate::error::{ErrorCode, Failure};

/// Why the job died, in one line.
pub const REASON: &str = "Infer-Dead-Reason";
/// The same as a number of [`crate::ErrorCode`].
pub const CODE: &str = "Infer-Dead-Code";
/// When, in milliseconds since 1970.
pub const TIME: &str = "Infer-Dead-Time";
/// Stream sequence of the outcome, which a replay supersedes.
pub const OUTCOME: &str = "Infer-Dead-Outcome";
/// The `Nats-Msg-Id` the job came with.
pub const MSG_ID: &str = "Infer-Dead-Msg-Id";
/// `body`, `headers` or both, with a comma: what of the job did not fit beside the reason.
pub const WITHOUT: &str = "Infer-Dead-Without";

/// What all names of this page start with.
const PREFIX: &str = "infer-dead-";
/// What the names of headers start with that NATS itself acts on.
const SERVER_PREFIX: &str = "nats-";
/// What the `Nats-Msg-Id` of a replay starts with; the dead letter's stream sequence follows.
const REPLAY: &str = "replay.";

const KNOWN: &[&str] = &[
    names::STATUS,
    names::WORKER,
    names::ATTEMPT,
    REASON,
    CODE,
    TIME,
    OUTCOME,
    MSG_ID,
    WITHOUT,
];

/// What a dead letter says beside the headers of its job.
///
/// Every field may be missing, so that a letter of any origin can be shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadHeaders {
    /// How the job ended: `error` or `dead`.
    pub status: Option<Status>,
    /// Why; its message travels as one line of at most 512 bytes.
    pub failure: Option<Failure>,
    /// Who gave it up.
    pub worker: Option<String>,
    /// Deliveries of the job, the last one included.
    pub attempts: Option<u64>,
    /// When it was given up, in milliseconds since 1970 by that worker's clock.
    pub time_unix_ms: Option<u64>,
    /// Stream sequence of its outcome.
    pub outcome: Option<u64>,
    /// The `Nats-Msg-Id` the job came with.
    pub msg_id: Option<String>,
    /// The job's own headers did not fit and are lost.
    pub without_headers: bool,
    /// The job's body did not fit and is lost.
    pub without_body: bool,
}

impl DeadHeaders {
    /// The headers to add to those of the job, in canonical case.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        let mut put = |name, value: Option<String>| pairs.extend(value.map(|value| (name, value)));
        let number = |value: Option<u64>| value.map(|value| value.to_string());
        put(names::STATUS, self.status.map(|status| status.to_string()));
        put(names::WORKER, self.worker.clone());
        put(names::ATTEMPT, number(self.attempts));
        if let Some(failure) = &self.failure {
            put(CODE, Some(failure.code.to_string()));
            put(REASON, Some(failure.header_message()));
        }
        put(TIME, number(self.time_unix_ms));
        put(OUTCOME, number(self.outcome));
        put(MSG_ID, self.msg_id.clone());
        let lost = [
            ("headers", self.without_headers),
            ("body", self.without_body),
        ];
        let lost: Vec<&str> = lost
            .into_iter()
            .filter_map(|(part, lost)| lost.then_some(part))
            .collect();
        put(WITHOUT, (!lost.is_empty()).then(|| lost.join(", ")));
        pairs
    }

    /// Reads headers in any case; what is absent or not understood is left out.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let found = Found::new(KNOWN, pairs);
        let number = |name| found.get(name).and_then(|value| value.parse().ok());
        let text = |name| found.get(name).map(str::to_owned);
        let lost = |part: &str| {
            let parts = found.get(WITHOUT).unwrap_or_default();
            parts
                .split(',')
                .any(|lost| lost.trim().eq_ignore_ascii_case(part))
        };
        let code = found.get(CODE).and_then(|code| code.parse().ok());
        let code = code.and_then(ErrorCode::from_u16);
        let reason = found.get(REASON).unwrap_or_default();
        Self {
            status: found.get(names::STATUS).and_then(|text| text.parse().ok()),
            failure: code.map(|code| Failure::new(code, reason)),
            worker: text(names::WORKER),
            attempts: number(names::ATTEMPT),
            time_unix_ms: number(TIME),
            outcome: number(OUTCOME),
            msg_id: text(MSG_ID),
            without_headers: lost("headers"),
            without_body: lost("body"),
        }
    }
}

/// Whether a header belongs to the letter, or to the server that stores it, and not to the job.
///
/// What starts with `Nats-` steers the server, as the condition does under which a letter is written,
/// so that nothing of it may be sent again.
pub fn is_of_letter(name: &str) -> bool {
    let starts = |prefix: &str| {
        name.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let added = [names::STATUS, names::WORKER, names::ATTEMPT];
    starts(PREFIX)
        || starts(SERVER_PREFIX)
        || added.iter().any(|added| added.eq_ignore_ascii_case(name))
}

/// The headers that send the job of a dead letter once more: its own, and which outcome it
/// replaces.
///
/// `letter` is the dead letter's stream sequence, `outcome` that of the outcome. Two replays of one
/// letter have the same `Nats-Msg-Id`, so that the server stores the second one only when it has
/// forgotten the first, and the worker then finds that the outcome was replaced.
pub fn replay<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    letter: u64,
    outcome: u64,
) -> Vec<(String, String)> {
    let replaced = [names::MSG_ID, names::SUPERSEDES];
    let own = headers.into_iter().filter(|(name, _)| {
        !is_of_letter(name)
            && !replaced
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name))
    });
    let mut pairs: Vec<(String, String)> = own
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    pairs.push((names::MSG_ID.to_owned(), replay_id(letter)));
    pairs.push((names::SUPERSEDES.to_owned(), outcome.to_string()));
    pairs
}

/// The `Nats-Msg-Id` of a replay of the dead letter with this stream sequence.
pub(super) fn replay_id(letter: u64) -> String {
    format!("{REPLAY}{letter}")
}

/// The stream sequence of the dead letter that the job with this `Nats-Msg-Id` replays.
pub(super) fn replayed_letter(msg_id: &str) -> Option<u64> {
    msg_id.strip_prefix(REPLAY)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::JobHeaders;
    use crate::identity::JobId;
    use crate::subjects::ReplyPrefixes;

    fn letter() -> DeadHeaders {
        DeadHeaders {
            status: Some(Status::Error),
            failure: Some(Failure::new(
                ErrorCode::BadInput,
                "inputs[0].data: too short",
            )),
            worker: Some("w-1".to_owned()),
            attempts: Some(2),
            time_unix_ms: Some(1_700_000_000_000),
            outcome: Some(41),
            msg_id: Some("order 17".to_owned()),
            without_headers: true,
            without_body: true,
        }
    }

    fn borrowed<N: AsRef<str>>(pairs: &[(N, String)]) -> impl Iterator<Item = (&str, &str)> {
        pairs
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_str()))
    }

    #[test]
    fn a_dead_letter_reads_back_as_it_was_written() {
        let pairs = letter().pairs();
        assert_eq!(pairs.len(), KNOWN.len());
        assert_eq!(DeadHeaders::parse(borrowed(&pairs)), letter());
        assert_eq!(DeadHeaders::default().pairs(), []);
        assert_eq!(DeadHeaders::parse([]), DeadHeaders::default());
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let odd = [
            ("infer-dead-code", "999"),
            ("Infer-Attempt", "many"),
            ("Infer-Status", "odd"),
        ];
        assert_eq!(DeadHeaders::parse(odd), DeadHeaders::default());
    }

    #[test]
    fn a_replay_has_the_headers_of_the_job_and_names_letter_and_outcome() {
        let mut job = JobHeaders::new(JobId::random());
        job.tenant = Some("acme".to_owned());
        job.supersedes = Some(7);
        job.replays = Some(3);
        let mut kept: Vec<_> = job.pairs();
        kept.retain(|(name, _)| *name != names::MSG_ID);
        kept.extend(letter().pairs());
        kept.push(("X-Of-Somebody", "else".to_owned()));
        kept.push(("Nats-Expected-Last-Subject-Sequence", "0".to_owned()));
        let again = replay(borrowed(&kept), 9, 41);
        assert!(again.contains(&("X-Of-Somebody".to_owned(), "else".to_owned())));
        let others = again.iter().filter(|(name, _)| name != names::MSG_ID);
        assert!(
            others.into_iter().all(|(name, _)| !is_of_letter(name)),
            "{again:?}"
        );
        let fallback = JobId::derived("INFER_JOBS", 1);
        let parsed = JobHeaders::parse(borrowed(&again), fallback, &ReplyPrefixes::default());
        assert_eq!(parsed.problems, []);
        let expected = JobHeaders {
            supersedes: Some(41),
            replays: Some(9),
            ..job
        };
        assert_eq!(parsed.headers, expected);
    }
}
