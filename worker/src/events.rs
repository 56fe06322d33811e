//! Tells whoever listens on `infer.events.<job>` how a job gets on, if the job asks for it.
//!
//! An event that the connection does not take at once is lost and counted. So nothing here waits, and
//! neither a stage nor an executor ever does for the sake of a listener.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::Client;
use futures::FutureExt;
use inferq_schemas::headers::Status;
use inferq_schemas::identity::JobId;
use inferq_schemas::{JobEvent, shorten};

use crate::clock::millis;
use crate::job::Author;
use crate::ledger::Ledger;
use crate::metrics::Metrics;

/// Longest reason of a retry, in bytes.
const LONGEST_REASON: usize = 512;

/// Where events go, and in whose name.
#[derive(Clone)]
pub struct Events {
    ledger: Ledger,
    author: Author,
    metrics: Metrics,
}

impl Events {
    /// Events in the name of `author`, over the connection of `ledger`.
    pub fn new(ledger: Ledger, author: Author, metrics: Metrics) -> Self {
        Self {
            ledger,
            author,
            metrics,
        }
    }

    /// What tells of this delivery of `job`.
    pub fn teller(&self, job: &JobId, attempt: u64) -> Teller {
        Teller {
            client: self.ledger.client().clone(),
            subject: self.ledger.subjects().events(job),
            worker: self.author.worker.clone(),
            metrics: self.metrics.clone(),
            attempt,
            has_begun: AtomicBool::new(false),
        }
    }
}

/// Tells of one delivery of one job.
pub struct Teller {
    client: Client,
    subject: String,
    worker: Arc<str>,
    metrics: Metrics,
    attempt: u64,
    /// A job may reach executors in several pieces; the first one counts.
    has_begun: AtomicBool,
}

impl Teller {
    /// An executor has rows of the job. Told once.
    pub fn running(&self, model_version: u64) {
        if !self.has_begun.swap(true, Ordering::Relaxed) {
            self.tell(&JobEvent::Running {
                worker: self.worker.to_string(),
                attempt: self.attempt,
                model_version,
            });
        }
    }

    /// The job is given back to its queue, and comes again after `delay`.
    pub fn retrying(&self, delay: Duration, reason: &str) {
        self.tell(&JobEvent::Retrying {
            worker: self.worker.to_string(),
            attempt: self.attempt,
            delay_ms: millis(delay),
            reason: shorten(reason, LONGEST_REASON),
        });
    }

    /// The outcome of the job stands.
    pub fn done(&self, status: Status) {
        self.tell(&JobEvent::Done { status });
    }

    fn tell(&self, event: &JobEvent) {
        let sent = self.client.publish(self.subject.clone(), event.body());
        // Whatever the budget of this task: only a connection that takes nothing makes it pending.
        let sent = tokio::task::unconstrained(sent).now_or_never();
        if !matches!(sent, Some(Ok(()))) {
            self.metrics.event_lost();
        }
    }
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teller")
            .field("subject", &self.subject)
            .field("attempt", &self.attempt)
            .field("has_begun", &self.has_begun)
            .finish_non_exhaustive()
    }
}
