//! When to stop asking a card that fails again and again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Failures within [`WINDOW`] after which the card is left alone.
const FAILURES: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// How long it is left alone.
const PAUSE: Duration = Duration::from_secs(60);

/// Failures of one card. A state of its own time, so that a test needs no clock.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    recent: VecDeque<Instant>,
    all: u64,
}

impl Breaker {
    pub(super) fn failed(&mut self, now: Instant) {
        self.all += 1;
        self.recent.push_back(now);
        if self.recent.len() > FAILURES {
            self.recent.pop_front();
        }
    }

    /// One that took so long, or was so final, that nobody should wait for another.
    pub(super) fn failed_badly(&mut self, now: Instant) {
        self.all += 1;
        self.recent.clear();
        self.recent.extend([now; FAILURES]);
    }

    /// Too many failures too close together, the last of them not long ago.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        let (Some(first), Some(last)) = (self.recent.front(), self.recent.back()) else {
            return false;
        };
        self.recent.len() == FAILURES
            && last.duration_since(*first) <= WINDOW
            && now.saturating_duration_since(*last) < PAUSE
    }

    pub(super) fn failures(&self) -> u64 {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_minute_end_in_a_pause_of_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut breaker = Breaker::default();
        for seconds in [0, 50, 70] {
            breaker.failed(at(seconds));
            assert!(!breaker.is_open(at(seconds)));
        }
        // The one at 0 is forgotten: 50, 70 and 100 lie within a minute.
        breaker.failed(at(100));
        assert!(breaker.is_open(at(100)) && breaker.is_open(at(159)));
        assert!(!breaker.is_open(at(160)));
        // The card is asked again, and one more failure is enough.
        breaker.failed(at(105));
        assert!(breaker.is_open(at(106)));
        assert_eq!(breaker.failures(), 5);
        let mut stuck = Breaker::default();
        stuck.failed_badly(at(0));
        assert!(stuck.is_open(at(1)) && !stuck.is_open(at(60)));
    }
}
