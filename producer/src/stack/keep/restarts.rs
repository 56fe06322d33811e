//! When workers that ended are started again, and which are not.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// Starts of one worker within [`WITHIN`], and the next time it is not started again. A job that ends its process
/// comes again after 30 s and is given up after 8 deliveries, so two of them, alone or one after the other, do not
/// get there; a worker that ends as soon as it starts does, in about that time.
pub(super) const MOST: usize = 50;
pub(super) const WITHIN: Duration = Duration::from_secs(600);
/// Pause before the first start within that time; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The workers that wait for their next start, by their index.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    ended: HashMap<usize, VecDeque<Instant>>,
    due: Vec<(Instant, usize)>,
}

impl Restarts {
    /// A worker ended at `now`; returns the pause before its next start, or `None` if that was once too often.
    pub(super) fn ended(&mut self, index: usize, now: Instant) -> Option<Duration> {
        let ended = self.ended.entry(index).or_default();
        ended.retain(|before| now.duration_since(*before) < WITHIN);
        if ended.len() == MOST {
            return None;
        }
        let doubled = u32::try_from(ended.len()).unwrap_or(u32::MAX);
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(doubled));
        let pause = pause.min(LONGEST_PAUSE);
        ended.push_back(now);
        self.due.push((now + pause, index));
        Some(pause)
    }

    /// Workers whose pause is over at `now`; each is told once.
    pub(super) fn due(&mut self, now: Instant) -> Vec<usize> {
        let (due, later) = self.due.iter().partition(|(at, _)| *at <= now);
        self.due = later;
        let due: Vec<(Instant, usize)> = due;
        due.into_iter().map(|(_, index)| index).collect()
    }

    /// Workers that are in their pause.
    pub(super) fn pending(&self) -> usize {
        self.due.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_and_a_worker_is_started_once_after_it() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        assert_eq!(restarts.ended(3, start), Some(FIRST_PAUSE));
        assert!(restarts.due(start).is_empty());
        assert_eq!(restarts.pending(), 1);
        assert_eq!(restarts.due(start + FIRST_PAUSE), [3]);
        assert!(restarts.due(start + WITHIN).is_empty());
        let later = start + Duration::from_secs(60);
        assert_eq!(restarts.ended(3, later), Some(FIRST_PAUSE * 2));
        assert_eq!(restarts.ended(0, later), Some(FIRST_PAUSE), "another one");
        let both = restarts.due(later + FIRST_PAUSE * 2);
        assert_eq!((both, restarts.pending()), (vec![3, 0], 0));
    }

    #[test]
    fn one_that_ends_again_and_again_is_not_started_any_more() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        let mut longest = Duration::ZERO;
        for second in 0..MOST as u64 {
            let pause = restarts.ended(0, start + Duration::from_secs(second));
            longest = longest.max(pause.expect("not yet too often"));
        }
        assert_eq!(longest, LONGEST_PAUSE);
        let once_more = restarts.ended(0, start + Duration::from_secs(60));
        assert_eq!(once_more, None);
        assert!(restarts.ended(1, start).is_some(), "another one");
    }

    #[test]
    fn what_is_long_ago_does_not_count() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        for number in 0..100 {
            let at = start + Duration::from_secs(13 * number);
            assert!(restarts.ended(0, at).is_some(), "{number}");
        }
    }
}
