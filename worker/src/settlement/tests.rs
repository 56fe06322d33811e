//! Explores every interleaving of one and of two workers with a broker, with answers lost before
//! and after their effect and a crash after every step.

use std::collections::HashSet;

use super::*;

mod replay;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Written {
    author: usize,
    status: Status,
    body: u8,
    sequence: Option<u64>,
}

impl Written {
    fn by(author: usize, status: Status) -> Self {
        Self {
            author,
            status,
            body: BODY,
            sequence: None,
        }
    }
}

impl Record for Written {
    fn status(&self) -> Status {
        self.status
    }
    fn body_digest(&self) -> Option<Digest> {
        Some(digest(self.body))
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
    workers: Vec<Option<(Step, Written, bool)>>,
}

const MAX_DELIVERIES: u8 = 4;
const MAX_MISHAPS: u8 = 3;

impl World {
    fn new(workers: usize) -> Self {
        Self {
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

    fn successors(&self) -> Vec<World> {
        let mut next = Vec::new();
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

/// Visits every reachable world; returns how many ended.
fn explore(workers: usize) -> usize {
    let mut seen = HashSet::new();
    let mut open = vec![World::new(workers)];
    let mut ended = 0;
    while let Some(world) = open.pop() {
        if !seen.insert(world.clone()) {
            continue;
        }
        let next = world.successors();
        for after in &next {
            if let Some(outcome) = &world.outcome {
                assert_eq!(
                    Some(outcome),
                    after.outcome.as_ref(),
                    "an outcome changed after {world:?}"
                );
            }
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
        }
        if next.is_empty() {
            let spent = world.deliveries == MAX_DELIVERIES;
            assert!(!world.queued || spent, "stuck in the queue: {world:?}");
            ended += usize::from(!world.queued);
        }
        open.extend(next);
    }
    ended
}

#[test]
fn one_worker_ends_a_job_once_whatever_step_it_crashes_after() {
    assert!(explore(1) > 0);
}

#[test]
fn two_workers_end_a_job_once_in_every_interleaving() {
    assert!(explore(2) > 0);
}

#[test]
fn another_body_under_the_same_id_is_a_conflict_and_leaves_no_dead_letter() {
    let foreign = Written {
        body: BODY + 1,
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
