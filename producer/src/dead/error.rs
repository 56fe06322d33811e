//! Why a dead letter was not read, deleted or sent again.

use async_nats::jetstream::{
    ErrorCode,
    stream::{ConsumerError, ConsumerErrorKind},
};
use inferq_schemas::JobId;

use crate::{
    blobs::BlobError,
    denied::DeniedSubject,
    error::{Source, SubmitError},
};

/// Why dead letters were not read or deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeadError {
    /// There is none, or none any more.
    #[error(
        "job {job} has no dead letter; it may have been replayed or purged, or the job did not fail. See `inferq result {job}`"
    )]
    NotFound {
        /// The job.
        job: JobId,
    },
    /// The stream of dead letters does not exist.
    #[error("this server has no stream {stream}; run `inferq init` or `inferq up`")]
    NoStream {
        /// The stream.
        stream: String,
    },
    /// This user may not do that.
    #[error(transparent)]
    Denied(#[from] DeniedSubject),
    /// The request did not get through.
    #[error(
        "stream {stream} did not answer as it should; check the connection and the rights of an administrator"
    )]
    Request {
        /// The stream.
        stream: String,
        /// What the client says.
        #[source]
        source: Source,
    },
}

impl DeadError {
    pub(super) fn of_consumer(stream: &str, error: ConsumerError) -> Self {
        let stream = stream.to_owned();
        match error.kind() {
            ConsumerErrorKind::JetStream(answer)
                if answer.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Self::NoStream { stream }
            }
            _ => Self::Request {
                stream,
                source: error.into(),
            },
        }
    }
}

/// Why a dead letter was not sent again. With all but [`NotDeleted`](Self::NotDeleted) it is still
/// there, as it was, and with all but [`Submit`](Self::Submit) nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read, or is gone: somebody else may have replayed it.
    #[error(transparent)]
    Letter(#[from] DeadError),
    /// It does not name the outcome to replace, so that its job would end at once with the old one.
    #[error(
        "the dead letter of job {job} does not name its outcome, so it is not one of a worker; submit its body as a new job"
    )]
    NoOutcome {
        /// The job.
        job: JobId,
    },
    /// The worker that wrote it had to leave a part out.
    #[error(
        "the dead letter of job {job} was kept without the job's {part}, which did not fit into a message; submit it anew from its source"
    )]
    Incomplete {
        /// The job.
        job: JobId,
        /// `body` or `headers`.
        part: &'static str,
    },
    /// Its deadline has passed, so that no worker would run it.
    #[error("the deadline of job {job} has passed; give it more time with --timeout")]
    Deadline {
        /// The job.
        job: JobId,
    },
    /// Its body, which did not fit into a message, is not there any more.
    #[error(
        "job {job} is not sent again without its body: {source}. If that is gone, submit the job anew from its source"
    )]
    NoBody {
        /// The job.
        job: JobId,
        /// What the bucket of bodies says.
        #[source]
        source: BlobError,
    },
    /// The job was not accepted again, or that is not certain ([`SubmitError::Unconfirmed`]); trying
    /// again is always right.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The job is queued again, but its dead letter is still there.
    #[error(
        "job {job} is queued again, but its dead letter could not be deleted; `inferq dead purge {job}` does it, and replaying it again does no harm"
    )]
    NotDeleted {
        /// The job.
        job: JobId,
        /// Why not.
        #[source]
        source: DeadError,
    },
}
