//! How long forward passes of a version take, as measured: what a job needs at the least, and how many rows pay.
//!
//! Runs are kept apart by their rows, in powers of two. What so many rows take is the median of the last
//! `KEPT` runs of their size, so that a single slow run refuses nobody; of a size that was run less
//! often, that of the next smaller one, since more rows take no less. A job is told by this that it cannot
//! be run in time, so it is a lower bound: of its own rows alone, whatever waits before them or beside.
//! Which rows run beside them is another question, and `batch/size.rs` answers it.
//!
//! Nothing is known before `KEPT` runs, nor a moment after the last one: a worker that refuses all jobs of
//! a model would measure no more, and never learn that the machine has become faster again.
//!
//! How many rows pay is told by the fastest run of each size within a minute or two, since all that disturbs one makes
//! it slower, and a busy machine disturbs many in a row. Smaller sizes that were not run for a while are tried once
//! more; what is known of larger ones, and may be old, is measured anew before it counts. Where a row takes as long
//! alone as among others, as with large models on a processor, batches only make everybody else wait.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Runs of a size that have to be known before it counts, and the most that are remembered.
pub(crate) const KEPT: usize = 16;
/// Runs of a size that have to be known before what a row takes among so many does.
pub(crate) const FEW: usize = 4;
/// How long a smaller size is left alone after its last run, beside [`BETWEEN`] times what that took: so trying all of
/// them up to 64, a run each, costs less than a tenth of the time whatever a run takes.
const FRESH_FOR: Duration = Duration::from_secs(2);
const BETWEEN: u32 = 64;
/// Going from one batch to the next, beside the forward pass.
const CHANGE: Duration = Duration::from_micros(100);
/// So much more may a row take in a batch that is smaller than the best.
const LOSS: f64 = 1.1;
/// The fastest run of a size counts for one to two times as long, while there are others.
const SPAN: Duration = Duration::from_secs(60);
/// What is known of a size is old that was not run for so long: the machine may be another one by now.
const OLD: Duration = Duration::from_secs(120);
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
    /// Times in the order of their end; the next overwrites the oldest.
    runs: Vec<Duration>,
    next: usize,
    fastest: Option<Fastest>,
    /// Their median, and until when it holds.
    median: Option<(Duration, Instant)>,
    /// When the last of them ended and how long it took.
    last: Option<(Instant, Duration)>,
}

/// Seconds that a row takes in the fastest run of a span of time, and of the one before.
struct Fastest {
    since: Instant,
    now: f64,
    before: f64,
}

impl Fastest {
    fn from(since: Instant, each: f64, before: f64) -> Self {
        Self {
            since,
            now: each,
            before,
        }
    }
}

impl Size {
    fn keep(&mut self, rows: usize, took: Duration, now: Instant) {
        if self.runs.len() < KEPT {
            self.runs.push(took);
        } else {
            self.runs[self.next] = took;
            self.next = (self.next + 1) % KEPT;
        }
        let each = (took + CHANGE).as_secs_f64() / rows.max(1) as f64;
        let is_old = self.is_old(now);
        match &mut self.fastest {
            Some(fastest) if !is_old => {
                if now.saturating_duration_since(fastest.since) < SPAN {
                    fastest.now = fastest.now.min(each);
                } else {
                    *fastest = Fastest::from(now, each, fastest.now);
                }
            }
            old => *old = Some(Fastest::from(now, each, f64::INFINITY)),
        }
        self.last = Some((now, took));
    }

    fn is_old(&self, now: Instant) -> bool {
        self.last
            .is_none_or(|(ended, _)| now.saturating_duration_since(ended) >= OLD)
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.last.is_some_and(|(ended, took)| {
            now.saturating_duration_since(ended) < FRESH_FOR + took * BETWEEN
        })
    }

    /// Seconds that each row takes at the best.
    fn each(&self) -> Option<f64> {
        let fastest = self.fastest.as_ref()?;
        (self.runs.len() >= FEW).then(|| fastest.now.min(fastest.before))
    }
}

impl Pace {
    /// A forward pass of `rows` rows that ended at `now` took this long.
    pub fn record(&self, rows: usize, took: Duration, now: Instant) {
        let mut sizes = self.lock();
        let size = &mut sizes[size_of(rows)];
        size.keep(rows, took, now);
        if size.runs.len() == KEPT {
            let mut sorted = size.runs.clone();
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

    /// The fewest rows, of `most`, among which a row takes hardly longer than among the best number of them. A number
    /// that nobody has tried is asked for first, up to four times the answer: what does not pay so far seldom does
    /// beyond. So is one that would pay better by what is known of it, if that is old.
    pub fn pays(&self, most: usize, now: Instant) -> usize {
        let sizes = self.lock();
        let sizes = &sizes[..=size_of(most)];
        let best = |old: bool| {
            let known = sizes.iter().enumerate();
            let known = known.filter(|(_, size)| size.is_old(now) == old);
            let known = known.filter_map(|(index, size)| Some((size.each()?, index)));
            known.min_by(|(a, _), (b, _)| a.total_cmp(b))
        };
        let (best, best_of_old) = (best(false), best(true));
        let unknown = |size: usize| {
            (size..sizes.len().min(size + 3)).find(|size| sizes[*size].each().is_none())
        };
        let size = (0..sizes.len()).find_map(|size| {
            let Some(each) = sizes[size].each() else {
                return Some(size);
            };
            let pays =
                |best: Option<(f64, usize)>| best.is_none_or(|(best, _)| each <= best * LOSS);
            if !pays(best) {
                return (!sizes[size].is_fresh(now)).then_some(size);
            }
            match best_of_old {
                Some((_, old)) if !pays(best_of_old) => Some(old),
                _ => Some(unknown(size).unwrap_or(size)),
            }
        });
        match size {
            Some(size) if size + 1 < sizes.len() => 1 << size,
            _ => most,
        }
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
    fn batches_are_as_small_as_pays_once_the_sizes_around_were_tried() {
        let tried = |takes: fn(usize) -> u64| {
            let (pace, now) = measured(&[(32, takes(32)); FEW]);
            let mut tried = vec![];
            for _ in 0..100 {
                let rows = pace.pays(32, now);
                if tried.last() != Some(&rows) {
                    tried.push(rows);
                }
                pace.record(rows, ms(takes(rows)), now);
            }
            tried
        };
        assert_eq!(tried(|rows| 5 * rows as u64), [1, 2, 4, 1]);
        assert_eq!(tried(|rows| 20 + rows as u64), [1, 2, 4, 8, 16, 32]);
        // From four rows on it is in proportion.
        assert_eq!(tried(|rows| 10 * rows.max(4) as u64), [1, 2, 4, 8, 16, 4]);
    }

    #[test]
    fn a_size_that_was_disturbed_when_it_was_tried_is_tried_again() {
        let (pace, now) = measured(&[(2, 10); FEW]);
        for _ in 0..FEW {
            pace.record(1, ms(50), now);
            pace.record(4, ms(20), now);
            pace.record(8, ms(40), now);
        }
        assert_eq!(pace.pays(8, now), 2);
        let later = now + FRESH_FOR + ms(50) * BETWEEN;
        assert_eq!(pace.pays(8, later), 1);
        pace.record(1, ms(5), later);
        assert_eq!(pace.pays(8, later), 1, "that one was fast");
    }

    #[test]
    fn a_machine_that_is_busy_for_a_while_does_not_make_batches_larger() {
        let (pace, mut now) = measured(&[(1, 5); FEW]);
        for _ in 0..FEW {
            pace.record(2, ms(10), now);
            pace.record(4, ms(20), now);
        }
        assert_eq!(pace.pays(32, now), 1);
        for run in 0..10_000 {
            // Now and then one is left alone.
            let took = if run % 1_000 == 999 { 5 } else { 9 };
            now += ms(took);
            pace.record(1, ms(took), now);
            assert_eq!(pace.pays(32, now), 1, "after {run} runs");
        }
    }

    #[test]
    fn what_is_known_of_larger_sizes_and_old_is_measured_anew_before_it_counts() {
        let (pace, start) = measured(&[(1, 5); FEW]);
        for _ in 0..FEW {
            pace.record(2, ms(10), start);
            pace.record(4, ms(20), start);
        }
        // The machine has become slower for good.
        let slow = |rows: usize| ms(9 * rows as u64);
        let (mut now, mut larger) = (start, vec![]);
        while now < start + 4 * OLD {
            let rows = pace.pays(4, now);
            if rows > 1 {
                larger.push(rows);
            }
            now += slow(rows);
            pace.record(rows, slow(rows), now);
        }
        assert!(!larger.is_empty() && larger.len() <= 4, "{larger:?}");
    }

    #[test]
    fn a_larger_size_that_is_old_is_asked_for_only_where_as_many_rows_wait() {
        let (pace, start) = measured(&[(32, 128); FEW]);
        let now = start + OLD;
        for rows in [1, 2, 4, 8] {
            for _ in 0..FEW {
                pace.record(rows, ms(5 * rows as u64), now);
            }
        }
        assert_eq!(pace.pays(32, now), 32);
        assert_eq!(pace.pays(10, now), 1);
    }

    #[test]
    fn trying_sizes_again_costs_less_than_a_tenth_of_the_time() {
        for took in [10, 100, 1_000] {
            let (pace, start) = measured(&[(32, took); FEW]);
            let (mut now, mut tried) = (start, Duration::ZERO);
            // What is tried first is not meant.
            let known = start + Duration::from_secs(60);
            while now < known + Duration::from_secs(600) {
                let rows = pace.pays(32, now);
                now += ms(took);
                pace.record(rows, ms(took), now);
                if rows < 32 && now > known {
                    tried += ms(took);
                }
            }
            let most = Duration::from_secs(60);
            assert!(
                tried > Duration::ZERO && tried < most,
                "{took} ms: {tried:?}"
            );
        }
    }

    #[test]
    fn what_comes_once_in_a_while_is_known_too() {
        let (pace, mut now) = measured(&[]);
        let mut passes = vec![];
        for _ in 0..20 {
            now += Duration::from_secs(600);
            let (mut rows, mut count) = (32, 0);
            while rows > 0 {
                let batch = pace.pays(32, now).min(rows);
                pace.record(batch, ms(20), now);
                (rows, count) = (rows - batch, count + 1);
            }
            passes.push(count);
        }
        // What was best, which is old, and then at most each smaller size once, and what is left.
        assert!(passes[1] <= 7, "{passes:?}");
        assert!(passes[2..].iter().all(|passes| *passes <= 6), "{passes:?}");
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
