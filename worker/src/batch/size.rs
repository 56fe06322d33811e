//! How many of the rows that wait should leave together, if some of them are to be answered soon.
//!
//! The more rows a batch has, the longer its forward pass takes, and each of them waits for the whole. So
//! a batch takes no more than lets all of it end in time, and the others leave with the next one. Only
//! where more waits than a batch takes is that a bad bargain: in a flood the first in line have little time
//! left all the while, and batches made for them would be too small for everybody behind. Then a batch has
//! the size that answers most rows in time for every second of its thread.

use std::time::{Duration, Instant};

use crate::deadline::Deadline;

/// What waits, as it would leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead {
    /// Rows that no batch has taken.
    pub(super) rows: usize,
    /// When their job ends.
    pub(super) deadline: Option<Deadline>,
}

impl Ahead {
    fn is_late(&self, end: Instant) -> bool {
        self.deadline.is_some_and(|deadline| end > deadline.0)
    }
}

/// How many rows should run together at `now`, of at most `most`. They are taken from the beginning of
/// `ahead`, which is all that waits, or as much of it as is more than `most`; no job is cut but the last.
/// `takes` says what a forward pass of so many rows takes, where that is known.
pub(super) fn rows_together(
    ahead: &[Ahead],
    most: usize,
    now: Instant,
    takes: impl Fn(usize) -> Option<Duration>,
) -> usize {
    let waiting: usize = ahead.iter().map(|job| job.rows).sum();
    let all = waiting.min(most);
    let mut rows = 0;
    let sizes = ahead.iter().map_while(|job| {
        let fits = rows < most;
        rows = most.min(rows + job.rows);
        fits.then_some(rows)
    });
    let sizes: Vec<usize> = sizes.collect();
    let ahead = &ahead[..sizes.len()];
    let is_late = |took: Duration| ahead.iter().any(|job| job.is_late(now + took));
    if !takes(all).is_some_and(is_late) {
        return all;
    }
    let batches = sizes.iter().enumerate().filter_map(|(last, rows)| {
        let took = takes(*rows)?;
        Some(Batch::of(&ahead[..=last], *rows, now, took))
    });
    let batches: Vec<Batch> = batches.collect();
    let best = if waiting > most {
        // Of two that are as good the larger one, which leaves less behind.
        let best = |one: &&Batch, other: &&Batch| one.rate.total_cmp(&other.rate);
        batches.iter().max_by(best)
    } else {
        batches.iter().rfind(|batch| batch.is_in_time)
    };
    best.map_or(all, |batch| batch.rows)
}

/// What would become of the rows of a batch.
struct Batch {
    rows: usize,
    is_in_time: bool,
    /// Rows that are answered in time in a second.
    rate: f64,
}

impl Batch {
    fn of(jobs: &[Ahead], rows: usize, now: Instant, took: Duration) -> Self {
        let late = jobs.iter().filter(|job| job.is_late(now + took));
        let late: usize = late.map(|job| job.rows).sum();
        Self {
            rows,
            is_in_time: late == 0,
            rate: rows.saturating_sub(late) as f64 / took.as_secs_f64().max(f64::EPSILON),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Jobs as rows and milliseconds until their deadline.
    fn together(
        jobs: &[(usize, Option<u64>)],
        most: usize,
        takes: impl Fn(usize) -> Option<u64>,
    ) -> usize {
        let now = Instant::now();
        let ahead = |(rows, left): &(usize, Option<u64>)| Ahead {
            rows: *rows,
            deadline: left.map(|left| Deadline(now + ms(left))),
        };
        let ahead: Vec<Ahead> = jobs.iter().map(ahead).collect();
        rows_together(&ahead, most, now, |rows| takes(rows).map(ms))
    }

    /// A millisecond and one for each row.
    fn by_row(rows: usize) -> Option<u64> {
        Some(1 + rows as u64)
    }

    #[test]
    fn a_batch_is_as_large_as_its_earliest_deadline_allows() {
        let jobs = [(1, Some(9)), (4, Some(50)), (4, None), (4, None)];
        assert_eq!(together(&jobs, 32, by_row), 5, "9 rows take 10 ms");
        let jobs = [(1, Some(10)), (4, Some(50)), (4, None), (4, None)];
        assert_eq!(together(&jobs, 32, by_row), 9);
    }

    #[test]
    fn a_job_that_ends_in_time_only_by_itself_leaves_by_itself() {
        let mut jobs = vec![(8, Some(9))];
        jobs.extend([(1, Some(100)); 4]);
        assert_eq!(together(&jobs, 32, by_row), 8);
        assert_eq!(together(&jobs, 8, by_row), 8);
    }

    #[test]
    fn without_deadlines_or_while_nothing_is_known_a_batch_is_full() {
        let slow = |rows: usize| Some(rows as u64 * 1_000);
        assert_eq!(together(&[(1, None); 40], 32, slow), 32);
        assert_eq!(together(&[(1, Some(5)); 40], 32, |_| None), 32);
        assert_eq!(together(&[(20, None), (20, None)], 32, slow), 32);
    }

    #[test]
    fn deadlines_that_all_rows_keep_change_nothing() {
        assert_eq!(together(&[(1, Some(33)); 40], 32, by_row), 32);
        let steps = |rows: usize| Some(if rows <= 16 { 10 } else { 40 });
        assert_eq!(together(&[(1, Some(40)); 40], 32, steps), 32);
    }

    #[test]
    fn in_a_flood_one_that_is_nearly_late_does_not_cost_the_others_their_batch() {
        // A forward pass takes as long with 32 rows as with 2.
        let flat = |rows: usize| Some(if rows == 1 { 5 } else { 6 });
        let mut jobs = vec![(1, Some(5))];
        jobs.extend([(1, Some(100)); 31]);
        assert_eq!(
            together(&jobs, 32, flat),
            1,
            "one more batch, and none is late"
        );
        jobs.extend([(1, Some(100)); 31]);
        assert_eq!(together(&jobs, 32, flat), 32);
    }

    #[test]
    fn in_a_flood_a_batch_is_as_small_as_answers_most_in_time() {
        // Sixteen rows take as long as eight, and thirty-two four times as long.
        let steps = |rows: usize| Some(if rows <= 16 { 10 } else { 40 });
        let mut jobs = vec![(1, Some(12)); 20];
        jobs.extend([(1, None); 20]);
        assert_eq!(together(&jobs, 32, steps), 16);
    }

    #[test]
    fn one_that_no_batch_answers_in_time_does_not_make_it_smaller() {
        let mut jobs = vec![(1, Some(1))];
        jobs.extend([(1, Some(100)); 30]);
        assert_eq!(together(&jobs, 32, by_row), 31);
    }

    #[test]
    fn a_size_nobody_has_measured_is_not_chosen() {
        let known = |rows: usize| (rows != 3).then(|| by_row(rows)).flatten();
        let jobs = [(1, Some(4)), (1, Some(50)), (1, Some(50)), (1, Some(50))];
        assert_eq!(together(&jobs, 32, by_row), 3);
        assert_eq!(together(&jobs, 32, known), 2);
    }
}
