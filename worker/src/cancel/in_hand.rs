//! The jobs this worker has in hand, each within reach of a cancellation until it is answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use inferq_schemas::identity::JobId;
use tokio_util::sync::CancellationToken;

/// What a cancellation can still stop here. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct InHand {
    jobs: Arc<Mutex<Jobs>>,
}

/// Two deliveries of one job may be in hand at once, so each has a number.
#[derive(Debug, Default)]
struct Jobs {
    taken: u64,
    tokens: BTreeMap<(JobId, u64), CancellationToken>,
}

impl InHand {
    /// Puts a delivery of `job` within reach for as long as the grip lives.
    pub fn take(&self, job: &JobId) -> Grip {
        let mut jobs = self.lock();
        jobs.taken += 1;
        let key = (job.clone(), jobs.taken);
        let token = CancellationToken::new();
        jobs.tokens.insert(key.clone(), token.clone());
        Grip {
            in_hand: self.clone(),
            key,
            token,
        }
    }

    /// Stops all deliveries of `job` that are in hand; returns how many there were.
    pub fn stop(&self, job: &JobId) -> usize {
        let jobs = self.lock();
        let every = (job.clone(), 0)..=(job.clone(), u64::MAX);
        let tokens = jobs.tokens.range(every);
        tokens.map(|(_, token)| token.cancel()).count()
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps one delivery within reach.
#[derive(Debug)]
pub struct Grip {
    in_hand: InHand,
    key: (JobId, u64),
    token: CancellationToken,
}

impl Grip {
    /// Whether its job was cancelled.
    pub fn is_stopped(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until its job is cancelled.
    pub async fn stopped(&self) {
        self.token.cancelled().await;
    }
}

impl Drop for Grip {
    fn drop(&mut self) {
        self.in_hand.lock().tokens.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn id(id: &str) -> JobId {
        JobId::new(id).expect("a good id")
    }

    #[test]
    fn a_cancellation_stops_every_delivery_of_its_job_and_no_other() {
        let in_hand = InHand::default();
        let (first, again) = (in_hand.take(&id("b")), in_hand.take(&id("b")));
        let others = ["a", "ba", "c"].map(|other| in_hand.take(&id(other)));
        assert_eq!(in_hand.stop(&id("b")), 2);
        assert!(first.stopped().now_or_never().is_some());
        assert!(again.stopped().now_or_never().is_some());
        for other in &others {
            assert!(other.stopped().now_or_never().is_none(), "{other:?}");
        }
    }

    #[test]
    fn what_is_answered_is_out_of_reach() {
        let in_hand = InHand::default();
        drop(in_hand.take(&id("a")));
        assert_eq!(in_hand.stop(&id("a")), 0);
    }
}
