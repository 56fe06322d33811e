//! Jobs that may have ended the process that ran them: they run one at a time, with nothing beside
//! them, so that a crash costs the guilty one alone.
//!
//! From its third delivery on a job is a suspect. When one arrives, `pull` leaves its inbox, which ends
//! every request under way, and shuts the room. What is held already is run and settled as usual, never
//! given back: that would cost it a delivery. Then one suspect runs, and once it is settled the room
//! opens again.
//!
//! Several may arrive together, such as all that a process held when it ended twice. Held while one of
//! them runs, the others lose a delivery if that one is guilty; given back, they lose one in any case,
//! and they have few. This is why it ends well all the same:
//!
//! - Those at their third or fourth delivery are kept, up to [`FEW`], and run one after the other:
//!   upwards by their place in the stream at odd deliveries, downwards at even ones. A guilty one ends
//!   the process at its turn; until then all before it were settled, and at the next delivery all
//!   behind it are. From the fifth on it is alone with itself.
//! - More than these, and those that several guilty ones left behind, are given back, to come one by one,
//!   [`SPREAD`] apart: from then on each runs alone. A consumer whose last message was a suspect is
//!   asked for one message at a time.
//! - With [`KEEP`] deliveries left or fewer none is given back. Those that still arrive together are kept
//!   and run in the order of the first rule, which needs two deliveries.
//!
//! So an innocent job is settled before its deliveries are used up, and the guilty uses up its own.
//!
//! One whose deadline passes or that is cancelled while it waits goes on at once, since it is not run any
//! more (`suspects/held.rs`).

use std::cmp::Reverse;
use std::time::Duration;

mod held;

pub(crate) use held::Held;

/// From this delivery on a job is a suspect.
pub(crate) const SUSPECT_FROM: u64 = 3;

/// From this delivery on one guilty job does not explain why a job is not settled.
const GIVE_BACK_FROM: u64 = SUSPECT_FROM + 2;
/// So many are kept before that: nothing else runs here until all of them have.
const FEW: usize = 8;
/// With so many deliveries left or fewer, a job is not given back: two are what keeping it may cost.
const KEEP: u64 = 2;
/// Time between the next deliveries of suspects that were given back together.
const SPREAD: Duration = Duration::from_millis(100);
/// The last of many comes after this long.
const LONGEST_SPREAD: Duration = Duration::from_secs(60);

/// What decides when a suspect runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    /// Its place in the stream.
    pub(crate) sequence: u64,
    /// Deliveries so far, this one included.
    pub(crate) attempt: u64,
    /// Deliveries that it has in all.
    pub(crate) most: u64,
}

impl Record {
    fn left(&self) -> u64 {
        self.most.saturating_sub(self.attempt)
    }

    /// Who runs first: the one nearest to its end, and of equals one end of the stream, then the other.
    fn turn(&self) -> (u64, Result<u64, Reverse<u64>>) {
        let upwards = self.attempt % 2 == 1;
        let place = if upwards {
            Ok(self.sequence)
        } else {
            Err(Reverse(self.sequence))
        };
        (self.left(), place)
    }
}

/// The suspects that are here.
#[derive(Debug)]
pub(crate) struct Suspects<T> {
    waiting: Vec<(Record, T)>,
    /// Whether one of them was let in.
    alone: bool,
}

/// What `pull` does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<T> {
    /// Wait: something else is still held, or the one that was let in.
    Wait,
    /// Give these back, each to come again after its time, then let one in.
    Run {
        give_back: Vec<(T, Duration)>,
        suspect: T,
    },
    /// Open the room again.
    Open,
}

impl<T> Suspects<T> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Vec::new(),
            alone: false,
        }
    }

    pub(crate) fn push(&mut self, record: Record, delivery: T) {
        self.waiting.push((record, delivery));
    }

    /// Whether nothing but suspects may be let in.
    pub(crate) fn any(&self) -> bool {
        self.alone || !self.waiting.is_empty()
    }

    /// The next step while the worker holds `held` deliveries, those that wait here included.
    pub(crate) fn next(&mut self, held: usize) -> Step<T> {
        if !self.any() {
            // All have ended where they waited, and what is held is none of them.
            return Step::Open;
        }
        if held > self.waiting.len() {
            return Step::Wait;
        }
        self.waiting.sort_by_key(|(record, _)| record.turn());
        let mut others = std::mem::take(&mut self.waiting).into_iter();
        let Some((_, suspect)) = others.next() else {
            self.alone = false;
            return Step::Open;
        };
        let mut places = 0;
        let (kept, given_back): (Vec<_>, Vec<_>) = others.partition(|(record, _)| {
            places += 1;
            let early = record.attempt < GIVE_BACK_FROM && places <= FEW;
            early || record.left() <= KEEP
        });
        self.waiting = kept;
        self.alone = true;
        let give_back = (1..).zip(given_back).map(|(place, (_, other))| {
            let delay = SPREAD.saturating_mul(place).min(LONGEST_SPREAD);
            (other, delay)
        });
        Step::Run {
            give_back: give_back.collect(),
            suspect,
        }
    }

    /// Takes out all that wait, for a worker that stops.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        let all = std::mem::take(&mut self.waiting);
        all.into_iter().map(|(_, delivery)| delivery)
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const MOST: u64 = 8;

    fn suspects(of: &[(u64, u64)]) -> Suspects<u64> {
        let mut suspects = Suspects::new();
        for (job, attempt) in of {
            let record = Record {
                sequence: *job,
                attempt: *attempt,
                most: MOST,
            };
            suspects.push(record, *job);
        }
        suspects
    }

    fn runs(suspect: u64, give_back: &[(u64, u64)]) -> Step<u64> {
        let after = |(job, ms): &(u64, u64)| (*job, Duration::from_millis(*ms));
        Step::Run {
            give_back: give_back.iter().map(after).collect(),
            suspect,
        }
    }

    #[test]
    fn a_suspect_waits_for_everything_else_and_runs_alone() {
        let mut suspects = suspects(&[(1, 3)]);
        assert_eq!(suspects.next(3), Step::Wait, "two others are held");
        assert_eq!(suspects.next(1), runs(1, &[]));
        assert!(suspects.any(), "nothing comes in beside it");
        assert_eq!(suspects.next(1), Step::Wait, "it is not settled");
        assert_eq!(suspects.next(0), Step::Open);
        assert!(!suspects.any());
    }

    fn order(jobs: impl Iterator<Item = u64>, attempt: u64) -> Vec<Step<u64>> {
        let of: Vec<_> = jobs.map(|job| (job, attempt)).collect();
        let mut suspects = suspects(&of);
        let mut held = of.len();
        let steps = std::iter::from_fn(|| match suspects.next(held) {
            Step::Open => None,
            step => {
                held = suspects.waiting.len();
                Some(step)
            }
        });
        steps.collect()
    }

    #[test]
    fn a_few_are_kept_and_run_from_one_end_of_the_stream_and_then_from_the_other() {
        let upwards = order(1..4, 3);
        assert_eq!(upwards, [runs(1, &[]), runs(2, &[]), runs(3, &[])]);
        let downwards = order(1..4, 4);
        assert_eq!(downwards, [runs(3, &[]), runs(2, &[]), runs(1, &[])]);
    }

    #[test]
    fn of_many_only_a_few_are_kept() {
        let steps = order(1..12, 3);
        assert_eq!(steps[0], runs(1, &[(10, 100), (11, 200)]));
        assert_eq!(steps.len(), 1 + FEW);
    }

    #[test]
    fn those_that_are_not_settled_by_then_are_given_back_and_come_one_by_one() {
        let steps = order(1..4, 5);
        assert_eq!(steps, [runs(1, &[(2, 100), (3, 200)])]);
    }

    #[test]
    fn a_job_with_few_deliveries_left_is_kept_and_runs_first() {
        let mut suspects = suspects(&[(1, 5), (2, 7), (3, 7)]);
        assert_eq!(suspects.next(3), runs(2, &[(1, 100)]));
        assert_eq!(suspects.next(2), Step::Wait, "the first is not settled");
        assert_eq!(suspects.next(1), runs(3, &[]));
        assert_eq!(suspects.next(0), Step::Open);
    }

    #[test]
    fn once_all_have_ended_where_they_waited_the_others_come_in_at_once() {
        let mut suspects = suspects(&[(1, 3)]);
        assert_eq!(suspects.next(2), Step::Wait, "another one is held");
        suspects.waiting.clear();
        assert_eq!(suspects.next(1), Step::Open);
    }

    #[test]
    fn what_waits_when_the_worker_stops_is_handed_out() {
        let mut suspects = suspects(&[(1, 3), (2, 3)]);
        assert_eq!(suspects.take_all().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(suspects.next(0), Step::Open);
    }

    /// The worst that can be: whatever is given back or comes again arrives all together, always.
    #[test]
    fn one_guilty_job_among_many_dies_alone_wherever_it_stands() {
        const JOBS: u64 = 64;
        for guilty in 0..JOBS {
            // All of them were held when a process ended, twice.
            let mut queue: Vec<(u64, u64)> = (0..JOBS).map(|job| (job, 2)).collect();
            let (mut settled, mut dead) = (BTreeSet::new(), Vec::new());
            while !queue.is_empty() {
                let delivered = queue.drain(..).map(|(job, attempts)| (job, attempts + 1));
                let (here, over): (Vec<_>, Vec<_>) =
                    delivered.partition(|(_, attempt)| *attempt <= MOST);
                dead.extend(over.into_iter().map(|(job, _)| job));
                let attempt_of = |job: u64| here.iter().find(|(other, _)| *other == job);
                let mut suspects = suspects(&here);
                while let Step::Run { give_back, suspect } = suspects.next(suspects.waiting.len()) {
                    queue.extend(give_back.iter().filter_map(|(job, _)| attempt_of(*job)));
                    if suspect == guilty {
                        // The process ends, and what waited comes again like the guilty one.
                        let held = suspects.take_all().chain([suspect]);
                        queue.extend(held.filter_map(attempt_of));
                        break;
                    }
                    settled.insert(suspect);
                }
            }
            assert_eq!(dead, [guilty]);
            assert_eq!(settled.len() as u64, JOBS - 1);
        }
    }
}
