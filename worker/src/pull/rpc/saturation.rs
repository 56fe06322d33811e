//! When a door leaves its queue group for want of room, and when it comes back.
//!
//! A request that is turned away is the first sign. From then on the door looks at the room every
//! [`LOOK`]: it has none if a request was turned away since the last look, or would be now. After [`LEAVE`]
//! of that it leaves, and comes back once less than half of its room is taken.

use tokio::time::{Duration, Instant, sleep_until};

use crate::hold::CallRoom;

/// Without room for so long, the group is left.
const LEAVE: Duration = Duration::from_secs(1);
/// How often the room is looked at, by those doors alone that found none. A place that is free for less
/// has been taken by the next request.
const LOOK: Duration = Duration::from_millis(100);

/// Where one door stands.
#[derive(Debug)]
pub(super) struct Saturation {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is room, as far as is known.
    Open,
    /// There has been none since then.
    Pressed {
        since: Instant,
        next_look: Instant,
        turned_away: bool,
    },
    /// The group is left.
    Away { next_look: Instant },
}

/// What a door does after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    Stay,
    Leave,
    Return,
}

impl Saturation {
    pub(super) fn new() -> Self {
        Self { state: State::Open }
    }

    pub(super) fn is_away(&self) -> bool {
        matches!(self.state, State::Away { .. })
    }

    /// A request found no room.
    pub(super) fn turned_away(&mut self) {
        match &mut self.state {
            State::Open => {
                let now = Instant::now();
                self.state = State::Pressed {
                    since: now,
                    next_look: now + LOOK,
                    turned_away: true,
                };
            }
            State::Pressed { turned_away, .. } => *turned_away = true,
            State::Away { .. } => {}
        }
    }

    /// Waits until the room is to be looked at; for ever while there is some.
    pub(super) async fn next_look(&self) {
        match self.state {
            State::Open => std::future::pending().await,
            State::Pressed { next_look, .. } | State::Away { next_look } => {
                sleep_until(next_look).await;
            }
        }
    }

    /// Takes note of the room as it is.
    pub(super) fn look(&mut self, room: CallRoom) -> Move {
        let now = Instant::now();
        let next_look = now + LOOK;
        let (state, step) = match self.state {
            State::Open => (State::Open, Move::Stay),
            State::Pressed {
                since, turned_away, ..
            } => {
                if room.is_open && !turned_away {
                    (State::Open, Move::Stay)
                } else if now.duration_since(since) >= LEAVE {
                    (State::Away { next_look }, Move::Leave)
                } else {
                    let pressed = State::Pressed {
                        since,
                        next_look,
                        turned_away: false,
                    };
                    (pressed, Move::Stay)
                }
            }
            State::Away { .. } if room.is_open && room.below_half => (State::Open, Move::Return),
            State::Away { .. } => (State::Away { next_look }, Move::Stay),
        };
        self.state = state;
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: CallRoom = CallRoom {
        is_open: false,
        below_half: false,
    };
    const SOME: CallRoom = CallRoom {
        is_open: true,
        below_half: false,
    };
    const HALF: CallRoom = CallRoom {
        is_open: true,
        below_half: true,
    };

    /// Looks until the door moves; what it did, and after how long.
    async fn moved(saturation: &mut Saturation, room: CallRoom) -> (Move, Duration) {
        let begun = Instant::now();
        loop {
            saturation.next_look().await;
            let step = saturation.look(room);
            if step != Move::Stay {
                return (step, begun.elapsed());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_door_without_room_for_a_second_leaves() {
        let mut saturation = Saturation::new();
        saturation.turned_away();
        let (step, after) = moved(&mut saturation, NONE).await;
        assert_eq!((step, after.as_millis()), (Move::Leave, 1000));
        assert!(saturation.is_away());
    }

    #[tokio::test(start_paused = true)]
    async fn a_door_that_turned_nobody_away_never_looks() {
        let saturation = Saturation::new();
        let looked = tokio::time::timeout(Duration::from_secs(3600), saturation.next_look());
        assert!(looked.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn room_for_a_moment_is_room() {
        let mut saturation = Saturation::new();
        saturation.turned_away();
        for room in [NONE, NONE, NONE, NONE, SOME] {
            saturation.next_look().await;
            assert_eq!(saturation.look(room), Move::Stay);
        }
        saturation.turned_away();
        let (step, after) = moved(&mut saturation, NONE).await;
        assert_eq!((step, after.as_millis()), (Move::Leave, 1000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_the_next_request_takes_is_none() {
        let mut saturation = Saturation::new();
        for _ in 0..9 {
            saturation.turned_away();
            saturation.next_look().await;
            assert_eq!(saturation.look(SOME), Move::Stay);
        }
        saturation.turned_away();
        saturation.next_look().await;
        assert_eq!(saturation.look(SOME), Move::Leave);
    }

    #[tokio::test(start_paused = true)]
    async fn a_door_comes_back_when_less_than_half_of_its_room_is_taken() {
        let mut saturation = Saturation::new();
        saturation.turned_away();
        moved(&mut saturation, NONE).await;
        for room in [NONE, SOME, SOME] {
            saturation.next_look().await;
            assert_eq!(saturation.look(room), Move::Stay);
        }
        let (step, after) = moved(&mut saturation, HALF).await;
        assert_eq!((step, after.as_millis()), (Move::Return, 100));
        assert!(!saturation.is_away());
    }
}
