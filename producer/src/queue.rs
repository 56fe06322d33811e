//! The queues of models: what waits in each lane, and emptying one.
//!
//! ```text
//! queue/state.rs   what the server counts, per model and lane
//! queue/purge.rs   ends every job of a queue with an outcome, then takes it off
//! queue/error.rs   why something was not done
//! ```

mod error;
mod purge;
mod state;

use std::collections::BTreeMap;

use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use futures::TryStreamExt;
use inferq_schemas::{Lane, ModelName, QueueKind};

use crate::client::Client;

pub use error::QueueError;
pub use purge::{PurgeOptions, Purged};
pub use state::{ConsumerState, QueueState, StreamState};

/// The queues of a deployment, from [`Client::queues`].
///
/// Needs the rights of an administrator: to ask about streams and consumers, and to purge also to
/// write outcomes and to delete jobs.
///
/// ```no_run
/// # async fn example(client: inferq::Client) -> Result<(), Box<dyn std::error::Error>> {
/// for queue in client.queues().list().await? {
///     println!("{} {}: {} jobs", queue.model, queue.lane, queue.jobs);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Queues {
    client: Client,
}

impl Client {
    /// What waits for workers.
    pub fn queues(&self) -> Queues {
        Queues {
            client: self.clone(),
        }
    }
}

impl Queues {
    /// Every queue: those of known models, and those that hold jobs for unknown ones; sorted by
    /// model and lane.
    ///
    /// # Errors
    /// [`QueueError`] if a stream of jobs is not there or does not answer.
    pub async fn list(&self) -> Result<Vec<QueueState>, QueueError> {
        let names = &self.client.inner.names;
        let mut queues = Vec::new();
        for name in [names.jobs(), names.bulk()] {
            queues.extend(self.of_stream(name, None).await?);
        }
        queues.sort_by(|one, two| (&one.model, one.lane).cmp(&(&two.model, two.lane)));
        Ok(queues)
    }

    /// The queues of one model, the most urgent lane first.
    ///
    /// # Errors
    /// [`QueueError::Model`] if there is no such model, else as [`list`](Self::list).
    pub async fn of(&self, model: &ModelName) -> Result<Vec<QueueState>, QueueError> {
        let names = &self.client.inner.names;
        let mut queues = Vec::new();
        for name in [names.jobs(), names.bulk()] {
            queues.extend(self.of_stream(name, Some(model)).await?);
        }
        queues.sort_by_key(|queue| queue.lane);
        if queues.is_empty() {
            let until = self.client.submit_until();
            self.client.inner.known.check(model, until).await?;
            // It became known while we looked: its consumers are made before it is.
            return Err(QueueError::NoConsumer {
                model: model.clone(),
            });
        }
        Ok(queues)
    }

    /// The queues in one stream, of one model or of all.
    async fn of_stream(
        &self,
        name: &str,
        only: Option<&ModelName>,
    ) -> Result<Vec<QueueState>, QueueError> {
        let inner = &self.client.inner;
        let failed = |error: crate::error::Source| QueueError::of(name, error);
        let asked = format!("$JS.API.STREAM.INFO.{name}");
        let found = inner.jetstream.get_stream(name);
        let stream = inner.denials.watch(&asked, found).await?;
        let stream = stream.map_err(|error| QueueError::of_stream(name, error))?;
        let whole = StreamState::new(stream.cached_info());
        let mut queues = BTreeMap::new();
        for (model, lane, consumer) in self.consumers(&stream, name, only).await? {
            let mut queue = QueueState::empty(model.clone(), lane, whole.clone());
            queue.consumer = Some(consumer);
            queues.insert((model, lane), queue);
        }
        let counted = stream.info_with_subjects(">").await;
        let mut counted = counted.map_err(|error| failed(error.into()))?;
        while let Some((subject, jobs)) = counted
            .try_next()
            .await
            .map_err(|error| failed(error.into()))?
        {
            let Some((model, lane)) = self.queue_of(&subject) else {
                continue;
            };
            if only.is_some_and(|only| only.as_str() != model) {
                continue;
            }
            let queue = queues
                .entry((model.clone(), lane))
                .or_insert_with(|| QueueState::empty(model, lane, whole.clone()));
            queue.jobs = jobs as u64;
            queue.oldest = oldest(&stream, &subject)
                .await
                .map_err(|error| failed(error.into()))?;
        }
        Ok(queues.into_values().collect())
    }

    /// Model, lane and numbers of the consumers that are queues of ours.
    async fn consumers<I>(
        &self,
        stream: &Stream<I>,
        name: &str,
        only: Option<&ModelName>,
    ) -> Result<Vec<(String, Lane, ConsumerState)>, QueueError> {
        let names = &self.client.inner.names;
        let all = stream.consumers().try_collect::<Vec<_>>().await;
        let all = all.map_err(|error| QueueError::of(name, error.into()))?;
        let ours = all.into_iter().filter_map(|info| {
            let (model, lane) = names.parse_consumer(&info.name)?;
            let wanted = only.is_none_or(|only| *only == model);
            wanted.then(|| (model.to_string(), lane, ConsumerState::new(&info)))
        });
        Ok(ours.collect())
    }

    /// Model and lane of a subject with jobs. The streams take any token as a name, so a model that
    /// nobody could serve may have a queue too.
    fn queue_of(&self, subject: &str) -> Option<(String, Lane)> {
        let subjects = &self.client.inner.subjects;
        if let Some(job) = subjects.parse_job(subject) {
            return (job.kind == QueueKind::Job).then(|| (job.model.to_string(), job.lane));
        }
        let (rest, lane) = subject.rsplit_once('.')?;
        let (_, model) = rest.rsplit_once('.')?;
        Some((model.to_owned(), lane.parse().ok()?))
    }
}

/// When the oldest job on `subject` was stored; `None` if there is none any more.
async fn oldest<I>(
    stream: &Stream<I>,
    subject: &str,
) -> Result<Option<std::time::SystemTime>, async_nats::jetstream::stream::RawMessageError> {
    match stream.get_first_raw_message_by_subject(subject, 1).await {
        Ok(message) => Ok(Some(message.time.into())),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error),
    }
}
