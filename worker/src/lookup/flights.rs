//! Single-flight: of all jobs that want the same answer at the same time, one computes it.
//!
//! A leader that goes away without an answer, for whatever reason, wakes its followers; one of them
//! claims the place.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use inferq_schemas::cache_key::CacheKey;
use tokio::sync::watch;

use super::entry::CachedAnswer;

type Answer = Arc<CachedAnswer>;

/// What is being computed. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Flights {
    open: Arc<Mutex<HashMap<CacheKey, watch::Receiver<Option<Answer>>>>>,
}

/// The place of one job at one answer.
#[derive(Debug)]
pub(super) enum Claim {
    /// Nobody computes it: do it, and publish.
    Lead(Lead),
    /// Somebody does: wait.
    Follow(Follow),
}

impl Flights {
    pub(super) fn claim(&self, key: CacheKey) -> Claim {
        match self.lock().entry(key) {
            Entry::Occupied(flight) => Claim::Follow(Follow(flight.get().clone())),
            Entry::Vacant(place) => {
                let (sender, receiver) = watch::channel(None);
                place.insert(receiver);
                Claim::Lead(Lead {
                    flights: self.clone(),
                    key,
                    sender,
                })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, watch::Receiver<Option<Answer>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Computes one answer.
#[derive(Debug)]
pub(super) struct Lead {
    flights: Flights,
    key: CacheKey,
    sender: watch::Sender<Option<Answer>>,
}

impl Lead {
    pub(super) fn publish(self, answer: Answer) {
        self.sender.send_replace(Some(answer));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        // Before the sender closes, so that a follower who wakes finds the place free.
        self.flights.lock().remove(&self.key);
    }
}

/// Waits for another job's answer.
#[derive(Debug)]
pub(super) struct Follow(watch::Receiver<Option<Answer>>);

impl Follow {
    /// The answer, or `None` if its leader went away without one.
    pub(super) async fn wait(mut self) -> Option<Answer> {
        self.0
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|answer| answer.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> CachedAnswer {
        CachedAnswer {
            outputs: Vec::new(),
            device: "cpu".into(),
        }
    }
    use inferq_schemas::cache_key::CacheScope;
    use inferq_schemas::identity::Digest;

    fn key() -> CacheKey {
        CacheScope::new(&Digest::of(b"version"), None, &[], &Default::default()).whole(&[])
    }

    fn lead(flights: &Flights) -> Lead {
        match flights.claim(key()) {
            Claim::Lead(lead) => lead,
            Claim::Follow(_) => panic!("the place is taken"),
        }
    }

    fn follow(flights: &Flights) -> Follow {
        match flights.claim(key()) {
            Claim::Follow(follow) => follow,
            Claim::Lead(_) => panic!("nobody leads"),
        }
    }

    #[tokio::test]
    async fn a_follower_gets_the_leaders_answer() {
        let flights = Flights::default();
        let leader = lead(&flights);
        let follower = follow(&flights);
        leader.publish(Arc::new(answer()));
        assert!(follower.wait().await.is_some());
    }

    #[tokio::test]
    async fn a_follower_takes_the_place_of_a_leader_that_went_away() {
        let flights = Flights::default();
        let leader = lead(&flights);
        let follower = follow(&flights);
        drop(leader);
        assert!(follower.wait().await.is_none());
        lead(&flights);
    }

    #[tokio::test]
    async fn an_answered_flight_is_over() {
        let flights = Flights::default();
        lead(&flights).publish(Arc::new(answer()));
        lead(&flights);
    }
}
