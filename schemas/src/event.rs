//! What is told of a job on its way, on `infer.events.<job>`: one small JSON document each.
//!
//! Events are for whoever watches. They travel on core NATS, so each comes at most once and none is kept;
//! what counts is the outcome on `infer.results.<job>`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::headers::Status;

/// Something that happened to a job.
///
/// ```
/// use inferq_schemas::JobEvent;
///
/// let event = JobEvent::Running { worker: "w-1".to_owned(), attempt: 1, model_version: 3 };
/// let body = event.body();
/// assert_eq!(body, r#"{"event":"running","worker":"w-1","attempt":1,"model_version":3}"#);
/// assert_eq!(JobEvent::from_body(&body), Some(event));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum JobEvent {
    /// It waits in its queue. No worker says this: whoever asks the server tells it.
    Queued {
        /// Jobs of its model and lane in front of it that no worker has been given yet.
        position: u64,
        /// Milliseconds until those have gone, at the pace of late; absent or null while there is none.
        #[serde(default)]
        estimated_wait_ms: Option<u64>,
    },
    /// An executor has its first rows.
    Running {
        /// Whose executor.
        worker: String,
        /// Which delivery this is, from 1.
        attempt: u64,
        /// The version that runs it.
        model_version: u64,
    },
    /// A delivery ended without an outcome, and the job comes again.
    Retrying {
        /// Who gives it back.
        worker: String,
        /// Which delivery that was, from 1.
        attempt: u64,
        /// Milliseconds until it may be delivered again.
        delay_ms: u64,
        /// Why, in one line.
        reason: String,
    },
    /// Its outcome stands.
    Done {
        /// How it ended.
        status: Status,
    },
}

impl JobEvent {
    /// The document.
    pub fn body(&self) -> Bytes {
        serde_json::to_vec(self)
            .expect("text and numbers are always JSON")
            .into()
    }

    /// Reads a document; `None` for anything else, such as an event that only newer versions know.
    pub fn from_body(body: &[u8]) -> Option<Self> {
        // A list would be read as the members in order.
        if !body.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        serde_json::from_slice(body).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_events_that_are_not_known_yet_are_passed_over() {
        let more = br#" {"status":"ok","event":"done","took_ms":3}"#;
        let done = JobEvent::Done { status: Status::Ok };
        assert_eq!(JobEvent::from_body(more), Some(done));
        let queued = br#"{"event":"queued","position":2}"#;
        let waits = JobEvent::Queued {
            position: 2,
            estimated_wait_ms: None,
        };
        assert_eq!(JobEvent::from_body(queued), Some(waits));
        for other in [r#"{"event":"moved"}"#, r#"["done","ok"]"#, "{}", "", "{"] {
            assert_eq!(JobEvent::from_body(other.as_bytes()), None, "{other}");
        }
    }
}
