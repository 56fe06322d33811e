//! When to leave a failing cache alone: a plain state machine that is told the time.

use std::time::{Duration, Instant};

/// Failures in a row after which the breaker opens.
pub(super) const FAILURES_TO_OPEN: u32 = 5;

/// How long it stays open the first time; doubled each time a probe fails.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between two probes, before jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// A probe that has not reported after this long was lost with its task; another one may go.
const PROBE_LOST: Duration = Duration::from_secs(5);

/// Closed: calls go through. Open: none does. Half open: one does, as a probe.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    pauses: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { since: Instant },
}

/// A change somebody may want to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Calls stop for this long.
    Opened(Duration),
    /// Calls go through again.
    Closed,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self {
            state: State::Closed { failures: 0 },
            pauses: 0,
        }
    }

    /// Whether a call may go out now. A `true` while the breaker is not closed makes that call the probe.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } if now >= until => self.probe(now),
            State::HalfOpen { since } if now.duration_since(since) >= PROBE_LOST => self.probe(now),
            State::Open { .. } | State::HalfOpen { .. } => false,
        }
    }

    /// Whether calls are held back, all but probes.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    fn probe(&mut self, now: Instant) -> bool {
        self.state = State::HalfOpen { since: now };
        true
    }

    /// A call came back well.
    pub(super) fn succeeded(&mut self) -> Option<Change> {
        let was = std::mem::replace(&mut self.state, State::Closed { failures: 0 });
        self.pauses = 0;
        (!matches!(was, State::Closed { .. })).then_some(Change::Closed)
    }

    /// A call failed. `jitter`, from 0 to 1, spreads the probes of many workers over half a pause more.
    pub(super) fn failed(&mut self, now: Instant, jitter: f64) -> Option<Change> {
        match self.state {
            State::Closed { failures } if failures + 1 < FAILURES_TO_OPEN => {
                self.state = State::Closed {
                    failures: failures + 1,
                };
                None
            }
            State::Closed { .. } | State::HalfOpen { .. } => {
                let pause = FIRST_PAUSE
                    .saturating_mul(1 << self.pauses.min(8))
                    .min(LONGEST_PAUSE);
                let pause = pause.mul_f64(1.0 + 0.5 * jitter.clamp(0.0, 1.0));
                self.pauses += 1;
                self.state = State::Open { until: now + pause };
                Some(Change::Opened(pause))
            }
            // A call from before the breaker opened came back late: it says nothing new.
            State::Open { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new();
        for _ in 1..FAILURES_TO_OPEN {
            assert_eq!(breaker.failed(now, 0.0), None);
        }
        assert_eq!(breaker.failed(now, 0.0), Some(Change::Opened(FIRST_PAUSE)));
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_not_after_scattered_ones() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..20 {
            assert_eq!(breaker.failed(now, 0.0), None);
            assert_eq!(breaker.succeeded(), None);
        }
        assert!(breaker.allows(now));
        assert!(!opened(now).allows(now));
    }

    #[test]
    fn after_its_pause_one_call_goes_out_as_a_probe_and_no_second() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert!(!breaker.allows(now + FIRST_PAUSE - Duration::from_millis(1)));
        assert!(breaker.allows(now + FIRST_PAUSE));
        assert!(!breaker.allows(now + FIRST_PAUSE));
    }

    #[test]
    fn a_good_probe_closes_it_and_the_next_pause_is_short_again() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert!(breaker.allows(now + FIRST_PAUSE));
        assert_eq!(breaker.succeeded(), Some(Change::Closed));
        assert!(breaker.allows(now + FIRST_PAUSE));
        for _ in 1..FAILURES_TO_OPEN {
            assert_eq!(breaker.failed(now, 0.0), None);
        }
        assert_eq!(breaker.failed(now, 0.0), Some(Change::Opened(FIRST_PAUSE)));
    }

    #[test]
    fn failing_probes_double_the_pause_up_to_its_limit() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut pause = FIRST_PAUSE;
        for _ in 0..10 {
            now += pause;
            assert!(breaker.allows(now));
            pause = (pause * 2).min(LONGEST_PAUSE);
            assert_eq!(breaker.failed(now, 0.0), Some(Change::Opened(pause)));
        }
        assert_eq!(pause, LONGEST_PAUSE);
    }

    #[test]
    fn jitter_lengthens_a_pause_by_half_at_most() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert!(breaker.allows(now + FIRST_PAUSE));
        assert_eq!(
            breaker.failed(now, 1.0),
            Some(Change::Opened(FIRST_PAUSE * 3))
        );
    }

    #[test]
    fn late_failures_do_not_move_an_open_breaker_and_a_lost_probe_is_replaced() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.failed(now + FIRST_PAUSE / 2, 0.0), None);
        assert!(breaker.allows(now + FIRST_PAUSE));
        assert!(!breaker.allows(now + FIRST_PAUSE + PROBE_LOST - Duration::from_millis(1)));
        assert!(breaker.allows(now + FIRST_PAUSE + PROBE_LOST));
    }
}
