//! Workers that ask to be started again: those with threads in forward passes that do not return exit 70,
//! and a new process has all its threads.
//!
//! Each is started again after a pause that doubles. One that is worn out again and again runs a model
//! that is never going to return, and somebody has to look at it.

use std::collections::{HashMap, VecDeque};
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::Instant;

/// How a worker says that it is worn out: `EX_SOFTWARE` of sysexits.h, see `worker/src/main.rs`.
const WORN_OUT: i32 = 70;
/// Starts of one worker within [`WITHIN`], and the next time it is not started again. With a run timeout of
/// a minute, the usual one, no worker gets there.
const MOST: usize = 10;
const WITHIN: Duration = Duration::from_secs(600);
/// Pause before the first start within that time; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Whether a worker that ended so asks to be started again.
pub(super) fn is_worn_out(status: ExitStatus) -> bool {
    status.code() == Some(WORN_OUT)
}

/// When workers are started again, by their index.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    ended: HashMap<usize, VecDeque<Instant>>,
    due: Vec<(Instant, usize)>,
}

/// A worker was worn out too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "forward passes did not return {times} times within {}; see which model that is in the lines above, and look at \
     it, raise limits.run_timeout in its model.toml, or call its jobs off with `inferq cancel` or `inferq queue purge`",
    humantime::format_duration(WITHIN)
)]
pub(super) struct TooOften {
    times: usize,
}

impl Restarts {
    /// A worker was worn out at `now`; returns the pause before its next start.
    ///
    /// # Errors
    /// [`TooOften`], instead of a start.
    pub(super) fn worn_out(&mut self, index: usize, now: Instant) -> Result<Duration, TooOften> {
        let ended = self.ended.entry(index).or_default();
        ended.retain(|before| now.duration_since(*before) < WITHIN);
        if ended.len() == MOST {
            return Err(TooOften { times: MOST + 1 });
        }
        let doubled = u32::try_from(ended.len()).unwrap_or(u32::MAX);
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(doubled));
        let pause = pause.min(LONGEST_PAUSE);
        ended.push_back(now);
        self.due.push((now + pause, index));
        Ok(pause)
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
        assert_eq!(restarts.worn_out(3, start), Ok(FIRST_PAUSE));
        assert!(restarts.due(start).is_empty());
        assert_eq!(restarts.pending(), 1);
        assert_eq!(restarts.due(start + FIRST_PAUSE), [3]);
        assert!(restarts.due(start + WITHIN).is_empty());
        let later = start + Duration::from_secs(60);
        assert_eq!(restarts.worn_out(3, later), Ok(FIRST_PAUSE * 2));
        assert_eq!(restarts.worn_out(0, later), Ok(FIRST_PAUSE), "another one");
        let both = restarts.due(later + FIRST_PAUSE * 2);
        assert_eq!((both, restarts.pending()), (vec![3, 0], 0));
    }

    #[test]
    fn one_that_is_worn_out_again_and_again_is_not_started_any_more() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        let mut longest = Duration::ZERO;
        for second in 0..MOST as u64 {
            let pause = restarts.worn_out(0, start + Duration::from_secs(second));
            longest = longest.max(pause.expect("not yet too often"));
        }
        assert_eq!(longest, LONGEST_PAUSE);
        let once_more = restarts.worn_out(0, start + Duration::from_secs(30));
        let error = once_more.expect_err("too often").to_string();
        assert!(error.contains("11 times within 10m"), "{error}");
        assert!(restarts.worn_out(1, start).is_ok(), "another one");
    }

    #[test]
    fn what_is_long_ago_does_not_count() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        for minute in 0..100 {
            let at = start + Duration::from_secs(62 * minute);
            assert!(restarts.worn_out(0, at).is_ok(), "{minute}");
        }
    }
}
