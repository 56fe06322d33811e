//! Failure -> end the job, or try it again later: one pure function.

use std::sync::Arc;
use std::time::Duration;

use inferq_schemas::headers::Status;
use inferq_schemas::subjects::ModelName;
use inferq_schemas::{ErrorCode, Failure, HeaderProblem, RequestError};

use crate::blobs::BlobError;

/// Why a job got no answer.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Headers that this version cannot read; sending the job again cannot help.
    #[error("{}", join(.0))]
    Headers(Vec<HeaderProblem>),
    /// It speaks a newer protocol. A newer worker may understand it, for a while.
    #[error(
        "Infer-Proto: {0} is newer than 1, the newest this worker speaks; update the workers or the producer"
    )]
    NewerProtocol(u32),
    /// It was delivered more often than it allows; something about it keeps workers from finishing.
    #[error(
        "delivered {delivered} times, its limit is {limit} (Infer-Max-Attempts); no delivery was finished"
    )]
    TooManyAttempts {
        /// Deliveries so far.
        delivered: u64,
        /// `Infer-Max-Attempts`.
        limit: u32,
    },
    /// Its deadline passed before it was answered.
    #[error("the deadline passed before the job was run; ask for more time or add workers")]
    Expired,
    /// What is left until its deadline is less than its rows take.
    #[error(
        "the deadline leaves no time to run the job: its rows take about {0:?} (measured); ask for more time or send fewer rows"
    )]
    TooLate(Duration),
    /// Its tombstone stands in the cancel bucket.
    #[error("the job was cancelled")]
    Cancelled,
    /// No such model, version or label here.
    #[error("{0}")]
    Unknown(Failure),
    /// The model left this worker after the job was pulled. Its consumer stands, so it is known, and
    /// another worker may serve it.
    #[error("model `{0}` is not served by this worker any more")]
    Unloaded(ModelName),
    /// Its body is not a request that the model takes.
    #[error("{0}")]
    Request(#[from] RequestError),
    /// Something it asks for is not in this worker.
    #[error("{0}")]
    Unsupported(String),
    /// Its body by reference is not what the reference says; sending the job again cannot help.
    #[error("Infer-Payload-Ref: object {name}: {problem}; store the body again and send a new job")]
    Body {
        /// Name of the object.
        name: Arc<str>,
        /// What is wrong with it.
        #[source]
        problem: BlobError,
    },
    /// Its body by reference is larger than this worker may hold.
    #[error(
        "Infer-Payload-Ref: the body has {size} bytes, this worker takes {limit}; send fewer rows, or raise --max-inflight-bytes of the workers"
    )]
    BodyTooLarge {
        /// Size of the body as the reference says.
        size: u64,
        /// The most it may have.
        limit: usize,
    },
    /// The bucket of bodies did not give or take one. It may later.
    #[error("a body by reference: {0}")]
    Bucket(#[source] BlobError),
    /// The answer fits neither into a message nor beside it.
    #[error(
        "the answer has {bytes} bytes, the server takes {limit}, and {problem}; ask for fewer outputs, send fewer rows, or make the bucket larger with `inferq init --blobs-bytes`"
    )]
    AnswerTooLarge {
        /// Size of the answer.
        bytes: usize,
        /// `max_payload` of the server.
        limit: usize,
        /// Why it was not stored.
        #[source]
        problem: BlobError,
    },
    /// The engine refuses the input; it never will take it.
    #[error("{0}")]
    Input(String),
    /// The model fails on this input, and would again.
    #[error("{0}")]
    Model(String),
    /// The device failed in a way that another attempt, perhaps elsewhere, may not.
    #[error("{0}")]
    Device(String),
    /// Its forward pass did not return in the time that its model gives one. Another attempt may, alone
    /// or on a machine with less to do.
    #[error(
        "the forward pass took longer than {0:?}; send fewer rows, or raise limits.run_timeout in the model's model.toml"
    )]
    Overrun(Duration),
    /// This worker is stopping.
    #[error("the worker is stopping")]
    Stopping,
}

fn join(problems: &[HeaderProblem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// What to do with a job that got no answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Disposition {
    /// End it with this outcome.
    End(Status, Failure),
    /// Deliver it again after this long.
    RetryAfter(Duration),
}

/// What the decision depends on beside the error.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances {
    /// Deliveries so far, this one included.
    pub attempt: u64,
    /// Time since the stream stored it.
    pub age: Duration,
    /// Time to its deadline, if it has one.
    pub left: Option<Duration>,
    /// Whether it can be delivered again: not so for a plain RPC request.
    pub redeliverable: bool,
    /// Between 0 and 1, spreads retries.
    pub jitter: f64,
}

/// How long a job of a newer protocol waits for a newer worker.
const NEWER_WORKER_GRACE: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// What to tell the queue. No catch-all arm: a new variant has to be decided here.
pub fn disposition(error: &JobError, at: Circumstances) -> Disposition {
    let message = error.to_string();
    let end = |status, code| {
        Disposition::End(
            status,
            Failure {
                code,
                message: message.clone(),
            },
        )
    };
    match error {
        JobError::Headers(_)
        | JobError::Request(_)
        | JobError::Input(_)
        | JobError::Body { .. }
        | JobError::Unsupported(_) => end(Status::Error, ErrorCode::BadInput),
        JobError::NewerProtocol(_) if at.age >= NEWER_WORKER_GRACE => {
            end(Status::Error, ErrorCode::BadInput)
        }
        JobError::TooManyAttempts { .. } => end(Status::Dead, ErrorCode::Model),
        JobError::Expired | JobError::TooLate(_) => end(Status::Expired, ErrorCode::Deadline),
        JobError::Cancelled => end(Status::Cancelled, ErrorCode::Conflict),
        JobError::Unknown(failure) => Disposition::End(Status::Error, failure.clone()),
        JobError::AnswerTooLarge { .. } | JobError::BodyTooLarge { .. } => {
            end(Status::Error, ErrorCode::TooLarge)
        }
        JobError::Model(_) => end(Status::Error, ErrorCode::Model),
        JobError::NewerProtocol(_)
        | JobError::Device(_)
        | JobError::Overrun(_)
        | JobError::Bucket(_)
        | JobError::Unloaded(_) => {
            retry(at, backoff(at)).unwrap_or_else(|| no_retry(error, at, message.clone()))
        }
        JobError::Stopping => {
            retry(at, Duration::ZERO).unwrap_or_else(|| no_retry(error, at, message.clone()))
        }
    }
}

fn retry(at: Circumstances, delay: Duration) -> Option<Disposition> {
    let in_time = at.left.is_none_or(|left| delay < left);
    (at.redeliverable && in_time).then_some(Disposition::RetryAfter(delay))
}

/// The end of a job that would have been tried again.
fn no_retry(error: &JobError, at: Circumstances, message: String) -> Disposition {
    if at.redeliverable {
        // The next attempt would start after the deadline, so the caller hears of it now.
        let message = format!("{message}; the next attempt would start after the deadline");
        return Disposition::End(
            Status::Expired,
            Failure {
                code: ErrorCode::Deadline,
                message,
            },
        );
    }
    let code = match error {
        JobError::NewerProtocol(_) => ErrorCode::BadInput,
        _ => ErrorCode::Unavailable,
    };
    Disposition::End(Status::Error, Failure { code, message })
}

/// 0.5 s · 2^(attempt - 1), at most 60 s, and up to a quarter more so that retries do not march in step.
fn backoff(at: Circumstances) -> Duration {
    let doublings = u32::try_from(at.attempt.saturating_sub(1))
        .unwrap_or(u32::MAX)
        .min(7);
    let delay = (FIRST_RETRY * 2u32.pow(doublings)).min(LONGEST_RETRY);
    delay.mul_f64(1.0 + at.jitter.clamp(0.0, 1.0) / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(attempt: u64) -> Circumstances {
        Circumstances {
            attempt,
            age: Duration::ZERO,
            left: None,
            redeliverable: true,
            jitter: 0.0,
        }
    }

    fn status(disposition: &Disposition) -> Option<(Status, u16)> {
        match disposition {
            Disposition::End(status, failure) => Some((*status, failure.code.as_u16())),
            Disposition::RetryAfter(_) => None,
        }
    }

    #[test]
    fn retries_double_up_to_a_minute() {
        let error = JobError::Device("lost".into());
        let delays: Vec<u64> = (1..=9)
            .map(|attempt| match disposition(&error, at(attempt)) {
                Disposition::RetryAfter(delay) => delay.as_millis() as u64,
                Disposition::End(..) => 0,
            })
            .collect();
        assert_eq!(
            delays,
            [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]
        );
    }

    #[test]
    fn a_retry_that_would_pass_the_deadline_expires_at_once() {
        let near = Circumstances {
            left: Some(Duration::from_millis(400)),
            ..at(1)
        };
        assert_eq!(
            status(&disposition(&JobError::Device("lost".into()), near)),
            Some((Status::Expired, 408))
        );
        let far = Circumstances {
            left: Some(Duration::from_secs(2)),
            ..at(1)
        };
        assert_eq!(
            status(&disposition(&JobError::Device("lost".into()), far)),
            None
        );
    }

    #[test]
    fn permanent_errors_are_never_retried() {
        for attempt in [1, 5, 99] {
            assert_eq!(
                status(&disposition(
                    &JobError::Model("overflow".into()),
                    at(attempt)
                )),
                Some((Status::Error, 500))
            );
            assert_eq!(
                status(&disposition(
                    &JobError::Unsupported("no".into()),
                    at(attempt)
                )),
                Some((Status::Error, 400))
            );
        }
    }

    #[test]
    fn a_newer_protocol_waits_a_minute_for_a_newer_worker() {
        let error = JobError::NewerProtocol(2);
        assert_eq!(status(&disposition(&error, at(1))), None);
        let old = Circumstances {
            age: Duration::from_secs(61),
            ..at(4)
        };
        assert_eq!(
            status(&disposition(&error, old)),
            Some((Status::Error, 400))
        );
    }

    #[test]
    fn a_forward_pass_that_did_not_return_is_tried_again() {
        let error = JobError::Overrun(Duration::from_secs(60));
        assert_eq!(
            disposition(&error, at(2)),
            Disposition::RetryAfter(FIRST_RETRY * 2)
        );
        assert!(error.to_string().contains("60s"), "{error}");
        let call = Circumstances {
            redeliverable: false,
            ..at(1)
        };
        assert_eq!(
            status(&disposition(&error, call)),
            Some((Status::Error, 503)),
            "whoever waits for a call is told"
        );
    }

    #[test]
    fn what_cannot_come_again_is_told_to_its_caller() {
        let rpc = Circumstances {
            redeliverable: false,
            ..at(1)
        };
        assert_eq!(
            status(&disposition(&JobError::Device("lost".into()), rpc)),
            Some((Status::Error, 503))
        );
        assert_eq!(
            status(&disposition(&JobError::Stopping, rpc)),
            Some((Status::Error, 503))
        );
    }

    #[test]
    fn every_end_has_the_code_its_cause_calls_for() {
        let ends = [
            (JobError::Expired, Status::Expired, 408),
            (
                JobError::TooLate(Duration::from_millis(50)),
                Status::Expired,
                408,
            ),
            (JobError::Cancelled, Status::Cancelled, 409),
            (
                JobError::TooManyAttempts {
                    delivered: 9,
                    limit: 8,
                },
                Status::Dead,
                500,
            ),
            (
                JobError::AnswerTooLarge {
                    bytes: 2,
                    limit: 1,
                    problem: BlobError::Full("maximum bytes exceeded".into()),
                },
                Status::Error,
                413,
            ),
            (
                JobError::Body {
                    name: "a".into(),
                    problem: BlobError::Missing,
                },
                Status::Error,
                400,
            ),
            (
                JobError::BodyTooLarge { size: 2, limit: 1 },
                Status::Error,
                413,
            ),
            (
                JobError::Unknown(Failure {
                    code: ErrorCode::NotFound,
                    message: "no model".into(),
                }),
                Status::Error,
                404,
            ),
        ];
        for (error, expected, code) in ends {
            assert_eq!(
                status(&disposition(&error, at(1))),
                Some((expected, code)),
                "{error}"
            );
        }
    }
}
