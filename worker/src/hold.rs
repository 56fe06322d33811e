//! What a delivery holds from receipt to settlement: room in this worker, and the server's patience.
//!
//! Both are given back by one guard, so that no way out of the pipeline, a panic included, keeps them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use inferq_schemas::subjects::ModelName;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::hold::reserve::Line;
use crate::metrics::Metrics;

mod reserve;

/// How much a worker takes in before it settles something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomLimits {
    /// Most deliveries held.
    pub jobs: usize,
    /// Most bytes of bodies held.
    pub bytes: usize,
}

/// Room for deliveries, counted per model, and the acknowledgement subjects of what is inside.
#[derive(Clone)]
pub struct Room {
    shared: Arc<Shared>,
}

struct Shared {
    limits: RoomLimits,
    held: Mutex<Held>,
    changed: Notify,
    /// Wakes those who wait for room for a body by reference.
    freed: Notify,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    /// While a suspect is here nothing else comes in.
    shut: bool,
    jobs: usize,
    bytes: usize,
    by_model: HashMap<ModelName, usize>,
    leases: HashMap<u64, Lease>,
    line: Line,
}

#[derive(Debug)]
struct Lease {
    renewal: Renewal,
    renewed: Instant,
}

/// How a delivery that can come again is kept from doing so.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// Where its progress acknowledgements go.
    pub ack: String,
    /// How often they do: a third of its consumer's ack_wait, so that two of them may be lost.
    pub every: Duration,
}

impl Room {
    /// An empty room.
    pub fn new(limits: RoomLimits, metrics: Metrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                limits,
                held: Mutex::default(),
                changed: Notify::new(),
                freed: Notify::new(),
                metrics,
            }),
        }
    }

    /// The limits it was made with.
    pub fn limits(&self) -> RoomLimits {
        self.shared.limits
    }

    /// Deliveries it can take now; none while it is shut.
    pub fn free_jobs(&self) -> usize {
        let held = self.shared.lock();
        if held.shut {
            return 0;
        }
        self.shared.limits.jobs.saturating_sub(held.jobs)
    }

    /// Deliveries it holds.
    pub fn held_jobs(&self) -> usize {
        self.shared.lock().jobs
    }

    /// Takes nothing in until it is opened again. What is inside stays, and what has arrived may enter.
    pub fn shut(&self) {
        self.shared.lock().shut = true;
    }

    /// Takes in what there is room for.
    pub fn open(&self) {
        self.shared.lock().shut = false;
    }

    /// Bytes it can take now; those that a body by reference waits for are taken.
    pub fn free_bytes(&self) -> usize {
        let held = self.shared.lock();
        let taken = held.bytes.saturating_add(held.line.bytes());
        self.shared.limits.bytes.saturating_sub(taken)
    }

    /// Deliveries held for `model`.
    pub fn held_for(&self, model: &ModelName) -> usize {
        self.shared.lock().by_model.get(model).copied().unwrap_or(0)
    }

    /// Takes a delivery in, full or not: what has arrived must be held. `renewal` is there if it can
    /// be redelivered.
    pub fn enter(&self, model: &ModelName, bytes: usize, renewal: Option<Renewal>) -> Hold {
        let mut held = self.shared.lock();
        held.next += 1;
        let id = held.next;
        held.jobs += 1;
        held.bytes += bytes;
        *held.by_model.entry(model.clone()).or_insert(0) += 1;
        if let Some(renewal) = renewal {
            let renewed = Instant::now();
            held.leases.insert(id, Lease { renewal, renewed });
        }
        self.shared.report(&held);
        drop(held);
        Hold {
            room: self.shared.clone(),
            id,
            model: model.clone(),
            bytes,
        }
    }

    /// Waits until something was given back since the last call.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// The acknowledgement subjects whose renewal is due; they count as renewed now.
    pub fn due_for_progress(&self) -> Vec<String> {
        let now = Instant::now();
        let mut held = self.shared.lock();
        let due = held
            .leases
            .values_mut()
            .filter(|lease| now.duration_since(lease.renewed) >= lease.renewal.every);
        due.map(|lease| {
            lease.renewed = now;
            lease.renewal.ack.clone()
        })
        .collect()
    }

    /// The acknowledgement subjects of everything still held.
    pub fn unsettled(&self) -> Vec<String> {
        self.shared
            .lock()
            .leases
            .values()
            .map(|lease| lease.renewal.ack.clone())
            .collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Held> {
        // Counters stay consistent: no code that holds the lock can panic between two of them.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, held: &Held) {
        self.metrics.in_flight(held.jobs, held.bytes);
    }
}

/// One delivery's share of the room.
pub struct Hold {
    room: Arc<Shared>,
    id: u64,
    model: ModelName,
    bytes: usize,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold")
            .field("id", &self.id)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.room.lock();
        held.jobs -= 1;
        held.bytes -= self.bytes;
        held.leases.remove(&self.id);
        if let Some(count) = held.by_model.get_mut(&self.model) {
            *count -= 1;
            if *count == 0 {
                held.by_model.remove(&self.model);
            }
        }
        self.room.report(&held);
        drop(held);
        self.room.changed.notify_one();
        self.room.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> Room {
        Room::new(
            RoomLimits {
                jobs: 2,
                bytes: 100,
            },
            Metrics::new(),
        )
    }

    fn model() -> ModelName {
        ModelName::new("digits").expect("a valid name")
    }

    fn renewal() -> Renewal {
        Renewal {
            ack: "ack".into(),
            every: Duration::from_secs(10),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_hold_gives_back_all_it_took() {
        let room = room();
        let hold = room.enter(&model(), 60, Some(renewal()));
        assert_eq!(
            (room.free_jobs(), room.free_bytes(), room.held_for(&model())),
            (1, 40, 1)
        );
        drop(hold);
        assert_eq!(
            (room.free_jobs(), room.free_bytes(), room.held_for(&model())),
            (2, 100, 0)
        );
        assert!(room.unsettled().is_empty());
        room.changed().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_overfull_room_has_no_room() {
        let room = room();
        let _holds: Vec<Hold> = (0..3).map(|_| room.enter(&model(), 60, None)).collect();
        assert_eq!((room.free_jobs(), room.free_bytes()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shut_room_keeps_what_it_holds_and_offers_nothing() {
        let room = room();
        let _hold = room.enter(&model(), 60, None);
        room.shut();
        assert_eq!((room.free_jobs(), room.held_jobs()), (0, 1));
        room.open();
        assert_eq!(room.free_jobs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn progress_is_due_once_per_interval() {
        let room = room();
        let _hold = room.enter(&model(), 1, Some(renewal()));
        assert!(room.due_for_progress().is_empty());
        tokio::time::advance(renewal().every).await;
        assert_eq!(room.due_for_progress(), ["ack"]);
        assert!(room.due_for_progress().is_empty());
    }
}
