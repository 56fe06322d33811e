//! Headers between NATS and our own types, and those of a dead letter.

use async_nats::HeaderMap;
use inferq_schemas::DeadHeaders;
use inferq_schemas::headers::{dead, names};
use inferq_schemas::identity::JobId;

use crate::clock::unix_ms_now;
use crate::job::{Job, Origin, Outcome};

/// The headers of a job that is put into its queue once more: its own, less those that the server acts on, which
/// would take it for a duplicate; and its id and deadline, which may have come from its place in the stream.
pub(super) fn headers_again(job: &Job) -> HeaderMap {
    let replaced = [names::JOB_ID, names::TIMEOUT, names::DEADLINE];
    let mut headers = HeaderMap::new();
    for (name, value) in header_pairs(&job.raw_headers) {
        let is_replaced = replaced
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name));
        if !dead::is_of_letter(name) && !is_replaced {
            headers.append(name, value);
        }
    }
    headers.insert(names::JOB_ID, job.headers.id.as_str());
    if let Origin::Queue(queued) = &job.origin
        && let Some(deadline) = job.headers.deadline(queued.published_unix_ms)
    {
        headers.insert(names::DEADLINE, deadline.to_string());
    }
    headers
}

/// Why the job of `outcome`, which came with the headers `original`, has a dead letter.
pub(super) fn dead_reason(original: &HeaderMap, outcome: &Outcome) -> DeadHeaders {
    let msg_id = header_pairs(original).find(|(name, _)| name.eq_ignore_ascii_case(names::MSG_ID));
    DeadHeaders {
        status: Some(outcome.headers.status),
        failure: outcome.headers.failure.clone(),
        worker: Some(outcome.headers.worker.clone()),
        attempts: Some(outcome.headers.attempt),
        time_unix_ms: Some(unix_ms_now()),
        outcome: outcome.sequence,
        msg_id: msg_id.map(|(_, id)| id.to_owned()),
        without_headers: false,
        without_body: false,
    }
}

/// `original` headers, less those that would steer the server or pass for ours, and why the job is
/// here. The id is the one it has an outcome under, also where it brought none, or none that fits.
pub(super) fn dead_headers(original: &HeaderMap, job: &JobId, reason: &DeadHeaders) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in header_pairs(original) {
        if !dead::is_of_letter(name) && !name.eq_ignore_ascii_case(names::JOB_ID) {
            headers.append(name, value);
        }
    }
    headers.insert(names::JOB_ID, job.as_str());
    for (name, value) in reason.pairs() {
        headers.insert(name, value);
    }
    headers
}

/// Bytes they take in a message.
pub(super) fn bytes_of(headers: &HeaderMap) -> usize {
    header_pairs(headers)
        .map(|(name, value)| name.len() + value.len() + 4)
        .sum()
}

/// Name and value of every header.
pub fn header_pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().flat_map(|(name, values)| {
        values
            .iter()
            .map(move |value| (name.as_ref(), value.as_str()))
    })
}

/// Headers out of name and value pairs.
pub fn header_map(pairs: impl IntoIterator<Item = (&'static str, String)>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.insert(name, value);
    }
    headers
}
