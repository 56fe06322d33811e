//! Reading the headers of a job: everything that can be read, and every problem.

use super::{DEFAULT_MAX_ATTEMPTS, JobHeaders, PROTO, ParsedHeaders, ResultMode, VersionSelector};
use crate::content_type::ContentType;
use crate::headers::dead::replayed_letter;
use crate::headers::{Found, names, valid_traceparent};
use crate::identity::JobId;
use crate::subjects::{ModelName, ReplyPrefixes};

/// Longest `tracestate` in bytes, from the W3C trace context.
const MAX_TRACESTATE_BYTES: usize = 512;
/// Longest free text in a header (affinity), in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// Every header of a job that we act on.
const KNOWN: &[&str] = &[
    names::JOB_ID,
    names::MSG_ID,
    names::REPLY_TO,
    names::RESULT,
    names::DEADLINE,
    names::TIMEOUT,
    names::VERSION,
    names::LABEL,
    names::AFFINITY,
    names::MAX_ATTEMPTS,
    names::PAYLOAD_REF,
    names::ACCEPT,
    names::TENANT,
    names::CACHE,
    names::LANE,
    names::EVENTS,
    names::DEBUG,
    names::SUPERSEDES,
    names::PROTO,
    names::CONTENT_TYPE,
    names::TRACEPARENT,
    names::TRACESTATE,
];

impl JobHeaders {
    /// Reads headers in any case. Never fails, so that even a bad job can be answered: what is
    /// not readable is in `problems`, and `fallback` is the id of a job whose own does not fit.
    ///
    /// Unknown headers are passed over. A `Nats-Msg-Id` that is no job id is no problem, since
    /// the server accepts any text there.
    pub fn parse<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        fallback: JobId,
        replies: &ReplyPrefixes,
    ) -> ParsedHeaders {
        let mut found = Found::new(KNOWN, pairs);
        let id = match found.get(names::JOB_ID) {
            Some(_) => found.read(
                names::JOB_ID,
                "1 to 64 of A-Z, a-z, 0-9, `_` and `-`",
                |id| JobId::new(id).ok(),
            ),
            None => found.get(names::MSG_ID).and_then(|id| JobId::new(id).ok()),
        };
        let mut headers = Self::new(id.unwrap_or(fallback));
        headers.read_routing(&mut found, replies);
        headers.read_limits(&mut found);
        headers.read_version(&mut found);
        headers.read_body(&mut found);
        ParsedHeaders {
            headers,
            problems: found.problems,
        }
    }

    /// Where the result goes, which lane, whose job, and the trace.
    fn read_routing(&mut self, found: &mut Found<'_>, replies: &ReplyPrefixes) {
        if let Some(address) = found.get(names::REPLY_TO) {
            match replies.allows(address) {
                Ok(()) => self.reply_to = Some(address.to_owned()),
                Err(error) => found.problem(
                    names::REPLY_TO,
                    address,
                    &format!("a subject you may receive on; {error}"),
                ),
            }
        }
        self.result = found.read(names::RESULT, "`both`, `store` or `reply`", |value| {
            ResultMode::ALL
                .into_iter()
                .find(|mode| mode.as_str().eq_ignore_ascii_case(value))
        });
        self.lane = found.read(names::LANE, "`high`, `normal` or `low`", |value| {
            value.to_ascii_lowercase().parse().ok()
        });
        self.tenant = found.read(
            names::TENANT,
            "1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`",
            |value| {
                let tenant = |c: u8| c.is_ascii_alphabetic() || c == b'.';
                crate::names::is_word(value, 64, tenant).then(|| value.to_owned())
            },
        );
        self.events = flag(found, names::EVENTS, "1");
        self.debug = flag(found, names::DEBUG, "1");
        self.traceparent = found.get(names::TRACEPARENT).and_then(valid_traceparent);
        self.tracestate = found
            .get(names::TRACESTATE)
            .filter(|state| self.traceparent.is_some() && state.len() <= MAX_TRACESTATE_BYTES)
            .map(str::to_owned);
    }

    /// How long and how often it may be tried.
    fn read_limits(&mut self, found: &mut Found<'_>) {
        let number = |value: &str| value.parse().ok();
        self.deadline_unix_ms = found.read(
            names::DEADLINE,
            "milliseconds since 1970 as a whole number",
            number,
        );
        self.timeout_ms = found.read(names::TIMEOUT, "milliseconds as a whole number", number);
        self.supersedes = found.read(
            names::SUPERSEDES,
            "the sequence of an outcome as a whole number",
            number,
        );
        self.replays = found.get(names::MSG_ID).and_then(replayed_letter);
        let attempts = found.read(
            names::MAX_ATTEMPTS,
            "a whole number from 1 to 100",
            |value| value.parse().ok().filter(|n| (1..=100).contains(n)),
        );
        self.max_attempts = attempts.unwrap_or(DEFAULT_MAX_ATTEMPTS);
        let proto = found.read(
            names::PROTO,
            "a protocol version as a whole number from 1",
            |value| value.parse().ok().filter(|n| *n >= 1),
        );
        self.proto = proto.unwrap_or(PROTO);
    }

    fn read_version(&mut self, found: &mut Found<'_>) {
        let version = found.read(names::VERSION, "a version as a whole number", |value| {
            value.parse().ok()
        });
        let label = found.read(names::LABEL, "1 to 64 of a-z, 0-9, `_` and `-`", |value| {
            ModelName::new(value).ok()
        });
        self.version = match (version, label) {
            (Some(version), None) => VersionSelector::Version(version),
            (None, Some(label)) => VersionSelector::Label(label.to_string()),
            (None, None) => VersionSelector::Default,
            (Some(version), Some(label)) => {
                found.problem(
                    names::LABEL,
                    label.as_str(),
                    "either a version or a label, not both",
                );
                VersionSelector::Version(version)
            }
        };
    }

    /// What the body is, and what may be done with it.
    fn read_body(&mut self, found: &mut Found<'_>) {
        let text = |value: &str| {
            let printable = !value.chars().any(char::is_control);
            (printable && (1..=MAX_TEXT_BYTES).contains(&value.len())).then(|| value.to_owned())
        };
        self.affinity = found.read(names::AFFINITY, "1 to 256 bytes of printable text", text);
        self.payload_ref = found.read(names::PAYLOAD_REF, crate::reference::RULE, |value| {
            value.parse().ok()
        });
        self.accept_ref = flag(found, names::ACCEPT, "ref");
        self.cache = !flag(found, names::CACHE, "off");
        self.content_type = found.read(
            names::CONTENT_TYPE,
            "`application/json` or `application/cbor`",
            ContentType::parse,
        );
    }
}

/// Whether a header that knows one word is set to it; any other value is a problem.
fn flag(found: &mut Found<'_>, name: &'static str, word: &str) -> bool {
    found
        .read(name, &format!("`{word}`, or leave it out"), |value| {
            value.eq_ignore_ascii_case(word).then_some(true)
        })
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::body_digest;
    use crate::reference::PayloadRef;
    use crate::subjects::Lane;

    fn fallback() -> JobId {
        JobId::derived("INFER_JOBS", 7)
    }

    fn parse(pairs: &[(&str, &str)]) -> ParsedHeaders {
        JobHeaders::parse(pairs.iter().copied(), fallback(), &ReplyPrefixes::default())
    }

    #[test]
    fn no_headers_mean_defaults_under_the_derived_id() {
        let parsed = parse(&[]);
        assert_eq!(parsed.headers, JobHeaders::new(fallback()));
        assert_eq!(parsed.problems, []);
        assert_eq!(parsed.headers.max_attempts, 8);
        assert_eq!(parsed.headers.result_mode(), ResultMode::Store);
        assert_eq!(parsed.headers.deadline(5), None);
    }

    #[test]
    fn every_header_reads_back_as_it_was_written() {
        let mut headers = JobHeaders::new(JobId::random());
        headers.reply_to = Some("_INBOX.a.1".into());
        headers.result = Some(ResultMode::Reply);
        headers.deadline_unix_ms = Some(u64::MAX);
        headers.timeout_ms = Some(1);
        headers.version = VersionSelector::Version(3);
        headers.affinity = Some("user 7".into());
        headers.max_attempts = 100;
        headers.payload_ref = Some(PayloadRef::fresh(b"body"));
        headers.accept_ref = true;
        headers.tenant = Some("acme.eu".into());
        headers.cache = false;
        headers.lane = Some(Lane::Low);
        headers.events = true;
        headers.debug = true;
        headers.supersedes = Some(9);
        headers.replays = Some(4);
        headers.proto = 2;
        headers.content_type = Some(ContentType::Cbor);
        headers.traceparent =
            Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        headers.tracestate = Some("a=1".into());
        let pairs = headers.pairs();
        assert_eq!(pairs.len(), KNOWN.len() - 1, "all but the label");
        let lower: Vec<_> = pairs
            .iter()
            .map(|(name, value)| (name.to_lowercase(), value.clone()))
            .collect();
        let parsed = JobHeaders::parse(
            lower.iter().map(|(n, v)| (n.as_str(), v.as_str())),
            fallback(),
            &ReplyPrefixes::default(),
        );
        assert_eq!(parsed.problems, []);
        assert_eq!(parsed.headers, headers);
    }

    #[test]
    fn the_id_is_the_header_then_the_message_id_then_derived() {
        let both = [("Infer-Job-Id", "a"), ("Nats-Msg-Id", "b")];
        assert_eq!(parse(&both).headers.id.as_str(), "a");
        assert_eq!(parse(&both[1..]).headers.id.as_str(), "b");
        let strange = parse(&[("Nats-Msg-Id", "not an id")]);
        assert_eq!(strange.headers.id, fallback());
        assert_eq!(strange.problems, []);
    }

    #[test]
    fn a_bad_id_is_a_problem_under_the_derived_id() {
        let parsed = parse(&[("Infer-Job-Id", "a.b"), ("Nats-Msg-Id", "b")]);
        assert_eq!(parsed.headers.id, fallback());
        assert_eq!(parsed.problems[0].header, names::JOB_ID);
    }

    #[test]
    fn each_bad_value_is_one_problem_that_says_what_is_accepted() {
        for (name, value) in [
            (names::RESULT, "all"),
            (names::DEADLINE, "tomorrow"),
            (names::TIMEOUT, "5s"),
            (names::VERSION, "-1"),
            (names::LABEL, "Stable"),
            (names::AFFINITY, ""),
            (names::MAX_ATTEMPTS, "0"),
            (names::MAX_ATTEMPTS, "101"),
            (names::PAYLOAD_REF, ""),
            (names::PAYLOAD_REF, "blob-1"),
            (names::ACCEPT, "gzip"),
            (names::TENANT, "a b"),
            (names::CACHE, "on"),
            (names::LANE, "urgent"),
            (names::EVENTS, "yes"),
            (names::DEBUG, "0"),
            (names::SUPERSEDES, "x"),
            (names::PROTO, "0"),
            (names::CONTENT_TYPE, "text/plain"),
            (names::REPLY_TO, "infer.jobs.digits.high"),
        ] {
            let parsed = parse(&[(name, value)]);
            assert_eq!(parsed.problems.len(), 1, "{name}: {value}");
            assert_eq!(parsed.problems[0].header, name);
            assert_eq!(parsed.headers, JobHeaders::new(fallback()), "{name}");
        }
        let text = parse(&[(names::MAX_ATTEMPTS, "0")]).problems[0].to_string();
        assert_eq!(
            text,
            "header Infer-Max-Attempts: `0` is not accepted; send a whole number from 1 to 100"
        );
    }

    #[test]
    fn version_and_label_together_are_a_problem() {
        let parsed = parse(&[(names::VERSION, "1"), (names::LABEL, "stable")]);
        assert_eq!(parsed.problems.len(), 1);
        let label = parse(&[(names::LABEL, "stable")]).headers.version;
        assert_eq!(label, VersionSelector::Label("stable".into()));
    }

    #[test]
    fn a_header_given_twice_with_two_values_is_a_problem() {
        assert_eq!(
            parse(&[("infer-lane", "low"), ("Infer-Lane", "low")]).problems,
            []
        );
        let twice = parse(&[("infer-lane", "low"), ("Infer-Lane", "high")]);
        assert_eq!(twice.problems.len(), 1);
        assert_eq!(twice.headers.lane, Some(Lane::Low));
    }

    #[test]
    fn the_earlier_of_deadline_and_timeout_applies() {
        let mut headers = JobHeaders::new(fallback());
        headers.timeout_ms = Some(u64::MAX);
        assert_eq!(headers.deadline(1000), Some(u64::MAX));
        headers.deadline_unix_ms = Some(1500);
        assert_eq!(headers.deadline(1000), Some(1500));
        headers.timeout_ms = Some(100);
        assert_eq!(headers.deadline(1000), Some(1100));
    }

    #[test]
    fn a_body_by_reference_has_the_digest_of_the_same_body_in_a_message() {
        let model = ModelName::new("digits").expect("a good name");
        let mut headers = JobHeaders::new(fallback());
        assert_eq!(
            headers.body_digest(&model, b"body"),
            body_digest(&model, b"body")
        );
        headers.payload_ref = Some(PayloadRef::fresh(b"body"));
        assert_eq!(
            headers.body_digest(&model, b""),
            body_digest(&model, b"body")
        );
    }

    #[test]
    fn a_malformed_trace_is_ignored() {
        let parsed = parse(&[("Traceparent", "00-xyz-1-01"), ("tracestate", "a=1")]);
        assert_eq!(parsed.headers.traceparent, None);
        assert_eq!(parsed.headers.tracestate, None);
        assert_eq!(parsed.problems, []);
    }

    #[test]
    fn a_reply_address_gives_both_unless_said_otherwise() {
        let reply = (names::REPLY_TO, "_INBOX.x");
        assert_eq!(parse(&[reply]).headers.result_mode(), ResultMode::Both);
        let stored = parse(&[reply, (names::RESULT, "store")]);
        assert_eq!(stored.headers.result_mode(), ResultMode::Store);
    }
}
