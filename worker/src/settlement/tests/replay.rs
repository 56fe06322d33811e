//! The replay of a dead letter, explored like any other delivery: sent once or twice, by somebody
//! who deletes the letter at any time after it is queued, and beside outcomes that leave by age.

use super::*;

/// Sequences of what is replayed; all that is written gets a higher one.
const OUTCOME: u64 = 1;
const LETTER: u64 = 1;

const MAX_DELIVERIES: u8 = 3;
const MAX_MISHAPS: u8 = 2;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    outcome: Option<Written>,
    next_outcome: u64,
    /// Sequence of each dead letter of the job, and of the outcome it tells of.
    letters: Vec<(u64, u64)>,
    next_letter: u64,
    replies: u8,
    /// Copies of the replay in the queue, each with its deliveries so far.
    queue: Vec<Option<u8>>,
    mishaps: u8,
    ages: bool,
    /// What each worker holds: the copy, and where it is with it.
    workers: Vec<Option<(usize, Step, Written, bool)>>,
}

fn replay_terms() -> Terms {
    Terms {
        replay: Some(Replay {
            outcome: OUTCOME,
            letter: LETTER,
        }),
        ..terms()
    }
}

fn replaced(world: &World) -> Option<Written> {
    let outcome = world.outcome.clone();
    outcome.filter(|outcome| outcome.sequence > Some(OUTCOME))
}

impl World {
    fn new(copies: usize, workers: usize, ages: bool) -> Self {
        let failed = Written {
            sequence: Some(OUTCOME),
            ..Written::by(usize::MAX, Status::Error)
        };
        Self {
            outcome: Some(failed),
            next_outcome: OUTCOME + 1,
            letters: vec![(LETTER, OUTCOME)],
            next_letter: LETTER + 1,
            replies: 0,
            queue: vec![Some(0); copies],
            mishaps: 0,
            ages,
            workers: vec![None; workers],
        }
    }

    fn settlement(&self, worker: usize) -> Option<(usize, Settlement<Written>)> {
        let (copy, step, outcome, conflict) = self.workers[worker].clone()?;
        let settlement = Settlement {
            terms: replay_terms(),
            step,
            outcome,
            conflict,
        };
        Some((copy, settlement))
    }

    fn keep(&mut self, worker: usize, copy: usize, settlement: &Settlement<Written>) {
        let outcome = settlement.outcome().clone();
        self.workers[worker] = match settlement.step() {
            Step::Done => None,
            step => Some((copy, step, outcome, settlement.is_conflict())),
        };
    }

    fn effect(&mut self, copy: usize, step: Step, outcome: &Written) -> Event<Written> {
        let stands = self.outcome.as_ref().and_then(Record::sequence);
        let last_letter = self.letters.last().map(|(sequence, _)| *sequence);
        match step {
            Step::Commit(expected) if stands.unwrap_or(0) != expected => Event::Refused,
            Step::Commit(_) => {
                let stored = Written {
                    sequence: Some(self.next_outcome),
                    ..outcome.clone()
                };
                self.next_outcome += 1;
                self.outcome = Some(stored.clone());
                Event::Stands(stored)
            }
            Step::Read => self.outcome.clone().map_or(Event::Missing, Event::Stands),
            Step::DeadLetter(expected) if last_letter.unwrap_or(0) != expected => Event::Refused,
            Step::DeadLetter(_) => {
                let tells_of = outcome.sequence.expect("a letter tells of what stands");
                self.letters.push((self.next_letter, tells_of));
                self.next_letter += 1;
                Event::Done
            }
            Step::Reply => {
                self.replies = (self.replies + 1).min(2);
                Event::Done
            }
            Step::Acknowledge => {
                self.queue[copy] = None;
                Event::Done
            }
            Step::Done => unreachable!("a worker that is done holds no settlement"),
        }
    }

    fn successors(&self) -> Vec<World> {
        let mut next = Vec::new();
        // Whoever replays deletes the letter once the replay is queued, sooner or later.
        if self.letters.first() == Some(&(LETTER, OUTCOME)) {
            let mut deleted = self.clone();
            deleted.letters.remove(0);
            next.push(deleted);
        }
        let is_old = |outcome: &Written| outcome.sequence == Some(OUTCOME);
        if self.ages && self.outcome.as_ref().is_some_and(is_old) {
            let mut aged = self.clone();
            aged.outcome = None;
            next.push(aged);
        }
        for worker in 0..self.workers.len() {
            let Some((copy, settlement)) = self.settlement(worker) else {
                next.extend((0..self.queue.len()).flat_map(|copy| self.deliver(worker, copy)));
                continue;
            };
            let step = settlement.step();
            let mut done = self.clone();
            let event = done.effect(copy, step, settlement.outcome());
            let mut after = settlement.clone();
            after.apply(event);
            done.keep(worker, copy, &after);
            next.push(done);
            if self.mishaps < MAX_MISHAPS {
                let mut crash = self.clone();
                crash.mishaps += 1;
                crash.workers[worker] = None;
                next.push(crash);
                // The effect took place, its answer was lost.
                let mut unheard = self.clone();
                unheard.mishaps += 1;
                unheard.effect(copy, step, settlement.outcome());
                let mut after = settlement.clone();
                after.apply(Event::Unanswered);
                unheard.keep(worker, copy, &after);
                next.push(unheard);
            }
        }
        next
    }

    fn deliver(&self, worker: usize, copy: usize) -> Vec<World> {
        let Some(deliveries) = self.queue[copy].filter(|count| *count < MAX_DELIVERIES) else {
            return Vec::new();
        };
        let mut delivered = self.clone();
        delivered.queue[copy] = Some(deliveries + 1);
        // As `admit` looks: a replay at its first delivery too, and past what it replaces.
        let starts = match replaced(self) {
            Some(outcome) => vec![Settlement::standing(outcome, replay_terms())],
            None => [Status::Ok, Status::Error]
                .map(|status| Settlement::commit(Written::by(worker, status), replay_terms()))
                .to_vec(),
        };
        starts
            .into_iter()
            .map(|start| {
                let mut world = delivered.clone();
                world.keep(worker, copy, &start);
                world
            })
            .collect()
    }

    /// What must hold once the queue is empty and nobody works.
    fn check_end(&self) {
        let outcome = replaced(self).expect("the replay left the queue and replaced nothing");
        assert!(self.replies >= 1, "nobody was told: {self:?}");
        let of_this: Vec<u64> = self
            .letters
            .iter()
            .filter(|(_, tells_of)| Some(*tells_of) == outcome.sequence)
            .map(|(sequence, _)| *sequence)
            .collect();
        let wanted = usize::from(outcome.status == Status::Error);
        assert_eq!(
            of_this.len(),
            wanted,
            "dead letters of what stands: {self:?}"
        );
        assert!(!of_this.contains(&LETTER), "it is to be deleted: {self:?}");
    }
}

/// How many worlds ended with an `ok`, and how many with an error.
fn explore(start: World) -> (usize, usize) {
    let (mut ok, mut failed) = (0, 0);
    reach(start, World::successors, |world, next| {
        if let Some(outcome) = replaced(world) {
            for after in next {
                outcome_stays(world, Some(&outcome), after.outcome.as_ref());
            }
        }
        let idle = world.workers.iter().all(Option::is_none);
        if idle && world.queue.iter().all(Option::is_none) {
            world.check_end();
            match replaced(world).map(|outcome| outcome.status) {
                Some(Status::Ok) => ok += 1,
                _ => failed += 1,
            }
        }
    });
    (ok, failed)
}

#[test]
fn a_replay_replaces_the_outcome_once_whenever_its_letter_is_deleted() {
    let (ok, failed) = explore(World::new(1, 2, false));
    assert!(ok > 0 && failed > 0);
}

#[test]
fn two_replays_of_one_letter_replace_the_outcome_once() {
    let (ok, failed) = explore(World::new(2, 2, false));
    assert!(ok > 0 && failed > 0);
}

#[test]
fn a_replay_writes_its_outcome_where_the_old_one_has_left_by_age() {
    let (ok, failed) = explore(World::new(2, 1, true));
    assert!(ok > 0 && failed > 0);
}

#[test]
fn a_replay_that_is_refused_although_nothing_changed_commits_again() {
    let old = Written {
        sequence: Some(OUTCOME),
        ..Written::by(0, Status::Error)
    };
    let mut settlement = Settlement::commit(Written::by(1, Status::Ok), replay_terms());
    assert_eq!(settlement.step(), Step::Commit(OUTCOME));
    settlement.apply(Event::Refused);
    settlement.apply(Event::Stands(old));
    assert_eq!(settlement.step(), Step::Commit(OUTCOME));
    assert_eq!(settlement.outcome().status, Status::Ok, "its own, still");
}

#[test]
fn a_replay_that_does_not_name_its_letter_writes_one_where_none_is() {
    let unnamed = Terms {
        replay: Some(Replay {
            outcome: OUTCOME,
            letter: 0,
        }),
        ..terms()
    };
    let failed = Written {
        sequence: Some(OUTCOME + 1),
        ..Written::by(0, Status::Error)
    };
    let mut settlement = Settlement::standing(failed, unnamed);
    assert_eq!(settlement.step(), Step::DeadLetter(0));
    settlement.apply(Event::Refused);
    assert_eq!(settlement.step(), Step::Reply);
}
