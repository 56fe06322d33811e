//! Jobs that were cancelled: the tombstones of KV `infer_cancel`, kept in memory by a watch.
//!
//! Every delivery is checked against them. A tombstone that has not arrived yet costs a run, never
//! a wrong outcome: whoever cancels writes the outcome first.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_nats::jetstream::kv::Operation;
use futures::StreamExt;
use inferq_schemas::identity::JobId;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::ledger::{Ledger, Unanswered};

/// Pause before a watch that ended is opened again.
const WATCH_AGAIN: Duration = Duration::from_secs(5);

/// The cancelled jobs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tombstones {
    jobs: Arc<RwLock<HashSet<String>>>,
}

impl Tombstones {
    /// Whether `job` was cancelled.
    pub fn contains(&self, job: &JobId) -> bool {
        self.jobs
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(job.as_str())
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
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(WATCH_AGAIN) => {}
            }
        }
    }

    async fn follow_once(&self, ledger: &Ledger) -> Result<(), Unanswered> {
        let bucket = ledger
            .jetstream()
            .get_key_value(ledger.assets().cancel_kv())
            .await
            .map_err(Unanswered::of)?;
        let mut entries = bucket
            .watch_with_history(">")
            .await
            .map_err(Unanswered::of)?;
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(Unanswered::of)?;
            let mut jobs = self.jobs.write().unwrap_or_else(PoisonError::into_inner);
            match entry.operation {
                Operation::Put => jobs.insert(entry.key),
                Operation::Delete | Operation::Purge => jobs.remove(&entry.key),
            };
        }
        Ok(())
    }
}
