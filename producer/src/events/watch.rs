//! Asks the server where a job stands, about once a second.

use std::time::Duration;

use async_nats::jetstream::stream::DirectGetErrorKind;
use rand::RngExt;
use tokio::time::Instant;

use crate::{client::Client, denied::DeniedSubject, error::Source};

use super::place::{Place, Standing};

/// Between two looks; each is between three and five quarters of it, so that many do not ask at once.
const LOOK_EACH: Duration = Duration::from_secs(1);
/// A replica may lag behind: what it does not have for so long is not there.
const GONE_AFTER: Duration = Duration::from_secs(5);

/// What a look brought.
#[derive(Debug)]
pub(super) enum Seen {
    /// A position that was not told yet.
    Stands(Standing),
    /// Nothing new, or no answer.
    Unchanged,
    /// The job is not in its stream.
    Gone,
}

/// Looks at the queue that a job waits in.
#[derive(Debug)]
pub(super) struct Watch {
    client: Client,
    stream: String,
    sequence: u64,
    /// The consumer of its queue, once the job itself has said which that is.
    consumer: Option<String>,
    place: Place,
    /// The last position that was told.
    told: Option<u64>,
    absent_since: Option<Instant>,
    /// When to look again; `None` once there is nothing more to see.
    next: Option<Instant>,
}

/// Why there was nothing to see.
enum Unseen {
    Absent,
    Denied(DeniedSubject),
    Unanswered(Source),
}

impl From<DeniedSubject> for Unseen {
    fn from(denied: DeniedSubject) -> Self {
        Self::Denied(denied)
    }
}

impl Watch {
    pub(super) fn new(client: Client, stream: String, sequence: u64) -> Self {
        Self {
            client,
            stream,
            sequence,
            consumer: None,
            place: Place::new(sequence),
            told: None,
            absent_since: None,
            next: Some(Instant::now()),
        }
    }

    /// Looks once it is time to; never, if there is nothing more to see. Begins anew if it is dropped.
    pub(super) async fn look(&mut self) -> Seen {
        match self.next {
            Some(next) => tokio::time::sleep_until(next).await,
            None => std::future::pending().await,
        }
        let standing = self.standing().await;
        let now = Instant::now();
        self.next = Some(now + LOOK_EACH.mul_f64(rand::rng().random_range(0.75..1.25)));
        match standing {
            Ok(standing) => {
                if standing.with_worker {
                    self.next = None;
                }
                let position = Some(standing.position);
                if std::mem::replace(&mut self.told, position) == position {
                    Seen::Unchanged
                } else {
                    Seen::Stands(standing)
                }
            }
            Err(Unseen::Absent) => {
                let since = *self.absent_since.get_or_insert(now);
                if now.duration_since(since) >= GONE_AFTER {
                    Seen::Gone
                } else {
                    Seen::Unchanged
                }
            }
            Err(Unseen::Denied(denied)) => {
                tracing::debug!(%denied, "positions are not told");
                self.next = None;
                Seen::Unchanged
            }
            Err(Unseen::Unanswered(error)) => {
                tracing::debug!(error, "the queue is looked at again later");
                Seen::Unchanged
            }
        }
    }

    async fn standing(&mut self) -> Result<Standing, Unseen> {
        let consumer = match &self.consumer {
            Some(consumer) => consumer,
            None => {
                let consumer = self.queue_of_job().await?;
                self.consumer.insert(consumer)
            }
        };
        let inner = &self.client.inner;
        let stream = inner.reader.get_stream_no_info(&self.stream).await;
        let stream = stream.map_err(|error| Unseen::Unanswered(error.into()))?;
        let asked = format!("$JS.API.CONSUMER.INFO.{}.{consumer}", self.stream);
        let info = inner.denials.watch(&asked, stream.consumer_info(consumer));
        let info = info.await?;
        let info = info.map_err(|error| Unseen::Unanswered(error.into()))?;
        Ok(self.place.see((&info).into(), Instant::now().into_std()))
    }

    /// The name of the consumer whose job it is. Reads the job, which alone knows its subject: an earlier
    /// one under the same id may be in another lane than the one that was sent now.
    async fn queue_of_job(&self) -> Result<String, Unseen> {
        let inner = &self.client.inner;
        let stream = inner.reader.get_stream_no_info(&self.stream).await;
        let stream = stream.map_err(|error| Unseen::Unanswered(error.into()))?;
        let asked = format!("$JS.API.DIRECT.GET.{}", self.stream);
        let read = stream.direct_get(self.sequence);
        match inner.denials.watch(&asked, read).await? {
            Ok(job) => match inner.subjects.parse_job(&job.subject) {
                Some(queue) => Ok(inner.names.consumer(&queue.model, queue.lane)),
                None => Err(Unseen::Absent),
            },
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Err(Unseen::Absent),
            Err(error) => Err(Unseen::Unanswered(error.into())),
        }
    }
}
