//! Room for what pulls under way may bring: taken before a pull goes out, handed over message by
//! message, and given back with what is left of it.

use std::sync::Arc;

use inferq_schemas::subjects::{Lane, ModelName};

use super::{Room, Shared, Way};
use crate::hold::shares::Kind;

/// So many of the largest messages a room has to hold before one of them is kept for calls.
const ENOUGH_FOR_CALLS: usize = 4;

impl Room {
    /// Takes places for so many messages of a queue, and `bytes` for them all; `None` if those are not free.
    ///
    /// An empty room promises any number of bytes: whatever its limit, one message at a time gets in.
    pub fn promise(
        &self,
        model: &ModelName,
        lane: Lane,
        messages: usize,
        bytes: usize,
    ) -> Option<Promise> {
        let mut held = self.shared.lock();
        let is_empty = held.jobs == 0 && held.promised_bytes == 0 && held.line.bytes() == 0;
        if bytes > self.shared.free_bytes(&held) && !is_empty {
            return None;
        }
        let each = (held.usual).places(model, Way::Queue(lane), self.shared.limits.rows);
        let places = messages * each;
        held.promised_places += places;
        held.promised_bytes += bytes;
        held.shares.take(model, Kind::Queue, places);
        Some(Promise {
            room: self.shared.clone(),
            model: model.clone(),
            each,
            places,
            bytes,
        })
    }

    /// How many messages of up to `message` bytes pulls may bring at once. Room for one more is left for
    /// calls, unless the room is small.
    pub fn free_messages(&self, message: usize) -> usize {
        let held = self.shared.lock();
        let free = self.shared.free_bytes(&held);
        let for_calls = if self.shared.limits.bytes / ENOUGH_FOR_CALLS < message {
            0
        } else {
            message
        };
        let messages = free.saturating_sub(for_calls) / message.max(1);
        let is_empty = held.jobs == 0 && held.promised_bytes == 0;
        messages.max(usize::from(is_empty))
    }
}

/// What one pull may bring.
pub struct Promise {
    room: Arc<Shared>,
    model: ModelName,
    /// Places for one message, and for all that have not come.
    each: usize,
    places: usize,
    bytes: usize,
}

impl Promise {
    /// A message of `bytes` has come and been taken in.
    pub fn fulfil(&mut self, bytes: usize) {
        self.give_back(self.places.min(self.each), self.bytes.min(bytes));
    }

    fn give_back(&mut self, places: usize, bytes: usize) {
        let mut held = self.room.lock();
        held.promised_places -= places;
        held.promised_bytes -= bytes;
        held.shares.give_back(&self.model, Kind::Queue, places);
        drop(held);
        self.places -= places;
        self.bytes -= bytes;
        self.room.freed.notify_waiters();
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.give_back(self.places, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn room() -> Room {
        testing::room(8, 100)
    }

    fn model() -> ModelName {
        testing::model("digits")
    }

    fn enter(room: &Room, bytes: usize) -> crate::hold::Hold {
        room.enter(&model(), Way::Queue(Lane::Low), bytes, None)
    }

    #[tokio::test(start_paused = true)]
    async fn what_pulls_may_bring_is_taken_until_it_has_come_or_they_end() {
        let room = room();
        let mut promise = room
            .promise(&model(), Lane::Low, 3, 60)
            .expect("it is free");
        assert_eq!((room.free_rows(), room.free_bytes()), (5, 40));
        let hold = enter(&room, 20);
        promise.fulfil(20);
        assert_eq!((room.free_rows(), room.free_bytes()), (5, 40));
        drop(promise);
        assert_eq!((room.free_rows(), room.free_bytes()), (7, 80));
        drop(hold);
        assert_eq!((room.free_rows(), room.free_bytes()), (8, 100));
    }

    #[tokio::test(start_paused = true)]
    async fn held_and_promised_bytes_never_exceed_the_limit_together() {
        let room = room();
        let _hold = enter(&room, 30);
        let _first = room
            .promise(&model(), Lane::Low, 0, 60)
            .expect("it is free");
        assert!(room.promise(&model(), Lane::Low, 0, 11).is_none());
        assert!(room.promise(&model(), Lane::Low, 0, 10).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_room_takes_one_message_of_any_size() {
        let room = room();
        assert_eq!(room.free_messages(1000), 1);
        let promise = room
            .promise(&model(), Lane::Low, 1, 1000)
            .expect("it is empty");
        assert_eq!(room.free_messages(1000), 0);
        assert!(room.promise(&model(), Lane::Low, 1, 1).is_none());
        drop(promise);
        let _hold = enter(&room, 1);
        assert_eq!(room.free_messages(1000), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn pulls_leave_room_for_a_call() {
        let room = room();
        assert_eq!(room.free_messages(20), 4);
        let _pulls = room
            .promise(&model(), Lane::Low, 4, 80)
            .expect("it is free");
        assert_eq!(room.free_messages(20), 0);
        assert!(room.try_call(&model(), 20).is_some());
    }
}
