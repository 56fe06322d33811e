//! How long forward passes of a version take, as measured: what a job needs at the least.
//!
//! Runs are kept apart by their rows, in powers of two. What so many rows take is the median of the last
//! `KEPT` runs of their size, so that a single slow run refuses nobody; of a size that was run less
//! often, that of the next smaller one, since more rows take no less. A job is told by this that it cannot
//! be run in time, so it is a lower bound: of its own rows alone, whatever waits before them or beside.
//! Which rows run beside them is another question, and `batch/size.rs` answers it.
//!
//! Nothing is known before `KEPT` runs, nor a moment after the last one: a worker that refuses all jobs of
//! a model would measure no more, and never learn that the machine has become faster again.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Runs of a size that have to be known before it counts, and the most that are remembered.
pub(crate) const KEPT: usize = 16;
/// Sizes told apart: 1, 2 to 3, 4 to 7 rows and so on, the last without an end.
const SIZES: usize = 17;
/// How long after the last run its time holds, beside [`RUNS`] times that time.
const HOLDS: Duration = Duration::from_secs(1);
const RUNS: u32 = 4;

/// Run times of one version.
#[derive(Default)]
pub struct Pace {
    sizes: Mutex<[Size; SIZES]>,
}

#[derive(Default)]
struct Size {
    /// In the order of their end, the next overwrites the oldest.
    times: Vec<Duration>,
    next: usize,
    /// Their median, and until when it holds.
    median: Option<(Duration, Instant)>,
}

impl Pace {
    /// A forward pass of `rows` rows that ended at `now` took this long.
    pub fn record(&self, rows: usize, took: Duration, now: Instant) {
        let mut sizes = self.lock();
        let size = &mut sizes[size_of(rows)];
        if size.times.len() < KEPT {
            size.times.push(took);
        } else {
            size.times[size.next] = took;
            size.next = (size.next + 1) % KEPT;
        }
        if size.times.len() == KEPT {
            let mut sorted = size.times.clone();
            sorted.sort_unstable();
            let median = sorted[KEPT / 2];
            size.median = Some((median, now + HOLDS + median * RUNS));
        }
    }

    /// What a forward pass of `rows` rows takes at the least, if that is known at `now`.
    pub fn least(&self, rows: usize, now: Instant) -> Option<Duration> {
        let sizes = self.lock();
        let known = |size: &Size| size.median.filter(|(_, until)| now < *until);
        let known = sizes[..=size_of(rows)].iter().rev().find_map(known);
        known.map(|(median, _)| median)
    }

    fn lock(&self) -> MutexGuard<'_, [Size; SIZES]> {
        // Times of a record that panicked half-way are still times.
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let medians = self.lock().each_ref().map(|size| size.median);
        f.debug_struct("Pace").field("medians", &medians).finish()
    }
}

fn size_of(rows: usize) -> usize {
    (rows.max(1).ilog2() as usize).min(SIZES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn measured(runs: &[(usize, u64)]) -> (Pace, Instant) {
        let (pace, now) = (Pace::default(), Instant::now());
        for (rows, took) in runs {
            pace.record(*rows, ms(*took), now);
        }
        (pace, now)
    }

    #[test]
    fn nothing_is_known_before_there_are_enough_runs() {
        let (pace, now) = measured(&[(1, 50); KEPT - 1]);
        assert_eq!(pace.least(1, now), None);
        pace.record(1, ms(50), now);
        assert_eq!(pace.least(1, now), Some(ms(50)));
    }

    #[test]
    fn a_single_slow_run_changes_nothing() {
        let (pace, now) = measured(&[(1, 5); KEPT]);
        pace.record(1, ms(5_000), now);
        assert_eq!(pace.least(1, now), Some(ms(5)));
    }

    #[test]
    fn a_machine_that_has_become_slower_is_noticed() {
        let (pace, now) = measured(&[(1, 5); KEPT]);
        for _ in 0..KEPT {
            pace.record(1, ms(20), now);
        }
        assert_eq!(pace.least(1, now), Some(ms(20)));
    }

    #[test]
    fn more_rows_take_what_the_next_smaller_size_takes_and_fewer_are_unknown() {
        let (pace, now) = measured(&[(8, 40); KEPT]);
        assert_eq!(pace.least(15, now), Some(ms(40)));
        assert_eq!(pace.least(100_000_000, now), Some(ms(40)));
        assert_eq!(pace.least(7, now), None);
    }

    #[test]
    fn what_was_measured_holds_for_a_moment() {
        let (pace, now) = measured(&[(1, 100); KEPT]);
        let later = now + HOLDS + ms(100) * RUNS;
        assert_eq!(pace.least(1, later - ms(1)), Some(ms(100)));
        assert_eq!(pace.least(1, later), None);
        pace.record(1, ms(10), later);
        assert_eq!(pace.least(1, later), Some(ms(100)), "most runs took that");
    }
}
