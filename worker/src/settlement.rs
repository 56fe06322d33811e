//! How a decision about a delivery becomes true, one step after the other, whatever fails between.
//!
//! COMMIT writes the outcome by compare-and-set; dead letter, reply and acknowledgement follow
//! from the outcome *that stands*, whoever wrote it. Each of them may be repeated, so a crash after
//! any step is repaired by the next delivery. This file knows no network: it says which step is
//! next and is told how it went. `ledger.rs` carries the steps out; the tests below explore every
//! interleaving of two workers with a crash after every step.

use inferq_schemas::headers::Status;
use inferq_schemas::identity::Digest;

/// The next thing to do for a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Publish the proposed outcome, expecting none before it.
    Commit,
    /// Read the outcome that stands.
    Read,
    /// Publish the dead letter; one that is there already is as good.
    DeadLetter,
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
    /// It is done (for a dead letter: or was done before).
    Done,
    /// COMMIT only: an outcome stands already.
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
}

/// One delivery on its way from decision to acknowledgement.
#[derive(Debug, Clone)]
pub struct Settlement<T> {
    terms: Terms,
    step: Step,
    /// The proposed outcome until COMMIT, the standing one after.
    outcome: T,
    conflict: bool,
    /// A READ found none: the next COMMIT expects none, whatever the job says it supersedes.
    vacant: bool,
}

impl<T: Record> Settlement<T> {
    /// Starts from an outcome this worker proposes.
    pub fn commit(outcome: T, terms: Terms) -> Self {
        let step = if terms.recorded {
            Step::Commit
        } else {
            Step::Reply
        };
        let mut settlement = Self {
            terms,
            step,
            outcome,
            conflict: false,
            vacant: false,
        };
        settlement.skip_needless();
        settlement
    }

    /// Starts from an outcome that an earlier delivery left.
    pub fn standing(outcome: T, terms: Terms) -> Self {
        let mut settlement = Self {
            terms,
            step: Step::Read,
            outcome: outcome.clone(),
            conflict: false,
            vacant: false,
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

    /// Whether no outcome stood when this was last looked at.
    pub fn is_vacant(&self) -> bool {
        self.vacant
    }

    /// Takes note of how the step went.
    pub fn apply(&mut self, event: Event<T>) {
        self.step = match (self.step, event) {
            (Step::Commit, Event::Refused) => Step::Read,
            (Step::Commit | Step::Read, Event::Stands(standing)) => {
                // A job is told apart by id and body: the same id with another body is somebody else's answer.
                self.conflict = standing
                    .body_digest()
                    .is_some_and(|digest| digest != self.terms.body_digest);
                self.outcome = standing;
                Step::DeadLetter
            }
            // It was removed between the refusal and the look: ours may be written now.
            (Step::Read, Event::Missing) => {
                self.vacant = true;
                Step::Commit
            }
            (Step::DeadLetter, Event::Done) => Step::Reply,
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
        if self.step == Step::DeadLetter && !self.needs_dead_letter() {
            self.step = Step::Reply;
        }
        if self.step == Step::Reply && !self.terms.replies {
            self.step = Step::Acknowledge;
        }
        if self.step == Step::Acknowledge && !self.terms.acknowledges {
            self.step = Step::Done;
        }
    }

    fn needs_dead_letter(&self) -> bool {
        let failed = matches!(self.outcome.status(), Status::Error | Status::Dead);
        self.terms.recorded && !self.conflict && failed
    }
}

#[cfg(test)]
mod tests;
