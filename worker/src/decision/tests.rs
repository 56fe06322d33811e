//! Every case there is: how a delivery ends, against the order in which `ARCHITECTURE.md` asks.

use std::time::Duration;

use inferq_schemas::headers::Status;
use inferq_schemas::identity::Digest;
use inferq_schemas::{ErrorCode, Failure};

use super::*;
use crate::disposition::{Circumstances, Disposition, disposition};

/// Deliveries that the job allows.
const MOST: u32 = 8;
/// Sequence of the outcome that a replay replaces.
const REPLACED: u64 = 5;
/// Longer than any first retries, and shorter than later ones.
const SOON: Duration = Duration::from_millis(700);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Job,
    QueuedCall,
    Call,
}

/// Whether an outcome stands, if it is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    Nothing,
    TheReplaced,
    Another,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    Yes,
    Unknown,
    /// It left this worker after the job was pulled.
    Unloaded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ran {
    Answered,
    BadInput,
    ModelFailed,
    DeviceFailed,
    TookTooLong,
    Stopping,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    door: Door,
    attempt: u64,
    replay: bool,
    stands: Stands,
    newer: bool,
    bad_headers: bool,
    cancelled: bool,
    /// Time to its deadline; zero if it has passed.
    left: Option<Duration>,
    /// Older than what a newer worker is waited for.
    old: bool,
    served: Served,
    ran: Ran,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The outcome that stands is settled, and nothing is run.
    Standing,
    Answer,
    Failure(Status, u16),
    Retry,
}

#[derive(Debug, Clone)]
struct Earlier(u64);

impl Record for Earlier {
    fn status(&self) -> Status {
        Status::Error
    }
    fn body_digest(&self) -> Option<Digest> {
        None
    }
    fn sequence(&self) -> Option<u64> {
        Some(self.0)
    }
}

impl Case {
    fn facts(self) -> Facts {
        Facts {
            attempt: self.attempt,
            most: MOST,
            recorded: self.door == Door::Job,
            replay: self.replay.then_some(Replay {
                outcome: REPLACED,
                letter: 1,
            }),
            proto: if self.newer { PROTOCOL + 1 } else { PROTOCOL },
            problems: if self.bad_headers {
                vec![HeaderProblem {
                    header: "Infer-Timeout",
                    value: "soon".to_owned(),
                    accepted: "milliseconds".to_owned(),
                }]
            } else {
                Vec::new()
            },
            cancelled: self.cancelled,
            late: self.left.is_some_and(|left| left.is_zero()),
        }
    }

    /// As a worker finds it out: it does not look where nothing can stand.
    fn standing(self, facts: &Facts) -> Option<Earlier> {
        if !may_have_ended(facts.attempt, facts.recorded, facts.replay) {
            return None;
        }
        match self.stands {
            Stands::Nothing => None,
            Stands::TheReplaced => Some(Earlier(REPLACED)),
            Stands::Another => Some(Earlier(REPLACED + 1)),
        }
    }

    fn version(self) -> Result<(), JobError> {
        match self.served {
            Served::Yes => Ok(()),
            Served::Unknown => Err(JobError::Unknown(Failure {
                code: ErrorCode::NotFound,
                message: "no such model".to_owned(),
            })),
            Served::Unloaded => Err(JobError::Unloaded("digits".parse().expect("a name"))),
        }
    }

    fn run(self) -> Result<(), JobError> {
        match self.ran {
            Ran::Answered => Ok(()),
            Ran::BadInput => Err(JobError::Input("too wide".to_owned())),
            Ran::ModelFailed => Err(JobError::Model("overflow".to_owned())),
            Ran::DeviceFailed => Err(JobError::Device("lost".to_owned())),
            Ran::TookTooLong => Err(JobError::Overrun(Duration::from_secs(60))),
            Ran::Stopping => Err(JobError::Stopping),
        }
    }

    fn comes_again(self) -> bool {
        match self.door {
            Door::Job => true,
            Door::QueuedCall => self.attempt < 2,
            Door::Call => false,
        }
    }

    /// What the worker does.
    fn end(self) -> End {
        let facts = self.facts();
        let standing = self.standing(&facts);
        let error = match decide(facts, standing, || self.version()) {
            Decision::Settle(_) => return End::Standing,
            Decision::Run(()) => match self.run() {
                Ok(()) => return End::Answer,
                Err(error) => error,
            },
            Decision::Conclude(error) => error,
        };
        let at = Circumstances {
            attempt: self.attempt,
            age: Duration::from_secs(if self.old { 61 } else { 1 }),
            left: self.left,
            redeliverable: self.comes_again(),
            jitter: 0.0,
        };
        match disposition(&error, at) {
            Disposition::End(status, failure) => End::Failure(status, failure.code.as_u16()),
            Disposition::RetryAfter(_) => End::Retry,
        }
    }

    /// What it should do, question by question.
    fn expected(self) -> End {
        let job = self.door == Door::Job;
        let looked = job && (self.attempt > 1 || self.replay);
        let counts = match self.stands {
            Stands::Nothing => false,
            Stands::TheReplaced => !self.replay,
            Stands::Another => true,
        };
        if looked && counts {
            return End::Standing;
        }
        if self.newer {
            return match self.old {
                true => End::Failure(Status::Error, 400),
                false => self.again(self.backoff(), 400),
            };
        }
        if self.bad_headers {
            return End::Failure(Status::Error, 400);
        }
        if job && self.attempt > u64::from(MOST) {
            return End::Failure(Status::Dead, 500);
        }
        if self.cancelled {
            return End::Failure(Status::Cancelled, 409);
        }
        if self.left == Some(Duration::ZERO) {
            return End::Failure(Status::Expired, 408);
        }
        match (self.served, self.ran) {
            (Served::Unknown, _) => End::Failure(Status::Error, 404),
            (Served::Unloaded, _) => self.again(self.backoff(), 503),
            (Served::Yes, Ran::Answered) => End::Answer,
            (Served::Yes, Ran::BadInput) => End::Failure(Status::Error, 400),
            (Served::Yes, Ran::ModelFailed) => End::Failure(Status::Error, 500),
            (Served::Yes, Ran::DeviceFailed | Ran::TookTooLong) => self.again(self.backoff(), 503),
            (Served::Yes, Ran::Stopping) => self.again(Duration::ZERO, 503),
        }
    }

    /// 0.5 s · 2^(n-1), at most 60 s.
    fn backoff(self) -> Duration {
        let doublings = u32::try_from(self.attempt - 1).unwrap_or(u32::MAX);
        let delay = Duration::from_millis(500).saturating_mul(2_u32.saturating_pow(doublings));
        delay.min(Duration::from_secs(60))
    }

    /// Another delivery after `delay`, if there is one and it comes in time.
    fn again(self, delay: Duration, else_code: u16) -> End {
        match (self.comes_again(), self.left) {
            (false, _) => End::Failure(Status::Error, else_code),
            (true, Some(left)) if delay >= left => End::Failure(Status::Expired, 408),
            (true, _) => End::Retry,
        }
    }
}

/// Every value of each of them, in turn.
macro_rules! every {
    ($($name:ident in $values:expr),+ => $body:expr) => {
        every!(@ $($name in $values),+ => $body)
    };
    (@ $name:ident in $values:expr => $body:expr) => {
        for $name in $values { $body }
    };
    (@ $name:ident in $values:expr, $($rest:tt)+) => {
        for $name in $values { every!(@ $($rest)+) }
    };
}

#[test]
fn every_delivery_ends_as_the_order_of_the_questions_says() {
    const BOTH: [bool; 2] = [false, true];
    let mut cases = 0;
    every!(
        door in [Door::Job, Door::QueuedCall, Door::Call],
        attempt in [1, 2, 3, u64::from(MOST), u64::from(MOST) + 1, 1_000],
        replay in BOTH,
        stands in [Stands::Nothing, Stands::TheReplaced, Stands::Another],
        newer in BOTH,
        bad_headers in BOTH,
        cancelled in BOTH,
        left in [None, Some(Duration::ZERO), Some(SOON), Some(Duration::from_secs(3_600))],
        old in BOTH,
        served in [Served::Yes, Served::Unknown, Served::Unloaded],
        ran in [Ran::Answered, Ran::BadInput, Ran::ModelFailed, Ran::DeviceFailed, Ran::TookTooLong, Ran::Stopping]
        => {
            let case = Case { door, attempt, replay, stands, newer, bad_headers, cancelled, left, old, served, ran };
            assert_eq!(case.end(), case.expected(), "{case:?}");
            cases += 1;
        }
    );
    assert_eq!(cases, 3 * 6 * 2 * 3 * 2 * 2 * 2 * 4 * 2 * 3 * 6);
}
