//! Dead letters: jobs that ended as `error` or `dead`, kept as they were sent.
//!
//! ```text
//! dead/filter.rs   which ones are meant
//! dead/letter.rs   what one says, with and without its body
//! dead/replay.rs   sending one once more, so that it replaces the outcome it failed with
//! dead/error.rs    why something was not done
//! ```

mod error;
mod filter;
mod letter;
mod replay;

use std::time::{Duration, SystemTime};

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    stream::{LastRawMessageErrorKind, Stream},
};
use futures::StreamExt;
use inferq_schemas::JobId;
use rand::Rng;

use crate::client::Client;
use filter::Latest;

pub use error::{DeadError, ReplayError};
pub use filter::DeadFilter;
pub use letter::{DeadEntry, DeadLetter};
pub use replay::{ReplayOptions, Replayed};

/// Letters asked for in one go while listing.
const PAGE: usize = 500;
/// The first letter of a page comes within this, or there is none any more.
const PAGE_WITHIN: Duration = Duration::from_secs(2);
/// The server removes the consumer of a listing that nobody reads any more after this long.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// The dead letters of a deployment, from [`Client::dead`].
///
/// Needs the rights of an administrator: to make a consumer on the stream of dead letters, and to
/// read and delete its messages.
///
/// ```no_run
/// # async fn example(client: inferq::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use inferq::dead::{DeadFilter, ReplayOptions};
///
/// let dead = client.dead();
/// let of_digits = DeadFilter {
///     model: Some("digits".parse()?),
///     ..DeadFilter::default()
/// };
/// for entry in dead.list(&of_digits).await?.letters {
///     println!("{}: {}", entry.job, entry.message());
///     dead.replay(&entry, &ReplayOptions::default()).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct DeadLetters {
    client: Client,
}

/// What a listing found.
#[derive(Debug, Clone, Default)]
pub struct DeadList {
    /// The youngest that match, as many as the filter allows, oldest first.
    pub letters: Vec<DeadEntry>,
    /// How many more match, all of them older.
    pub older: u64,
}

impl Client {
    /// Jobs that failed for good.
    pub fn dead(&self) -> DeadLetters {
        DeadLetters {
            client: self.clone(),
        }
    }
}

impl DeadLetters {
    /// The letters that match, without their bodies.
    ///
    /// # Errors
    /// [`DeadError`] if the stream is not there or cannot be read.
    pub async fn list(&self, filter: &DeadFilter) -> Result<DeadList, DeadError> {
        let mut latest = Latest::new(filter);
        let consumer = self.consumer(filter).await?;
        let mut left = consumer.cached_info().num_pending;
        while left > 0 {
            let asked = usize::try_from(left).unwrap_or(PAGE).min(PAGE);
            let page = consumer.fetch().max_messages(asked).expires(PAGE_WITHIN);
            let page = page.messages().await;
            let mut page = page.map_err(|error| self.unreadable(error))?;
            let mut came = false;
            while let Some(message) = page.next().await {
                let message = message.map_err(|error| self.unreadable(error))?;
                let info = message.info().map_err(|error| self.unreadable(error))?;
                // What is published meanwhile is not waited for, what is deleted does not come.
                left = (left - 1).min(info.pending);
                let read = DeadEntry::listed(&self.client.inner.subjects, &message, &info);
                match read {
                    Some(entry) => latest.take(entry),
                    None => tracing::debug!(subject = %message.subject, "not a dead letter"),
                }
                came = true;
                if left == 0 {
                    break;
                }
            }
            if !came {
                let info = consumer.get_info().await;
                let missing = info.map_err(|error| self.unreadable(error))?.num_pending;
                if missing > 0 {
                    return Err(self.unreadable(format!("{missing} letters did not come")));
                }
                // The rest was deleted while we read.
                break;
            }
        }
        let name = &consumer.cached_info().name;
        let stream = self.stream().await?;
        if let Err(error) = stream.delete_consumer(name).await {
            tracing::debug!(%error, "the server forgets this listing by itself");
        }
        Ok(latest.into_list())
    }

    /// The youngest letter of a job, whole.
    ///
    /// # Errors
    /// [`DeadError::NotFound`] if it has none.
    pub async fn get(&self, job: &JobId) -> Result<DeadLetter, DeadError> {
        let filter = DeadFilter {
            jobs: vec![job.clone()],
            limit: std::num::NonZeroUsize::new(1),
            ..DeadFilter::default()
        };
        let found = self.list(&filter).await?.letters;
        let not_found = || DeadError::NotFound { job: job.clone() };
        let entry = found.into_iter().next().ok_or_else(not_found)?;
        self.read(&entry).await
    }

    /// A listed letter with its body.
    ///
    /// # Errors
    /// [`DeadError::NotFound`] if it was deleted meanwhile, or left by age.
    pub async fn read(&self, entry: &DeadEntry) -> Result<DeadLetter, DeadError> {
        let stream = self.stream().await?;
        let asked = self.api("STREAM.MSG.GET");
        let read = stream.get_raw_message(entry.sequence);
        match self.client.inner.denials.watch(&asked, read).await? {
            Ok(message) => Ok(DeadLetter {
                entry: entry.clone(),
                body: message.payload,
            }),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                Err(DeadError::NotFound {
                    job: entry.job.clone(),
                })
            }
            Err(error) => Err(self.unreadable(error)),
        }
    }

    /// Deletes a letter, and with the last one of a job its body by reference; the job's outcome stays.
    /// Says whether the letter was there. A body that cannot be deleted leaves its bucket after a day. A letter
    /// that a replay has queued again but not yet taken off is to be left to that replay, whose body this is too.
    ///
    /// # Errors
    /// [`DeadError`] if the server did not delete the letter.
    pub async fn purge(&self, entry: &DeadEntry) -> Result<bool, DeadError> {
        // One that somebody else took off may be queued again, and needs its body.
        if !self.delete(entry).await? {
            return Ok(false);
        }
        if let Some(reference) = entry.body_reference()
            && !self.has_another(entry).await
            && let Err(error) = self.client.delete_body(&reference).await
        {
            let job = &entry.job;
            tracing::warn!(%job, %error, "the body of a dead letter was left to its age");
        }
        Ok(true)
    }

    /// Whether its job has one more letter, or may have.
    async fn has_another(&self, entry: &DeadEntry) -> bool {
        let subjects = &self.client.inner.subjects;
        let subject = subjects.dead(&entry.model, entry.lane, &entry.job);
        let Ok(stream) = self.stream().await else {
            return true;
        };
        let last = stream.get_last_raw_message_by_subject(&subject).await;
        !last.is_err_and(|error| error.kind() == LastRawMessageErrorKind::NoMessageFound)
    }

    /// Deletes a letter and nothing else. Says whether it was there.
    async fn delete(&self, entry: &DeadEntry) -> Result<bool, DeadError> {
        let stream = self.stream().await?;
        let asked = self.api("STREAM.MSG.DELETE");
        let deleted = stream.delete_message(entry.sequence);
        match self.client.inner.denials.watch(&asked, deleted).await? {
            Ok(_) => Ok(true),
            Err(error) => match self.read(entry).await {
                Err(DeadError::NotFound { .. }) => Ok(false),
                _ => Err(self.unreadable(error)),
            },
        }
    }

    /// A consumer of the headers of what may match: the rest of the filter is applied here.
    async fn consumer(&self, filter: &DeadFilter) -> Result<PullConsumer, DeadError> {
        let one_job = match &filter.jobs[..] {
            [job] => Some(job),
            _ => None,
        };
        let subjects = &self.client.inner.subjects;
        let filter_subject = subjects.dead_filter(filter.model.as_ref(), filter.lane, one_job);
        let name = format!("inferq_dead_{:016x}", rand::rng().next_u64());
        let asked = format!("{}.{name}.{filter_subject}", self.api("CONSUMER.CREATE"));
        let config = pull::Config {
            name: Some(name),
            filter_subject,
            deliver_policy: filter.since.map_or(DeliverPolicy::All, |since| {
                DeliverPolicy::ByStartTime {
                    start_time: since.max(SystemTime::UNIX_EPOCH).into(),
                }
            }),
            ack_policy: AckPolicy::None,
            headers_only: true,
            inactive_threshold: FORGET_AFTER,
            memory_storage: true,
            ..pull::Config::default()
        };
        let stream = self.stream().await?;
        let made = stream.create_consumer(config);
        let made = self.client.inner.denials.watch(&asked, made).await?;
        made.map_err(|error| DeadError::of_consumer(self.client.inner.names.dead(), error))
    }

    async fn stream(&self) -> Result<Stream<()>, DeadError> {
        let name = self.client.inner.names.dead();
        let stream = self.client.inner.jetstream.get_stream_no_info(name).await;
        stream.map_err(|error| self.unreadable(error))
    }

    /// Where a request about the stream of dead letters goes, for finding out that it is denied.
    fn api(&self, verb: &str) -> String {
        format!("$JS.API.{verb}.{}", self.client.inner.names.dead())
    }

    fn unreadable(&self, source: impl Into<crate::error::Source>) -> DeadError {
        DeadError::Request {
            stream: self.client.inner.names.dead().to_owned(),
            source: source.into(),
        }
    }
}
