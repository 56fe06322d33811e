//! Outcomes: read from the stream that keeps them, or waited for.

use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream::stream::DirectGetErrorKind;
use futures::StreamExt;
use inferq_schemas::JobId;

use crate::{
    client::Client,
    error::ResultError,
    known::{direct_get, is_missing},
    outcome::Outcome,
    submit::Submitted,
};

/// How often a waiting call looks at the stream itself, in case a reconnect swallowed the news.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Every outcome comes after this one: sequences begin at 1.
pub(crate) const ANY: u64 = 0;
/// An outcome is announced when it is published and can be read once the server has stored it: soon, or when a disk
/// that is busy lets it. The least pause between two looks.
const STORE_PAUSE: Duration = Duration::from_millis(2);
/// A pause is this part of the time since the announcement, which is looked after for [`LOOK_AGAIN`].
const STORE_PART: u32 = 8;
/// A worker that hears of the deadline first answers `expired` itself; it has this long to do so.
const DEADLINE_GRACE: Duration = Duration::from_millis(250);

impl Client {
    /// The outcome of a job, waiting for it at most so long (zero: look once).
    ///
    /// # Errors
    /// [`ResultError::NotYet`] if there is none by then.
    pub async fn result(&self, id: &JobId, wait: Duration) -> Result<Outcome, ResultError> {
        self.outcome(id, wait, None, ANY).await
    }

    /// The outcome of a job just submitted. Knows the deadline of the job.
    ///
    /// # Errors
    /// [`ResultError::Expired`] once the deadline has passed, [`ResultError::NotYet`] after `wait`.
    pub async fn wait(&self, job: &Submitted, wait: Duration) -> Result<Outcome, ResultError> {
        self.outcome(&job.id, wait, job.deadline, ANY).await
    }

    /// The outcome of a job that comes after the one with sequence `after`.
    pub(crate) async fn outcome(
        &self,
        id: &JobId,
        wait: Duration,
        deadline: Option<SystemTime>,
        after: u64,
    ) -> Result<Outcome, ResultError> {
        if wait.is_zero() {
            let read = newer(self.read_outcome(id).await?, after);
            let read = read.ok_or(ResultError::NotYet {
                id: id.clone(),
                waited: wait,
            })?;
            return self.with_body(read).await;
        }
        let started = Instant::now();
        let patience = Patience::new(wait, deadline);
        match tokio::time::timeout(patience.limit, self.announced(id, after)).await {
            Ok(outcome) => self.with_body(outcome?).await,
            Err(_) => Err(patience.over(id, started.elapsed())),
        }
    }

    /// The same outcome with its body, also where that is too large for a message.
    pub(crate) async fn with_body(&self, outcome: Outcome) -> Result<Outcome, ResultError> {
        let id = outcome.headers.job_id.clone();
        let whole = self.whole(outcome).await;
        whole.map_err(|source| ResultError::Blob { id, source })
    }

    /// The stored outcome, if there is one.
    pub(crate) async fn read_outcome(&self, id: &JobId) -> Result<Option<Outcome>, ResultError> {
        let stream = self.inner.names.results();
        let request = |source: crate::error::Source| ResultError::Request {
            id: id.clone(),
            source,
        };
        let handle = self.inner.reader.get_stream_no_info(stream).await;
        let handle = handle.map_err(|error| request(error.into()))?;
        let subject = self.inner.subjects.result(id);
        let asked = direct_get(stream, &subject);
        let read = handle.direct_get_last_for_subject(subject);
        match self.inner.denials.watch(&asked, read).await? {
            Ok(message) => {
                let (stored, sequence) = (SystemTime::from(message.time), message.sequence);
                let outcome = Outcome::read(Some(&message.headers), message.payload);
                let outcome = outcome.map_err(|reason| ResultError::Unreadable {
                    id: id.clone(),
                    reason,
                })?;
                Ok(Some(Outcome {
                    stored: Some(stored),
                    sequence: Some(sequence),
                    ..outcome
                }))
            }
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) if is_missing(&self.inner.reader, &error, stream).await => {
                Err(ResultError::NoStream {
                    stream: stream.to_owned(),
                })
            }
            Err(error) => Err(request(error.into())),
        }
    }

    /// Subscribes before it reads, so that an outcome can not slip in between.
    ///
    /// What is announced is not yet the outcome: of two writers the stream keeps one, so what
    /// counts is what can be read.
    async fn announced(&self, id: &JobId, after: u64) -> Result<Outcome, ResultError> {
        let subject = self.inner.subjects.result(id);
        let mut news =
            self.inner
                .nats
                .subscribe(subject)
                .await
                .map_err(|error| ResultError::Request {
                    id: id.clone(),
                    source: error.into(),
                })?;
        if let Some(outcome) = newer(self.read_outcome(id).await?, after) {
            return Ok(outcome);
        }
        loop {
            let heard = tokio::time::timeout(LOOK_AGAIN, news.next()).await.is_ok();
            let began = Instant::now();
            loop {
                if let Some(outcome) = newer(self.look_again(id).await?, after) {
                    return Ok(outcome);
                }
                let gone = began.elapsed();
                if !heard || gone > LOOK_AGAIN {
                    break;
                }
                tokio::time::sleep(STORE_PAUSE.max(gone / STORE_PART)).await;
            }
        }
    }

    /// A later look that fails while the connection is down is not the end of the wait.
    pub(crate) async fn look_again(&self, id: &JobId) -> Result<Option<Outcome>, ResultError> {
        match self.read_outcome(id).await {
            Err(error @ ResultError::Request { .. }) => {
                tracing::debug!(%error, "looking again later");
                Ok(None)
            }
            read => read,
        }
    }
}

/// What stands, unless it is the outcome with sequence `after` or an older one.
fn newer(standing: Option<Outcome>, after: u64) -> Option<Outcome> {
    standing.filter(|outcome| outcome.sequence > Some(after))
}

/// How long to wait, and what to say when it was too long.
struct Patience {
    limit: Duration,
    ends_with_deadline: bool,
}

impl Patience {
    fn new(wait: Duration, deadline: Option<SystemTime>) -> Self {
        let left = deadline.map(|deadline| {
            let left = deadline
                .duration_since(SystemTime::now())
                .unwrap_or_default();
            left + DEADLINE_GRACE
        });
        match left {
            Some(left) if left <= wait => Self {
                limit: left,
                ends_with_deadline: true,
            },
            _ => Self {
                limit: wait,
                ends_with_deadline: false,
            },
        }
    }

    fn over(&self, id: &JobId, waited: Duration) -> ResultError {
        let id = id.clone();
        if self.ends_with_deadline {
            ResultError::Expired { id }
        } else {
            ResultError::NotYet { id, waited }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_of_the_job_ends_the_wait_early_and_is_called_expired() {
        let id = JobId::random();
        let soon = SystemTime::now() + Duration::from_secs(1);
        let short = Patience::new(Duration::from_secs(60), Some(soon));
        assert!(short.limit < Duration::from_secs(2));
        assert!(matches!(
            short.over(&id, Duration::ZERO),
            ResultError::Expired { .. }
        ));
        let long = Patience::new(Duration::from_millis(10), Some(soon));
        assert!(matches!(
            long.over(&id, Duration::ZERO),
            ResultError::NotYet { .. }
        ));
    }
}
