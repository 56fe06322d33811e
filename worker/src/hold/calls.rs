//! Room for calls, which come unasked: each is taken in or turned away as it comes.

use std::time::Duration;

use inferq_schemas::subjects::ModelName;
use tokio::time::Instant;

use super::{Held, Hold, Room, Shared, Way};
use crate::hold::shares::{Kind, Open};

/// For how long a call that found no room stands for others that would find none.
const CALLS_WAIT: Duration = Duration::from_secs(1);

/// What there is for calls of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallRoom {
    /// One more may come in.
    pub is_open: bool,
    /// Less than half of what they may have is taken.
    pub below_half: bool,
}

impl Room {
    /// What there is for calls of `model`.
    pub fn for_calls(&self, model: &ModelName) -> CallRoom {
        let held = self.shared.lock();
        let open = self.shared.open_to_calls(&held, model);
        CallRoom {
            is_open: open.places > 0 && self.shared.free_bytes(&held) > 0,
            below_half: open.places * 2 > open.of
                && held.bytes < self.shared.limits.bytes.div_ceil(2),
        }
    }

    /// Takes in a call of `model`, if it has room. If not, pulls make some for those to come.
    pub fn try_call(&self, model: &ModelName, bytes: usize) -> Option<Hold> {
        let mut held = self.shared.lock();
        let open = self.shared.open_to_calls(&held, model);
        if open.places == 0 || bytes > self.shared.free_bytes(&held) {
            held.calls_wait(model);
            return None;
        }
        Some(self.admit(held, (model, Way::Call), bytes, None))
    }

    /// Calls of `model` are not even heard for want of room: pulls make some.
    pub fn calls_wait(&self, model: &ModelName) {
        self.shared.lock().calls_wait(model);
    }
}

impl Shared {
    /// Places that calls of `model` may take now.
    fn open_to_calls(&self, held: &Held, model: &ModelName) -> Open {
        let (total, now) = (self.limits.rows, Instant::now());
        let open = held.shares.open(total, model, Kind::Call, now);
        Open {
            places: open.places.min(self.free_rows(held)),
            ..open
        }
    }
}

impl Held {
    fn calls_wait(&mut self, model: &ModelName) {
        let until = Instant::now() + CALLS_WAIT;
        self.shares.wants(model, Kind::Call, until);
    }
}

#[cfg(test)]
mod tests {
    use inferq_schemas::subjects::Lane;

    use super::*;
    use crate::testing;

    fn room() -> Room {
        testing::room(2, 100)
    }

    fn model() -> ModelName {
        testing::model("digits")
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_finds_no_room_makes_pulls_leave_it_half() {
        let room = room();
        let first = room.enter(&model(), Way::Queue(Lane::Normal), 1, None);
        let _second = room.enter(&model(), Way::Queue(Lane::Normal), 1, None);
        assert!(room.try_call(&model(), 1).is_none());
        drop(first);
        assert_eq!(room.open_to_queue(&model()), 0);
        let call = room.try_call(&model(), 1).expect("its half is free");
        assert_eq!(
            room.for_calls(&model()),
            CallRoom {
                is_open: false,
                below_half: false
            }
        );
        drop(call);
        assert!(room.for_calls(&model()).below_half);
        tokio::time::advance(CALLS_WAIT).await;
        assert_eq!(room.open_to_queue(&model()), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_too_large_for_the_free_bytes_is_turned_away() {
        let room = room();
        let _hold = room.enter(&model(), Way::Queue(Lane::Normal), 60, None);
        assert!(room.try_call(&model(), 41).is_none());
        assert!(room.try_call(&model(), 40).is_some());
    }
}
