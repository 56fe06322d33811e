//! Room for a body that is fetched after its message has come: waited for in line, and given back
//! with everything else the delivery holds.
//!
//! Bytes that somebody waits for count as taken for intake, so that small bodies cannot keep a large
//! one waiting for ever.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;

use super::{Held, Hold, Shared};

/// Who waits for how many bytes, the longest first.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: VecDeque<(u64, usize)>,
}

impl Line {
    /// Bytes that are waited for.
    pub(super) fn bytes(&self) -> usize {
        let bytes = self.waiting.iter().map(|(_, bytes)| *bytes);
        bytes.fold(0, usize::saturating_add)
    }
}

impl Hold {
    /// The most bytes that can ever be reserved.
    pub fn most_bytes(&self) -> usize {
        self.room.limits.bytes
    }

    /// Waits until there is room for `bytes` more, at most [`Self::most_bytes`], and takes it.
    ///
    /// First come, first served. Dropping the call leaves the line.
    pub async fn reserve(&mut self, bytes: usize) {
        let turn = Turn::take(&self.room, self.id, bytes);
        loop {
            let mut freed = pin!(turn.room.freed.notified());
            // What is freed between the look and the wait must not be missed.
            freed.as_mut().enable();
            if turn.is_granted() {
                self.bytes += bytes;
                return;
            }
            freed.await;
        }
    }
}

/// A place in the line, left on drop.
struct Turn {
    room: Arc<Shared>,
    id: u64,
    bytes: usize,
}

impl Turn {
    fn take(room: &Arc<Shared>, id: u64, bytes: usize) -> Self {
        room.lock().line.waiting.push_back((id, bytes));
        Self {
            room: room.clone(),
            id,
            bytes,
        }
    }

    /// Takes the bytes if it is this one's turn and they are free.
    fn is_granted(&self) -> bool {
        let mut held = self.room.lock();
        let is_first = held.line.waiting.front().map(|(id, _)| *id) == Some(self.id);
        let taken = held.bytes + held.promised_bytes;
        let free = self.room.limits.bytes.saturating_sub(taken);
        if !is_first || self.bytes > free {
            return false;
        }
        held.line.waiting.pop_front();
        held.bytes += self.bytes;
        self.room.report(&held);
        true
    }

    fn leave(&self, held: &mut Held) {
        held.line.waiting.retain(|(id, _)| *id != self.id);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.leave(&mut self.room.lock());
        // The next one may fit where this one did not, or beside it.
        self.room.freed.notify_waiters();
        self.room.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use inferq_schemas::subjects::Lane;

    use crate::hold::{Hold, Room, Way};
    use crate::testing;

    fn room() -> Room {
        testing::room(8, 100)
    }

    fn enter(room: &Room, bytes: usize) -> Hold {
        room.enter(
            &testing::model("digits"),
            Way::Queue(Lane::Normal),
            bytes,
            None,
        )
    }

    /// Whether room for `bytes` is given at once.
    async fn at_once(hold: &mut Hold, bytes: usize) -> bool {
        let wait = Duration::from_millis(1);
        tokio::time::timeout(wait, hold.reserve(bytes))
            .await
            .is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_reservation_is_counted_and_given_back_with_its_hold() {
        let room = room();
        let mut hold = enter(&room, 10);
        assert!(at_once(&mut hold, 60).await);
        assert_eq!(room.free_bytes(), 30);
        drop(hold);
        assert_eq!(room.free_bytes(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reservation_waits_until_there_is_room_and_is_given_in_order() {
        let room = room();
        let (mut first, mut second, mut third) =
            (enter(&room, 0), enter(&room, 0), enter(&room, 0));
        assert!(at_once(&mut first, 70).await);
        let large = tokio::spawn(async move {
            second.reserve(80).await;
            second
        });
        tokio::task::yield_now().await;
        assert_eq!(room.free_bytes(), 0, "intake waits for who is in line");
        assert!(!at_once(&mut third, 20).await, "it would overtake");
        drop(first);
        let second = large.await.expect("it gets its room");
        assert_eq!(room.free_bytes(), 20);
        assert!(at_once(&mut third, 20).await);
        drop(second);
        assert_eq!(room.free_bytes(), 80);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_lets_the_next_one_in() {
        let room = room();
        let (mut first, mut second, mut third) =
            (enter(&room, 0), enter(&room, 0), enter(&room, 0));
        assert!(at_once(&mut first, 70).await);
        let large = tokio::spawn(async move { second.reserve(80).await });
        tokio::task::yield_now().await;
        let small = tokio::spawn(async move {
            third.reserve(30).await;
            third
        });
        tokio::task::yield_now().await;
        large.abort();
        let third = small.await.expect("it gets its room");
        assert_eq!(room.free_bytes(), 0);
        drop((first, third));
        assert_eq!(room.free_bytes(), 100);
    }
}
