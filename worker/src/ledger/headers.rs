//! Headers between NATS and our own types, and those of a dead letter.

use async_nats::HeaderMap;
use inferq_schemas::headers::{dead, names};

use crate::deadline::unix_ms_now;
use crate::job::Outcome;

/// Original headers, less those that would steer the server, and why the job is here.
pub(super) fn dead_headers(original: &HeaderMap, outcome: &Outcome) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, values) in original.iter() {
        let name_text = name.to_string();
        if name_text.to_ascii_lowercase().starts_with("nats-") {
            continue;
        }
        for value in values {
            headers.append(name_text.as_str(), value.as_str());
        }
    }
    if let Some(id) =
        header_pairs(original).find(|(name, _)| name.eq_ignore_ascii_case(names::MSG_ID))
    {
        headers.insert(dead::MSG_ID, id.1);
    }
    if let Some(failure) = &outcome.headers.failure {
        headers.insert(dead::CODE, failure.code.as_u16().to_string());
        headers.insert(dead::REASON, failure.header_message());
    }
    if let Some(sequence) = outcome.sequence {
        headers.insert(dead::OUTCOME, sequence.to_string());
    }
    headers.insert(dead::TIME, unix_ms_now().to_string());
    headers.insert(names::JOB_ID, outcome.headers.job_id.as_str());
    headers.insert(names::ATTEMPT, outcome.headers.attempt.to_string());
    headers.insert(names::WORKER, outcome.headers.worker.as_str());
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
