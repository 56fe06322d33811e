//! How a decision about a delivery becomes true, one step after the other, whatever fails between.
//!
//! COMMIT writes the outcome by compare-and-set, where none stands or, for the replay of a dead
//! letter, where the one stands that the job failed with. Dead letter, reply and acknowledgement
//! follow from the outcome *that stands*, whoever wrote it. Each of them may be repeated, so a crash
//! after any step is repaired by the next delivery. This file knows no network: it says which step
//! is next and is told how it went. `ledger.rs` carries the steps out; the tests below explore every
//! interleaving of two workers with a crash after every step.

use inferq_schemas::headers::Status;
use inferq_schemas::identity::Digest;

/// The next thing to do for a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Publish the proposed outcome, if the one before it has this sequence (0: if there is none).
    Commit(u64),
    /// Read the outcome that stands.
    Read,
    /// Publish the dead letter, if the one before it has this sequence (0: if there is none).
    DeadLetter(u64),
    /// Publish the reply.
    Reply,
    /// Take the message off the queue.
    Acknowledge,
    /// Nothing is left to do.
    Done,
}

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<T> {
    /// It is done.
    Done,
    /// COMMIT and DEAD LETTER: something else stands there already.
    Refused,
    /// COMMIT and READ: this outcome stands now; after a COMMIT it is our own.
    Stands(T),
    /// READ only: no outcome stands any more.
    Missing,
    /// No answer came; it may or may not have happened.
    Unanswered,
}

/// What the machine needs to know of an outcome.
pub trait Record: Clone {
    /// How the job ended.
    fn status(&self) -> Status;
    /// Digest of the body it answers.
    fn body_digest(&self) -> Option<Digest>;
    /// Its sequence in the stream of outcomes, once it stands there.
    fn sequence(&self) -> Option<u64>;
}

/// Which steps a job takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Whether outcome and dead letter are recorded: yes for jobs, no for RPC.
    pub recorded: bool,
    /// Whether there is somebody to reply to.
    pub replies: bool,
    /// Whether there is a message to acknowledge.
    pub acknowledges: bool,
    /// Digest of the body of this delivery.
    pub body_digest: Digest,
    /// What a replay takes the place of.
    pub replay: Option<Replay>,
}

/// What the replay of a dead letter takes the place of, as sequences in their streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Replay {
    /// The outcome the job failed with. While it stands, there is none for the replay.
    pub outcome: u64,
    /// The dead letter that was replayed; 0 if the replay does not say. Whoever replays deletes it
    /// after the replay is queued, so it may or may not be there when the replay fails in its turn.
    pub letter: u64,
}

impl Replay {
    /// Whether `standing` is the very outcome that is to be replaced.
    pub fn replaces<T: Record>(self, standing: &T) -> bool {
        standing.sequence() == Some(self.outcome)
    }
}

/// One delivery on its way from decision to acknowledgement.
#[derive(Debug, Clone)]
pub struct Settlement<T> {
    terms: Terms,
    step: Step,
    /// The proposed outcome until COMMIT, the standing one after.
    outcome: T,
    conflict: bool,
}

impl<T: Record> Settlement<T> {
    /// Starts from an outcome this worker proposes.
    pub fn commit(outcome: T, terms: Terms) -> Self {
        let step = if terms.recorded {
            Step::Commit(terms.replay.map_or(0, |replay| replay.outcome))
        } else {
            Step::Reply
        };
        let mut settlement = Self {
            terms,
            step,
            outcome,
            conflict: false,
        };
        settlement.skip_needless();
        settlement
    }

    /// Starts from an outcome that an earlier delivery left; not the one that a replay replaces.
    pub fn standing(outcome: T, terms: Terms) -> Self {
        let mut settlement = Self {
            terms,
            step: Step::Read,
            outcome: outcome.clone(),
            conflict: false,
        };
        settlement.apply(Event::Stands(outcome));
        settlement
    }

    /// The next thing to do.
    pub fn step(&self) -> Step {
        self.step
    }

    /// The outcome that the next step is about.
    pub fn outcome(&self) -> &T {
        &self.outcome
    }

    /// Whether the standing outcome answers another body under the same id: the reply is then a
    /// conflict, and the outcome and its dead letter are left alone.
    pub fn is_conflict(&self) -> bool {
        self.conflict
    }

    /// Takes note of how the step went.
    pub fn apply(&mut self, event: Event<T>) {
        self.step = match (self.step, event) {
            (Step::Commit(_), Event::Refused) => Step::Read,
            // Nothing has changed since the refusal: a replica lags behind, or another publish was
            // under way and came to nothing. Only another COMMIT finds out.
            (Step::Read, Event::Stands(standing)) if self.is_replaced(&standing) => {
                Step::Commit(standing.sequence().unwrap_or(0))
            }
            (Step::Commit(_) | Step::Read, Event::Stands(standing)) => {
                // A job is told apart by id and body: the same id with another body is somebody else's answer.
                self.conflict = standing
                    .body_digest()
                    .is_some_and(|digest| digest != self.terms.body_digest);
                self.outcome = standing;
                Step::DeadLetter(self.terms.replay.map_or(0, |replay| replay.letter))
            }
            // It was removed between the refusal and the look, or what a replay replaces left the
            // stream by age: ours may be written now.
            (Step::Read, Event::Missing) => Step::Commit(0),
            // The replayed letter has been deleted, and does not come back; or one is there already
            // that is younger, which is the second refusal and as good as written.
            (Step::DeadLetter(replayed), Event::Refused) if replayed != 0 => Step::DeadLetter(0),
            (Step::DeadLetter(_), Event::Done | Event::Refused) => Step::Reply,
            (Step::Reply, Event::Done) => Step::Acknowledge,
            (Step::Acknowledge, Event::Done) => Step::Done,
            // Not knowing is no answer: the same step again finds out.
            (
                step,
                Event::Unanswered
                | Event::Done
                | Event::Refused
                | Event::Stands(_)
                | Event::Missing,
            ) => step,
        };
        self.skip_needless();
    }

    fn skip_needless(&mut self) {
        if matches!(self.step, Step::DeadLetter(_)) && !self.needs_dead_letter() {
            self.step = Step::Reply;
        }
        if self.step == Step::Reply && !self.terms.replies {
            self.step = Step::Acknowledge;
        }
        if self.step == Step::Acknowledge && !self.terms.acknowledges {
            self.step = Step::Done;
        }
    }

    fn is_replaced(&self, standing: &T) -> bool {
        self.terms
            .replay
            .is_some_and(|replay| replay.replaces(standing))
    }

    fn needs_dead_letter(&self) -> bool {
        let failed = matches!(self.outcome.status(), Status::Error | Status::Dead);
        self.terms.recorded && !self.conflict && failed
    }
}

#[cfg(test)]
mod tests;
