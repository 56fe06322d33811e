//! Why a call to the library failed, a case per thing a caller can do about it.
//!
//! Every error names the next step, and has the code of the wire, so that a caller who only
//! forwards failures needs one `match` on [`ErrorCode`].

use std::time::Duration;

use inferq_schemas::{ErrorCode, Failure, JobId, ModelName, RequestError};

use crate::{blobs::BlobError, denied::DeniedSubject};

/// An error of the NATS client, kept as the source.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing answers there, or it refuses us.
    #[error(
        "no NATS server at {url}: {reason}; start one with `inferq up`, or name another with --nats or INFERQ_NATS"
    )]
    Unreachable {
        /// The address that was tried.
        url: String,
        /// What the connection attempt says.
        reason: String,
    },
    /// The credentials file cannot be used.
    #[error("the credentials file {path} cannot be read: {reason}")]
    Credentials {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// The subject prefix is not one.
    #[error(transparent)]
    Prefix(#[from] inferq_schemas::SubjectError),
}

/// Why a model is not known to be there.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// No such model is registered.
    #[error("no model `{model}`{}", suggestion(.nearest.as_deref()))]
    Unknown {
        /// The name asked for.
        model: ModelName,
        /// The registered name that looks most like it.
        nearest: Option<String>,
    },
    /// The bucket of known models does not exist.
    #[error("this server has no inferq streams yet; run `inferq init --models DIR` or `inferq up`")]
    NoAssets,
    /// This user may not do that.
    #[error(transparent)]
    Denied(#[from] DeniedSubject),
    /// The bucket of known models did not answer.
    #[error(
        "the list of models cannot be read; check the connection and the permission to read bucket {bucket}"
    )]
    Unreadable {
        /// The bucket.
        bucket: String,
        /// What the client says.
        #[source]
        source: Source,
    },
}

/// Why a job was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The model is not there; nothing was published.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The request cannot be written; nothing was published.
    #[error("the request cannot be encoded: {0}")]
    Body(#[from] RequestError),
    /// A header value cannot be sent; nothing was published.
    #[error("{field} `{value}` cannot be sent: {reason}")]
    Header {
        /// Which setting of the job.
        field: &'static str,
        /// Its value.
        value: String,
        /// Why not.
        reason: String,
    },
    /// The body is too large for a message and was not stored beside it; nothing was published.
    #[error("the body is too large for a message: {0}")]
    Blob(#[from] BlobError),
    /// Body and headers together are larger than a message may be; nothing was published.
    #[error(
        "the job has a body of {bytes} bytes and headers that do not fit beside it into the server's \
         max_payload of {max_payload}; shorten them"
    )]
    TooLarge {
        /// Size of the body in the message.
        bytes: usize,
        /// The server's limit for a whole message.
        max_payload: usize,
    },
    /// The id belongs to a job with another body.
    #[error(
        "job id {id} belongs to another body; use a new id, or ask for its outcome with `inferq result {id}`"
    )]
    Conflict {
        /// The id.
        id: JobId,
    },
    /// The queue is full.
    #[error(
        "the queue of this model and lane is full: {reason}; try again later, or start more workers"
    )]
    Overloaded {
        /// The server's words.
        reason: String,
    },
    /// No stream takes the subject.
    #[error("no stream takes {subject}; run `inferq init` or `inferq up`")]
    NoStream {
        /// Where the job was published.
        subject: String,
    },
    /// The server did not confirm in time. The job may be queued: send it again under the same id.
    #[error(
        "job {id} was not confirmed within {after:?}; it may be queued, so send it again under the same id"
    )]
    Unconfirmed {
        /// The id to use again.
        id: JobId,
        /// How long we waited.
        after: Duration,
    },
    /// This user may not do that.
    #[error(transparent)]
    Denied(#[from] DeniedSubject),
    /// The server refused the message.
    #[error("the server refused the job: {reason}")]
    Refused {
        /// The server's words.
        reason: String,
    },
}

/// Why there is no outcome to show.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// The deadline of the job has passed without an outcome; workers will not run it any more.
    #[error(
        "job {id} passed its deadline without an answer; allow more time, or start more workers"
    )]
    Expired {
        /// The job.
        id: JobId,
    },
    /// There is no outcome yet.
    #[error(
        "job {id} has no outcome{}; it may be waiting or running, its outcome may have aged out, or \
         there is no such job. Wait longer, and see `inferq workers`",
        after(*waited)
    )]
    NotYet {
        /// The job.
        id: JobId,
        /// How long we waited.
        waited: Duration,
    },
    /// There is no such job: neither in its queue nor as an outcome.
    #[error(
        "job {id} is in no queue any more and has no outcome: it was deleted, or its outcome has aged \
         out; send it again"
    )]
    Missing {
        /// The job.
        id: JobId,
    },
    /// The outcome stream does not exist.
    #[error("stream {stream} does not answer; run `inferq init` or `inferq up`")]
    NoStream {
        /// The stream.
        stream: String,
    },
    /// The outcome is not one that this version reads.
    #[error(
        "the outcome of job {id} cannot be read: {reason}; use an `inferq` as new as the workers"
    )]
    Unreadable {
        /// The job.
        id: JobId,
        /// What is wrong with it.
        reason: String,
    },
    /// The answer is too large for a message and could not be fetched.
    #[error("the answer of job {id} is too large for a message: {source}")]
    Blob {
        /// The job.
        id: JobId,
        /// Why not.
        #[source]
        source: BlobError,
    },
    /// This user may not do that.
    #[error(transparent)]
    Denied(#[from] DeniedSubject),
    /// The request did not get through.
    #[error("the outcome of job {id} could not be asked for; check the connection")]
    Request {
        /// The job.
        id: JobId,
        /// What the client says.
        #[source]
        source: Source,
    },
}

/// Why a direct call got no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Refused before it was sent.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The worker answered with a failure.
    #[error("{0}")]
    Failed(Failure),
    /// No worker listens for this model.
    #[error(
        "no worker serves model `{model}` at the moment; see `inferq workers`, and start one with `inferq-worker`"
    )]
    NoWorker {
        /// The model.
        model: ModelName,
    },
    /// No answer in time.
    #[error(
        "no answer from model `{model}` within {after:?}; allow more time, or start more workers"
    )]
    Deadline {
        /// The model.
        model: ModelName,
        /// How long we waited.
        after: Duration,
    },
    /// The answer is too large for a message and could not be fetched.
    #[error("the answer is too large for a message: {0}")]
    Blob(#[source] BlobError),
    /// The answer is not one that this version reads.
    #[error("the answer cannot be read: {reason}; use an `inferq` as new as the workers")]
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
    /// This user may not do that.
    #[error(transparent)]
    Denied(#[from] DeniedSubject),
    /// The request did not get through.
    #[error("the call was not sent; check the connection")]
    Request(#[source] Source),
}

/// Why [`Client::run`](crate::Client::run) has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The job was not accepted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The job was accepted, but no outcome came.
    #[error(transparent)]
    Result(#[from] ResultError),
}

impl ModelError {
    /// The code of the wire that says the same.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unknown { .. } => ErrorCode::NotFound,
            Self::NoAssets | Self::Denied(_) | Self::Unreadable { .. } => ErrorCode::Unavailable,
        }
    }
}

impl SubmitError {
    /// The code of the wire that says the same.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Model(error) => error.code(),
            Self::Body(_) | Self::Header { .. } => ErrorCode::BadInput,
            Self::Blob(error) => error.code(),
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Conflict { .. } => ErrorCode::Conflict,
            Self::Overloaded { .. } => ErrorCode::Overloaded,
            Self::NoStream { .. }
            | Self::Unconfirmed { .. }
            | Self::Denied(_)
            | Self::Refused { .. } => ErrorCode::Unavailable,
        }
    }
}

impl SubmitError {
    /// May the same job be accepted later, with nothing changed but the state of the server?
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unconfirmed { .. }
            | Self::Overloaded { .. }
            | Self::Model(ModelError::Unreadable { .. })
            | Self::Blob(BlobError::Full { .. } | BlobError::Unanswered { .. }) => true,
            Self::Model(_)
            | Self::Body(_)
            | Self::Header { .. }
            | Self::Blob(_)
            | Self::TooLarge { .. }
            | Self::Conflict { .. }
            | Self::NoStream { .. }
            | Self::Denied(_)
            | Self::Refused { .. } => false,
        }
    }
}

impl ResultError {
    /// The code of the wire that says the same.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Expired { .. } => ErrorCode::Deadline,
            Self::NotYet { .. } | Self::Missing { .. } => ErrorCode::NotFound,
            Self::NoStream { .. } | Self::Denied(_) | Self::Request { .. } => {
                ErrorCode::Unavailable
            }
            Self::Unreadable { .. } => ErrorCode::Model,
            Self::Blob { source, .. } => source.code(),
        }
    }
}

impl CallError {
    /// The code of the wire that says the same.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Submit(error) => error.code(),
            Self::Failed(failure) => failure.code,
            Self::Blob(error) => error.code(),
            Self::NoWorker { .. } | Self::Denied(_) | Self::Request(_) => ErrorCode::Unavailable,
            Self::Deadline { .. } => ErrorCode::Deadline,
            Self::Unreadable { .. } => ErrorCode::Model,
        }
    }
}

impl RunError {
    /// The code of the wire that says the same.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Submit(error) => error.code(),
            Self::Result(error) => error.code(),
        }
    }
}

/// How long a result was waited for; one look is no wait.
fn after(waited: Duration) -> String {
    if waited.is_zero() {
        " yet".to_owned()
    } else {
        format!(" after {waited:?}")
    }
}

fn suggestion(nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!("; did you mean `{name}`? `inferq workers` lists what is served"),
        None => {
            "; `inferq workers` lists what is served, `inferq init --models DIR` makes models known"
                .to_owned()
        }
    }
}
