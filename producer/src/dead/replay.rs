//! Sending a dead letter once more.
//!
//! The job goes back to its queue as it was sent, under its own id, with the number of the outcome
//! it replaces. The letter is deleted after the queue has confirmed the job, so a crash in between
//! leaves both: replaying it again then changes nothing, since the first replay has replaced the
//! outcome that both of them name.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::HeaderMap;
use futures::{Stream, stream};
use inferq_schemas::{
    JobHeaders, ReplyPrefixes,
    headers::{dead, names},
};

use super::{DeadEntry, DeadLetters, ReplayError};
use crate::{
    error::ResultError,
    job::unix_ms,
    outcome::Outcome,
    submit::{Prepared, Submitted, header_value, in_order},
};

/// Letters under way at once while many are replayed: each holds a body of up to one message.
const AT_ONCE: usize = 32;

/// How dead letters are sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplayOptions {
    /// No worker starts the job later than this after it is queued again; replaces its deadline.
    pub timeout: Option<Duration>,
}

/// A dead letter that was sent again and deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The job, as it is queued now. A duplicate was replayed within the last two minutes already.
    pub submitted: Submitted,
    /// Sequence of the outcome it replaces.
    pub replaces: u64,
}

impl DeadLetters {
    /// Queues the job of a letter once more, and deletes the letter. The new outcome replaces the
    /// old one; if the job fails again, it gets a new letter.
    ///
    /// # Errors
    /// [`ReplayError`]; a full queue is [`SubmitError::Overloaded`](crate::SubmitError::Overloaded).
    pub async fn replay(
        &self,
        entry: &DeadEntry,
        options: &ReplayOptions,
    ) -> Result<Replayed, ReplayError> {
        let until = self.client.submit_until();
        let prepared = self.prepare(entry, options, until).await?;
        let submitted = self.client.publish(&prepared, until).await?;
        self.delete_replayed(entry, submitted).await
    }

    /// Replays many letters, a few at once; answers come in the order of the letters.
    ///
    /// A full queue is not an error here: the letter waits, with jitter, until there is room. Nothing
    /// happens until the returned stream is polled, and dropping it stops after what is in flight.
    pub fn replay_many(
        &self,
        entries: Vec<DeadEntry>,
        options: ReplayOptions,
    ) -> impl Stream<Item = (DeadEntry, Result<Replayed, ReplayError>)> + Send {
        let letters = self.clone();
        let replays = futures::StreamExt::map(stream::iter(entries), move |entry| {
            let letters = letters.clone();
            async move {
                let replayed = letters.replay_with_patience(&entry, &options).await;
                (entry, replayed)
            }
        });
        in_order(replays, AT_ONCE)
    }

    /// The outcome that replaces the old one, waiting for it at most so long.
    ///
    /// # Errors
    /// [`ResultError::NotYet`] if there is none by then, [`ResultError::Expired`] once the deadline
    /// of the job has passed.
    pub async fn wait(&self, replayed: &Replayed, wait: Duration) -> Result<Outcome, ResultError> {
        let Submitted { id, deadline, .. } = &replayed.submitted;
        let after = replayed.replaces;
        self.client.outcome(id, wait, *deadline, after).await
    }

    async fn replay_with_patience(
        &self,
        entry: &DeadEntry,
        options: &ReplayOptions,
    ) -> Result<Replayed, ReplayError> {
        let until = self.client.submit_until();
        let prepared = self.prepare(entry, options, until).await?;
        let submitted = self.client.publish_with_patience(&prepared, None).await?;
        self.delete_replayed(entry, submitted).await
    }

    /// The job as it is sent again, or why that would be of no use.
    async fn prepare(
        &self,
        entry: &DeadEntry,
        options: &ReplayOptions,
        until: Instant,
    ) -> Result<Prepared, ReplayError> {
        let job = entry.job.clone();
        let incomplete = [
            ("body", entry.reason.without_body),
            ("headers", entry.reason.without_headers),
        ];
        if let Some((part, _)) = incomplete.into_iter().find(|(_, lost)| *lost) {
            return Err(ReplayError::Incomplete { job, part });
        }
        let Some(outcome) = entry.reason.outcome else {
            return Err(ReplayError::NoOutcome { job });
        };
        let pairs = headers(entry, outcome, options);
        let now = SystemTime::now();
        let deadline = deadline(entry, &pairs, now);
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Err(ReplayError::Deadline { job });
        }
        self.client.check_model(&entry.model, until).await?;
        if let Some(reference) = entry.body_reference() {
            let found = self.client.blob_record(&reference).await;
            if let Err(source) = found {
                return Err(ReplayError::NoBody { job, source });
            }
        }
        let letter = self.read(entry).await?;
        let digest = letter.digest();
        let mut headers = HeaderMap::new();
        for (name, value) in &pairs {
            headers.append(
                name.as_str(),
                header_value("a header of the dead letter", value)?,
            );
        }
        Ok(Prepared {
            id: job,
            model: entry.model.clone(),
            subject: self.client.inner.subjects.job(&entry.model, entry.lane),
            headers,
            body: letter.body,
            digest,
            stored: None,
            deadline,
        })
    }

    async fn delete_replayed(
        &self,
        entry: &DeadEntry,
        submitted: Submitted,
    ) -> Result<Replayed, ReplayError> {
        match self.delete(entry).await {
            // Gone already: somebody replayed or purged it at the same time.
            Ok(_) => Ok(Replayed {
                submitted,
                replaces: entry.reason.outcome.unwrap_or(0),
            }),
            Err(source) => Err(ReplayError::NotDeleted {
                job: entry.job.clone(),
                source,
            }),
        }
    }
}

/// The headers that the job of `entry` is sent with again.
fn headers(entry: &DeadEntry, outcome: u64, options: &ReplayOptions) -> Vec<(String, String)> {
    let own = entry
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let mut pairs = dead::replay(own, entry.sequence, outcome);
    if let Some(timeout) = options.timeout {
        let replaced = [names::TIMEOUT, names::DEADLINE];
        pairs.retain(|(name, _)| {
            !replaced
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name))
        });
        pairs.push((names::TIMEOUT.to_owned(), timeout.as_millis().to_string()));
    }
    pairs
}

/// When no worker starts the job any more, if it is queued at `now`.
fn deadline(entry: &DeadEntry, pairs: &[(String, String)], now: SystemTime) -> Option<SystemTime> {
    let pairs = pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let parsed = JobHeaders::parse(pairs, entry.job.clone(), &ReplyPrefixes::default());
    let deadline = parsed.headers.deadline(unix_ms(now))?;
    UNIX_EPOCH.checked_add(Duration::from_millis(deadline))
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferq_schemas::{DeadHeaders, JobId, Lane};

    fn entry(headers: &[(&str, &str)]) -> DeadEntry {
        let own = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        DeadEntry {
            sequence: 7,
            job: JobId::random(),
            model: "digits".parse().expect("a valid name"),
            lane: Lane::Normal,
            stored: UNIX_EPOCH,
            reason: DeadHeaders::default(),
            headers: own.collect(),
            bytes: 2,
        }
    }

    #[test]
    fn a_new_timeout_takes_the_place_of_every_deadline() {
        let sent = [
            ("infer-deadline", "5"),
            ("Infer-Timeout", "6"),
            ("Infer-Tenant", "acme"),
        ];
        let options = ReplayOptions {
            timeout: Some(Duration::from_secs(2)),
        };
        let entry = entry(&sent);
        let pairs = headers(&entry, 3, &options);
        let text: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let expected = [
            "Infer-Tenant: acme",
            "Nats-Msg-Id: replay.7",
            "Infer-Supersedes: 3",
            "Infer-Timeout: 2000",
        ];
        assert_eq!(text, expected);
        let now = UNIX_EPOCH + Duration::from_secs(100);
        let ends = deadline(&entry, &pairs, now);
        assert_eq!(ends, Some(now + Duration::from_secs(2)));
    }

    #[test]
    fn a_timeout_counts_anew_and_a_deadline_stays_where_it_was() {
        let now = UNIX_EPOCH + Duration::from_secs(100);
        let ends = |sent: &[(&str, &str)]| {
            let entry = entry(sent);
            let pairs = headers(&entry, 3, &ReplayOptions::default());
            deadline(&entry, &pairs, now)
        };
        assert_eq!(ends(&[]), None);
        let five = Duration::from_secs(5);
        assert_eq!(ends(&[("Infer-Timeout", "5000")]), Some(now + five));
        assert_eq!(ends(&[("Infer-Deadline", "5000")]), Some(UNIX_EPOCH + five));
    }
}
