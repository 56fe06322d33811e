//! Suspects that come and go in any order and company.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Deliveries that a job allows.
const MOST: u64 = 8;

/// Jobs, each with its deliveries so far.
fn of(here: &[(u64, u64)]) -> Suspects<u64> {
    let mut suspects = Suspects::new();
    for (job, attempt) in here {
        let record = Record {
            sequence: *job,
            attempt: *attempt,
            most: MOST,
        };
        suspects.push(record, *job);
    }
    suspects
}

proptest! {
    /// Suspects come and go in any order, while other deliveries are held or settled.
    #[test]
    fn each_suspect_is_run_alone_or_given_back_and_none_is_forgotten(
        arrivals in vec((0..1_000u64, SUSPECT_FROM..12u64, 1..12u64, 0..4usize), 0..40),
    ) {
        let mut suspects = Suspects::new();
        let (mut let_in, mut given_back) = (Vec::new(), Vec::new());
        let mut others = 0;
        let mut running = None;
        let last = vec![None; 3 * arrivals.len() + 3];
        for (job, arrival) in arrivals.iter().map(Some).chain(last).enumerate() {
            match arrival {
                Some((sequence, attempt, most, beside)) => {
                    let record = Record { sequence: *sequence, attempt: *attempt, most: *most };
                    suspects.push(record, job);
                    // What was held before it came is settled bit by bit.
                    others += beside;
                }
                None => others = 0,
            }
            prop_assert!(suspects.any() || arrival.is_none());
            let held = suspects.waiting.len() + others + usize::from(running.is_some());
            match suspects.next(held) {
                Step::Wait => {
                    prop_assert!(others > 0 || running.is_some(), "it waits for nothing");
                    running = None;
                    others = others.saturating_sub(1);
                }
                Step::Run { give_back, suspect } => {
                    prop_assert!(others == 0 && running.is_none(), "{suspect} is not alone");
                    given_back.extend(give_back.into_iter().map(|(other, _)| other));
                    let_in.push(suspect);
                    running = Some(suspect);
                }
                Step::Open => prop_assert!(!suspects.any()),
            }
        }
        let mut all = [let_in, given_back].concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..arrivals.len()).collect::<Vec<_>>());
        prop_assert!(!suspects.any());
    }

    /// Deliveries come in any groups; only the guilty one ends the process that runs it, with all
    /// that wait beside it.
    #[test]
    fn one_guilty_job_dies_alone_however_its_companions_come(
        jobs in 2..20usize,
        guilty in any::<prop::sample::Index>(),
        groups in vec(1..20usize, 200),
    ) {
        let guilty = guilty.index(jobs) as u64;
        // All of them were held when a process ended, twice.
        let mut queue: Vec<(u64, u64)> = (0..jobs as u64).map(|job| (job, 2)).collect();
        let (mut settled, mut dead) = (BTreeSet::new(), Vec::new());
        for group in groups.iter().cycle() {
            if queue.is_empty() {
                break;
            }
            let rest = queue.split_off((*group).min(queue.len()));
            let delivered = std::mem::replace(&mut queue, rest).into_iter();
            let delivered = delivered.map(|(job, attempts)| (job, attempts + 1));
            let (here, over): (Vec<_>, Vec<_>) = delivered.partition(|(_, attempt)| *attempt <= MOST);
            dead.extend(over.into_iter().map(|(job, _)| job));
            let attempt_of = |job: u64| here.iter().find(|(other, _)| *other == job);
            let mut suspects = of(&here);
            while let Step::Run { give_back, suspect } = suspects.next(suspects.waiting.len()) {
                queue.extend(give_back.iter().filter_map(|(job, _)| attempt_of(*job)));
                if suspect == guilty {
                    let held = suspects.take_all().chain([suspect]);
                    queue.extend(held.filter_map(attempt_of));
                    break;
                }
                settled.insert(suspect);
            }
        }
        prop_assert_eq!(dead, [guilty]);
        prop_assert_eq!(settled.len(), jobs - 1);
    }
}
