//! What a delivery holds from receipt to settlement: room in this worker, and the server's patience.
//!
//! Both are given back by one guard, so that no way out of the pipeline, a panic included, keeps them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use inferq_schemas::subjects::{Lane, ModelName};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::hold::reserve::Line;
use crate::hold::rows::{PARTS, Usual};
use crate::hold::shares::{Kind, Shares};
use crate::metrics::Metrics;

mod calls;
mod promise;
mod reserve;
mod rows;
mod shares;

pub use calls::CallRoom;
pub use promise::Promise;

/// For how long what is known of the queues is taken to be true. It is said again long before.
const QUEUES_HOLD: Duration = Duration::from_secs(60);

/// By which way a delivery comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is pulled from the queue of this lane.
    Queue(Lane),
    /// It is a plain request, which comes unasked.
    Call,
}

impl Way {
    fn kind(self) -> Kind {
        match self {
            Way::Queue(_) => Kind::Queue,
            Way::Call => Kind::Call,
        }
    }
}

/// How much a worker takes in before it settles something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomLimits {
    /// Most rows held; `hold/rows.rs` says how those of a delivery are counted.
    pub rows: usize,
    /// Most bytes of bodies held.
    pub bytes: usize,
}

/// Room for deliveries, shared by models and ways in, and the acknowledgement subjects of what is inside.
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
    /// Where its contents are told, if anywhere.
    metrics: Option<Metrics>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    /// While a suspect is here nothing else comes in.
    shut: bool,
    jobs: usize,
    /// Those of all jobs together, and of calls alone.
    places: usize,
    call_places: usize,
    bytes: usize,
    /// What pulls under way may bring.
    promised_places: usize,
    promised_bytes: usize,
    shares: Shares,
    usual: Usual,
    leases: HashMap<u64, Lease>,
    line: Line,
}

impl Held {
    fn take(&mut self, model: &ModelName, way: Way, places: usize) {
        self.places += places;
        if way == Way::Call {
            self.call_places += places;
        }
        self.shares.take(model, way.kind(), places);
    }

    fn give_back(&mut self, model: &ModelName, way: Way, places: usize) {
        self.places -= places;
        if way == Way::Call {
            self.call_places -= places;
        }
        self.shares.give_back(model, way.kind(), places);
    }
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
    /// An empty room, whose contents `metrics` tell.
    pub fn new(limits: RoomLimits, metrics: Metrics) -> Self {
        Self::counted(limits, Some(metrics))
    }

    /// An empty room beside that of the worker: nobody is told of its contents.
    pub fn aside(limits: RoomLimits) -> Self {
        Self::counted(limits, None)
    }

    fn counted(limits: RoomLimits, metrics: Option<Metrics>) -> Self {
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

    /// Rows it can take now beside those that pulls may bring; none while it is shut.
    pub fn free_rows(&self) -> usize {
        self.shared.free_rows(&self.shared.lock())
    }

    /// The part of them that pulls may ask for. Calls come unasked, so that a part of the room is theirs.
    pub fn free_for_queues(&self) -> usize {
        let held = self.shared.lock();
        let for_calls = (self.shared.limits.rows / PARTS).saturating_sub(held.call_places);
        self.shared.free_rows(&held).saturating_sub(for_calls)
    }

    /// Places that the next delivery from this queue is likely to take.
    pub fn usual_places(&self, model: &ModelName, lane: Lane) -> usize {
        let usual = &self.shared.lock().usual;
        usual.places(model, Way::Queue(lane), self.shared.limits.rows)
    }

    /// Deliveries it holds.
    pub fn held_jobs(&self) -> usize {
        self.shared.lock().jobs
    }

    /// Takes nothing in until it is opened again. What is inside stays, and what has arrived may enter.
    pub fn shut(&self) {
        self.shared.lock().shut = true;
    }

    /// Whether it takes nothing in now.
    pub fn is_shut(&self) -> bool {
        self.shared.lock().shut
    }

    /// Takes in what there is room for.
    pub fn open(&self) {
        self.shared.lock().shut = false;
    }

    /// Bytes it can take now; those that pulls may bring, or a body by reference waits for, are taken.
    pub fn free_bytes(&self) -> usize {
        self.shared.free_bytes(&self.shared.lock())
    }

    /// The models that have more in their queues. Others have not, as far as is known.
    pub fn queues_hold<'a>(&self, models: impl Iterator<Item = &'a ModelName>) {
        let now = Instant::now();
        let mut held = self.shared.lock();
        held.shares.forget_queues(now);
        for model in models {
            held.shares.wants(model, Kind::Queue, now + QUEUES_HOLD);
        }
    }

    /// Places that pulls for `model` may still take of its share, whether they are free or not.
    pub fn open_to_queue(&self, model: &ModelName) -> usize {
        let (total, now) = (self.shared.limits.rows, Instant::now());
        let held = self.shared.lock();
        held.shares.open(total, model, Kind::Queue, now).places
    }

    /// Takes a delivery in, full or not: what has arrived must be held. `renewal` is there if it can
    /// be redelivered.
    pub fn enter(
        &self,
        model: &ModelName,
        way: Way,
        bytes: usize,
        renewal: Option<Renewal>,
    ) -> Hold {
        self.admit(self.shared.lock(), (model, way), bytes, renewal)
    }

    fn admit(
        &self,
        mut held: MutexGuard<'_, Held>,
        (model, way): (&ModelName, Way),
        bytes: usize,
        renewal: Option<Renewal>,
    ) -> Hold {
        held.next += 1;
        let id = held.next;
        let places = held.usual.places(model, way, self.shared.limits.rows);
        held.jobs += 1;
        held.take(model, way, places);
        held.bytes += bytes;
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
            way,
            places,
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
    fn free_rows(&self, held: &Held) -> usize {
        if held.shut {
            return 0;
        }
        let taken = held.places + held.promised_places;
        self.limits.rows.saturating_sub(taken)
    }

    fn free_bytes(&self, held: &Held) -> usize {
        let taken = held.bytes + held.promised_bytes;
        let taken = taken.saturating_add(held.line.bytes());
        self.limits.bytes.saturating_sub(taken)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Counters stay consistent: no code that holds the lock can panic between two of them.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, held: &Held) {
        if let Some(metrics) = &self.metrics {
            metrics.in_flight(held.jobs, held.bytes);
        }
    }
}

/// One delivery's share of the room.
pub struct Hold {
    room: Arc<Shared>,
    id: u64,
    model: ModelName,
    way: Way,
    places: usize,
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
        held.give_back(&self.model, self.way, self.places);
        held.bytes -= self.bytes;
        held.leases.remove(&self.id);
        self.room.report(&held);
        drop(held);
        self.room.changed.notify_one();
        self.room.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn room() -> Room {
        testing::room(2, 100)
    }

    fn model() -> ModelName {
        testing::model("digits")
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
        let open = || room.open_to_queue(&model());
        let hold = room.enter(&model(), Way::Queue(Lane::Normal), 60, Some(renewal()));
        assert_eq!((room.free_rows(), room.free_bytes(), open()), (1, 40, 1));
        drop(hold);
        assert_eq!((room.free_rows(), room.free_bytes(), open()), (2, 100, 2));
        assert!(room.unsettled().is_empty());
        room.changed().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_overfull_room_has_no_room() {
        let room = room();
        let _holds: Vec<Hold> = (0..3)
            .map(|_| room.enter(&model(), Way::Queue(Lane::Normal), 60, None))
            .collect();
        assert_eq!((room.free_rows(), room.free_bytes()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shut_room_keeps_what_it_holds_and_offers_nothing() {
        let room = room();
        let _hold = room.enter(&model(), Way::Queue(Lane::Normal), 60, None);
        room.shut();
        assert_eq!((room.free_rows(), room.held_jobs()), (0, 1));
        room.open();
        assert_eq!(room.free_rows(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn progress_is_due_once_per_interval() {
        let room = room();
        let _hold = room.enter(&model(), Way::Queue(Lane::Normal), 1, Some(renewal()));
        assert!(room.due_for_progress().is_empty());
        tokio::time::advance(renewal().every).await;
        assert_eq!(room.due_for_progress(), ["ack"]);
        assert!(room.due_for_progress().is_empty());
    }
}
