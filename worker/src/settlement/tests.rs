//! Explores every interleaving of one and of two workers with a broker, with answers lost before
//! and after their effect, a crash after every step, and somebody who cancels the job meanwhile.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

use super::*;

mod replay;

/// Visits every world that can be reached from `start`, each with those that may follow it.
fn reach<W: Clone + Eq + Hash>(
    start: W,
    successors: impl Fn(&W) -> Vec<W>,
    mut visit: impl FnMut(&W, &[W]),
) {
    let (mut seen, mut open) = (HashSet::new(), vec![start]);
    while let Some(world) = open.pop() {
        if seen.insert(world.clone()) {
            let next = successors(&world);
            visit(&world, &next);
            open.extend(next);
        }
    }
}

/// An outcome that stands is never written over.
fn outcome_stays<W: Debug>(world: &W, standing: Option<&Written>, after: Option<&Written>) {
    assert!(
        standing.is_none() || standing == after,
        "an outcome changed after {world:?}"
    );
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Written {
    author: usize,
    status: Status,
    /// The body it answers; none for a cancellation, which answers any.
    body: Option<u8>,
    sequence: Option<u64>,
}

impl Written {
    fn by(author: usize, status: Status) -> Self {
        Self {
            author,
            status,
            body: Some(BODY),
            sequence: None,
        }
    }
}

impl Record for Written {
    fn status(&self) -> Status {
        self.status
    }
    fn body_digest(&self) -> Option<Digest> {
        self.body.map(digest)
    }
    fn sequence(&self) -> Option<u64> {
        self.sequence
    }
}

fn digest(body: u8) -> Digest {
    Digest::of(&[body])
}

const BODY: u8 = 1;

fn terms() -> Terms {
    Terms {
        recorded: true,
        replies: true,
        acknowledges: true,
        body_digest: digest(BODY),
        replay: None,
    }
}

/// Everything that decides what can happen next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    outcome: Option<Written>,
    dead_letters: u8,
    replies: u8,
    queued: bool,
    deliveries: u8,
    mishaps: u8,
    /// Whether somebody may yet cancel the job.
    cancellable: bool,
    workers: Vec<Option<(Step, Written, bool)>>,
}

const MAX_DELIVERIES: u8 = 4;
const MAX_MISHAPS: u8 = 3;

impl World {
    fn new(workers: usize, cancellable: bool) -> Self {
        Self {
            cancellable,
            outcome: None,
            dead_letters: 0,
            replies: 0,
            queued: true,
            deliveries: 0,
            mishaps: 0,
            workers: vec![None; workers],
        }
    }

    fn settlement(&self, worker: usize) -> Option<Settlement<Written>> {
        let (step, outcome, conflict) = self.workers[worker].clone()?;
        Some(Settlement {
            terms: terms(),
            step,
            outcome,
            conflict,
        })
    }

    fn keep(&mut self, worker: usize, settlement: &Settlement<Written>) {
        self.workers[worker] = match settlement.step() {
            Step::Done => None,
            step => Some((step, settlement.outcome().clone(), settlement.is_conflict())),
        };
    }

    /// Carries out `step` on the broker and says how it went.
    fn effect(&mut self, step: Step, outcome: &Written) -> Event<Written> {
        match step {
            Step::Commit(_) if self.outcome.is_some() => Event::Refused,
            Step::Commit(expected) => {
                assert_eq!(expected, 0, "nothing is replaced here");
                let stored = Written {
                    sequence: Some(1),
                    ..outcome.clone()
                };
                self.outcome = Some(stored.clone());
                Event::Stands(stored)
            }
            Step::Read => self.outcome.clone().map_or(Event::Missing, Event::Stands),
            Step::DeadLetter(_) if self.dead_letters > 0 => Event::Refused,
            Step::DeadLetter(_) => {
                self.dead_letters = 1;
                Event::Done
            }
            Step::Reply => {
                self.replies = (self.replies + 1).min(2);
                Event::Done
            }
            Step::Acknowledge => {
                self.queued = false;
                Event::Done
            }
            Step::Done => unreachable!("a worker that is done holds no settlement"),
        }
    }

    /// As `cancel.rs` commits it: if nothing stands, and for whatever body the id belongs to.
    fn cancelled(&self) -> Option<World> {
        let cancelled = World {
            cancellable: false,
            outcome: Some(Written {
                body: None,
                sequence: Some(1),
                ..Written::by(usize::MAX, Status::Cancelled)
            }),
            ..self.clone()
        };
        (self.cancellable && self.outcome.is_none()).then_some(cancelled)
    }

    fn successors(&self) -> Vec<World> {
        let mut next: Vec<World> = self.cancelled().into_iter().collect();
        for worker in 0..self.workers.len() {
            match self.settlement(worker) {
                None => next.extend(self.deliver(worker)),
                Some(settlement) => {
                    let step = settlement.step();
                    let mut done = self.clone();
                    let event = done.effect(step, settlement.outcome());
                    let mut after = settlement.clone();
                    after.apply(event);
                    done.keep(worker, &after);
                    next.push(done);
                    if self.mishaps < MAX_MISHAPS {
                        let mut crash = self.clone();
                        crash.mishaps += 1;
                        crash.workers[worker] = None;
                        next.push(crash);
                        // The effect took place, its answer was lost.
                        let mut unheard = self.clone();
                        unheard.mishaps += 1;
                        unheard.effect(step, settlement.outcome());
                        let mut after = settlement.clone();
                        after.apply(Event::Unanswered);
                        unheard.keep(worker, &after);
                        next.push(unheard);
                    }
                }
            }
        }
        next
    }

    /// A delivery may come while another worker still holds an earlier one.
    fn deliver(&self, worker: usize) -> Vec<World> {
        if !self.queued || self.deliveries == MAX_DELIVERIES {
            return Vec::new();
        }
        let mut delivered = self.clone();
        delivered.deliveries += 1;
        let standing = self.outcome.clone().filter(|_| delivered.deliveries > 1);
        let starts = match standing {
            Some(outcome) => vec![Settlement::standing(outcome, terms())],
            None => [Status::Ok, Status::Error, Status::Dead, Status::Expired]
                .map(|status| Settlement::commit(Written::by(worker, status), terms()))
                .to_vec(),
        };
        starts
            .into_iter()
            .map(|start| {
                let mut world = delivered.clone();
                world.keep(worker, &start);
                world
            })
            .collect()
    }
}

/// How many worlds a job has left its queue in, by how it ended.
fn explore(workers: usize, cancellable: bool) -> Vec<(Status, usize)> {
    let statuses = [
        Status::Ok,
        Status::Error,
        Status::Dead,
        Status::Expired,
        Status::Cancelled,
    ];
    let mut ended = statuses.map(|status| (status, 0)).to_vec();
    let start = World::new(workers, cancellable);
    reach(start, World::successors, |world, next| {
        for after in next {
            outcome_stays(world, world.outcome.as_ref(), after.outcome.as_ref());
        }
        if !world.queued {
            let outcome = world
                .outcome
                .as_ref()
                .expect("the message left the queue without an outcome");
            assert!(world.replies >= 1, "nobody was told: {world:?}");
            let failed = matches!(outcome.status, Status::Error | Status::Dead);
            assert_eq!(
                world.dead_letters == 1,
                failed,
                "dead letter without cause, or cause without: {world:?}"
            );
            for (status, count) in &mut ended {
                *count += usize::from(*status == outcome.status);
            }
        }
        if next.is_empty() {
            let spent = world.deliveries == MAX_DELIVERIES;
            assert!(!world.queued || spent, "stuck in the queue: {world:?}");
        }
    });
    ended
}

fn all_but_cancelled_occur(ended: &[(Status, usize)]) {
    for (status, count) in ended {
        assert_eq!(*count > 0, *status != Status::Cancelled, "{status}");
    }
}

#[test]
fn one_worker_ends_a_job_once_whatever_step_it_crashes_after() {
    all_but_cancelled_occur(&explore(1, false));
}

#[test]
fn two_workers_end_a_job_once_in_every_interleaving() {
    all_but_cancelled_occur(&explore(2, false));
}

#[test]
fn a_job_that_is_cancelled_at_any_moment_ends_once_by_whoever_comes_first() {
    for (status, count) in explore(2, true) {
        assert!(count > 0, "{status} never occurs");
    }
}

#[test]
fn another_body_under_the_same_id_is_a_conflict_and_leaves_no_dead_letter() {
    let foreign = Written {
        body: Some(BODY + 1),
        ..Written::by(0, Status::Error)
    };
    let mut settlement = Settlement::commit(Written::by(1, Status::Ok), terms());
    settlement.apply(Event::Refused);
    settlement.apply(Event::Stands(foreign));
    assert!(settlement.is_conflict());
    assert_eq!(settlement.step(), Step::Reply);
    settlement.apply(Event::Done);
    assert_eq!(settlement.step(), Step::Acknowledge);
}

#[test]
fn rpc_replies_without_record() {
    let terms = Terms {
        recorded: false,
        replies: true,
        acknowledges: false,
        ..terms()
    };
    let mut settlement = Settlement::commit(Written::by(0, Status::Error), terms);
    assert_eq!(settlement.step(), Step::Reply);
    settlement.apply(Event::Done);
    assert_eq!(settlement.step(), Step::Done);
}

#[test]
fn an_outcome_that_vanished_after_a_refusal_is_written_again() {
    let mut settlement = Settlement::commit(Written::by(0, Status::Ok), terms());
    settlement.apply(Event::Refused);
    assert_eq!(settlement.step(), Step::Read);
    settlement.apply(Event::Missing);
    assert_eq!(settlement.step(), Step::Commit(0));
}
