//! Jobs that were cancelled: the tombstones of KV `infer_cancel`, kept in memory by a watch.
//!
//! Every delivery is checked against them. A tombstone that has not arrived yet costs a run, never
//! a wrong outcome: whoever cancels writes the outcome first.
//!
//! A job that had ended as `error` or `dead` stays so, but its replay may wait in the queue. Its tombstone
//! names that outcome, and calls off the replay that would replace it, if it was queued before. No outcome
//! of its own keeps such a replay from being run, so that its tombstone is looked for in the bucket itself.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use async_nats::jetstream::kv::{Operation, Store};
use bytes::Bytes;
use futures::StreamExt;
use inferq_schemas::headers::JobHeaders;
use inferq_schemas::identity::JobId;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::clock::unix_ms;
use crate::job::Origin;
use crate::ledger::{Ledger, Unanswered};

/// Longest wait for one tombstone. Without it a job is run that need not be.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// Pause before a watch that ended is opened again.
const WATCH_AGAIN: Duration = Duration::from_secs(5);

/// What is not to be run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tombstone {
    /// The job.
    Job,
    /// A replay that would replace the outcome with this sequence.
    Replay(u64),
}

impl Tombstone {
    /// As the bucket keeps it.
    pub fn value(self) -> Bytes {
        match self {
            Tombstone::Job => Bytes::new(),
            Tombstone::Replay(outcome) => outcome.to_string().into(),
        }
    }

    fn of_value(value: &[u8]) -> Self {
        let outcome = std::str::from_utf8(value).ok();
        let outcome = outcome.and_then(|outcome| outcome.parse().ok());
        outcome.map_or(Tombstone::Job, Tombstone::Replay)
    }
}

/// The cancelled jobs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tombstones {
    /// Each with when the bucket stored it, in unix milliseconds.
    jobs: Arc<RwLock<HashMap<String, (Tombstone, u64)>>>,
    /// Over once those that were in the bucket at the start are here, or cannot be had.
    known: CancellationToken,
}

impl Tombstones {
    /// Waits until those that were in the bucket at the start are known, or cannot be known soon.
    pub async fn known(&self) {
        if tokio::time::timeout(LOOK_WITHIN, self.known.cancelled())
            .await
            .is_err()
        {
            debug!("the cancelled jobs are not known yet, some may be run in vain");
        }
    }

    /// Whether `job` was cancelled.
    pub fn contains(&self, job: &JobId) -> bool {
        let found = self.find(job);
        found.is_some_and(|(tombstone, _)| tombstone == Tombstone::Job)
    }

    /// Whether the delivery with `headers` was cancelled: its job, or the replay that it is.
    pub fn call_off(&self, headers: &JobHeaders, origin: &Origin) -> bool {
        match (self.find(&headers.id), origin) {
            (None, _) => false,
            (Some((Tombstone::Job, _)), _) => true,
            (Some((Tombstone::Replay(outcome), buried)), Origin::Queue(queued)) => {
                headers.supersedes == Some(outcome) && queued.published_unix_ms <= buried
            }
            (Some((Tombstone::Replay(_), _)), Origin::Rpc { .. }) => false,
        }
    }

    /// Leaves `tombstone` for whoever is delivered `job` later, and takes note of it here.
    ///
    /// # Errors
    /// If the server did not confirm it.
    pub async fn put(
        &self,
        job: &JobId,
        tombstone: Tombstone,
        ledger: &Ledger,
    ) -> Result<(), Unanswered> {
        let bucket = bucket(ledger).await?;
        let put = bucket.put(job.as_str(), tombstone.value()).await;
        put.map_err(Unanswered::of)?;
        // Before the caller hears of it, so that a job queued after that is not run here in vain.
        self.look_in(&bucket, job).await
    }

    /// Takes note of the tombstone that `job` has in the bucket, which the watch may not have brought yet.
    pub async fn look(&self, job: &JobId, ledger: &Ledger) {
        let look = async { self.look_in(&bucket(ledger).await?, job).await };
        let looked = tokio::time::timeout(LOOK_WITHIN, look).await;
        if let Err(error) = looked.map_err(Unanswered::of).flatten() {
            debug!(%job, %error, "a tombstone was not looked for");
        }
    }

    async fn look_in(&self, bucket: &Store, job: &JobId) -> Result<(), Unanswered> {
        let found = bucket.entry(job.as_str()).await.map_err(Unanswered::of)?;
        if let Some(entry) = found.filter(|entry| entry.operation == Operation::Put) {
            self.bury(entry.key, &entry.value, entry.created.into());
        }
        Ok(())
    }

    fn find(&self, job: &JobId) -> Option<(Tombstone, u64)> {
        let jobs = self.jobs.read().unwrap_or_else(PoisonError::into_inner);
        jobs.get(job.as_str()).copied()
    }

    fn bury(&self, job: String, value: &[u8], stored: SystemTime) {
        let stored_ms = unix_ms(stored);
        let mut jobs = self.jobs.write().unwrap_or_else(PoisonError::into_inner);
        // A replica that lags behind may tell of an earlier one.
        let is_newest = jobs
            .get(&job)
            .is_none_or(|(_, stored)| *stored <= stored_ms);
        if is_newest {
            jobs.insert(job, (Tombstone::of_value(value), stored_ms));
        }
    }

    /// Follows the bucket until `stop`.
    pub async fn follow(self, ledger: Ledger, stop: CancellationToken) {
        loop {
            let followed = tokio::select! {
                () = stop.cancelled() => return,
                followed = self.follow_once(&ledger) => followed,
            };
            if let Err(error) = followed {
                // Without its bucket nobody can cancel either.
                debug!(%error, "not following cancellations, trying again");
                self.known.cancel();
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(WATCH_AGAIN) => {}
            }
        }
    }

    async fn follow_once(&self, ledger: &Ledger) -> Result<(), Unanswered> {
        let bucket = bucket(ledger).await?;
        if bucket.status().await.map_err(Unanswered::of)?.values() == 0 {
            self.known.cancel();
        }
        let mut entries = bucket
            .watch_with_history(">")
            .await
            .map_err(Unanswered::of)?;
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(Unanswered::of)?;
            let is_last = entry.delta == 0;
            match entry.operation {
                Operation::Put => self.bury(entry.key, &entry.value, entry.created.into()),
                Operation::Delete | Operation::Purge => {
                    let mut jobs = self.jobs.write().unwrap_or_else(PoisonError::into_inner);
                    jobs.remove(&entry.key);
                }
            }
            if is_last {
                self.known.cancel();
            }
        }
        Ok(())
    }
}

async fn bucket(ledger: &Ledger) -> Result<Store, Unanswered> {
    let bucket = ledger.assets().cancel_kv();
    let bucket = ledger.jetstream().get_key_value(bucket).await;
    bucket.map_err(Unanswered::of)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::job::Queued;

    /// When the tombstones of these tests were stored, in unix milliseconds.
    const BURIED: u64 = 1_000;

    fn buried(tombstone: Tombstone) -> Tombstones {
        let tombstones = Tombstones::default();
        let stored = UNIX_EPOCH + Duration::from_millis(BURIED);
        tombstones.bury("a".to_owned(), &tombstone.value(), stored);
        tombstones
    }

    /// Whether a delivery of `id`, a replay or not, is called off.
    fn is_called_off(
        tombstones: &Tombstones,
        id: &str,
        supersedes: Option<u64>,
        published_unix_ms: u64,
    ) -> bool {
        let mut headers = JobHeaders::new(JobId::new(id).expect("a good id"));
        headers.supersedes = supersedes;
        let origin = Origin::Queue(Queued {
            stream: "INFER_JOBS".to_owned(),
            sequence: 1,
            attempt: 1,
            published_unix_ms,
            ack: None,
            recorded: true,
        });
        tombstones.call_off(&headers, &origin)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_there_at_the_start_is_waited_for_as_long_as_a_look_takes() {
        let (tombstones, begun) = (Tombstones::default(), tokio::time::Instant::now());
        tombstones.known().await;
        assert_eq!(begun.elapsed(), LOOK_WITHIN);
        tombstones.known.cancel();
        tombstones.known().await;
        assert_eq!(begun.elapsed(), LOOK_WITHIN);
    }

    #[test]
    fn a_cancelled_job_is_not_run_whenever_it_was_queued() {
        let tombstones = buried(Tombstone::Job);
        assert!(tombstones.contains(&JobId::new("a").expect("a good id")));
        for (supersedes, published) in [(None, 1), (None, 2_000), (Some(7), 1)] {
            assert!(is_called_off(&tombstones, "a", supersedes, published));
        }
        assert!(!is_called_off(&tombstones, "b", None, 1));
    }

    #[test]
    fn of_a_failed_job_the_replay_that_was_queued_is_not_run_and_any_other_is() {
        let tombstones = buried(Tombstone::Replay(7));
        assert!(!tombstones.contains(&JobId::new("a").expect("a good id")));
        assert!(is_called_off(&tombstones, "a", Some(7), BURIED));
        assert!(
            !is_called_off(&tombstones, "a", Some(7), BURIED + 1),
            "a later one"
        );
        assert!(
            !is_called_off(&tombstones, "a", Some(8), 1),
            "of its next letter"
        );
        assert!(!is_called_off(&tombstones, "a", None, 1), "the job itself");
        assert!(!is_called_off(&tombstones, "b", Some(7), 1));
    }
}
