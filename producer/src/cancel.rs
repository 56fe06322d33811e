//! Calls a job off, wherever it is: queued, waiting in a worker, or running.

use std::time::Duration;

use async_nats::{Request, RequestErrorKind};
use inferq_schemas::{ErrorCode, Failure, JobId};

use crate::{
    blobs::BlobError,
    client::Client,
    denied::DeniedSubject,
    error::Source,
    outcome::{Outcome, service_error},
};

/// A worker answers within milliseconds, or tells after 5 s that it could not write the outcome.
const CANCEL_WITHIN: Duration = Duration::from_secs(10);

/// Why it is not known whether a job is called off. Asking again is always right.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// No worker hears it. The job stays as it is.
    #[error(
        "no worker is there to cancel job {id}; see `inferq workers`, and start one with `inferq-worker`"
    )]
    NoWorker {
        /// The job.
        id: JobId,
    },
    /// A worker heard it and could not decide.
    #[error("{0}")]
    Failed(Failure),
    /// No answer in time. The job may be cancelled.
    #[error("no worker answered within {after:?} whether job {id} is cancelled; ask again")]
    Deadline {
        /// The job.
        id: JobId,
        /// How long we waited.
        after: Duration,
    },
    /// The job had ended, and its answer is too large for a message and could not be fetched.
    #[error("job {id} has ended, its answer is too large for a message: {source}")]
    Blob {
        /// The job.
        id: JobId,
        /// Why not.
        #[source]
        source: BlobError,
    },
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
    #[error("the cancellation was not sent; check the connection")]
    Request(#[source] Source),
}

impl CancelError {
    /// The code of the wire that says the same.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Failed(failure) => failure.code,
            Self::Deadline { .. } => ErrorCode::Deadline,
            Self::Blob { source, .. } => source.code(),
            Self::Unreadable { .. } => ErrorCode::Model,
            Self::NoWorker { .. } | Self::Denied(_) | Self::Request(_) => ErrorCode::Unavailable,
        }
    }
}

impl Client {
    /// Calls a job off and returns the outcome that stands then.
    ///
    /// That is [`Status::Cancelled`](crate::Status::Cancelled), unless the job had ended before: then
    /// it stays as it ended, and its outcome is returned. A job that is queued is not run, one that
    /// runs is not answered. An id that no job has had yet is taken by this, and a job sent under it
    /// later is not run. It is decided within 10 s, whatever happens to the connection; an answer that
    /// stands and is too large for a message is then fetched, as [`Client::result`] does.
    ///
    /// ```no_run
    /// # async fn example(client: inferq::Client, id: inferq::JobId) -> Result<(), Box<dyn std::error::Error>> {
    /// let outcome = client.cancel(&id).await?;
    /// if outcome.status() != inferq::Status::Cancelled {
    ///     println!("too late, it ended as {}", outcome.status());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`CancelError`]; after any of them it is right to ask again.
    pub async fn cancel(&self, id: &JobId) -> Result<Outcome, CancelError> {
        let subject = self.inner.subjects.cancel(id);
        let message = Request::new()
            .inbox(self.inner.nats.new_inbox())
            .timeout(Some(CANCEL_WITHIN));
        let request = self.inner.nats.send_request(subject.clone(), message);
        let request = tokio::time::timeout(CANCEL_WITHIN, request);
        let deadline = || CancelError::Deadline {
            id: id.clone(),
            after: CANCEL_WITHIN,
        };
        let answer = self.inner.denials.watch(&subject, request).await?;
        let answer = answer.map_err(|_| deadline())?;
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => CancelError::NoWorker { id: id.clone() },
            RequestErrorKind::TimedOut => deadline(),
            _ => CancelError::Request(error.into()),
        })?;
        let failed = service_error(answer.headers.as_ref());
        let outcome = Outcome::read(answer.headers.as_ref(), answer.payload);
        let outcome = outcome.map_err(|reason| match failed {
            Some(failure) => CancelError::Failed(failure),
            None => CancelError::Unreadable { reason },
        })?;
        let whole = self.whole(outcome).await;
        whole.map_err(|source| CancelError::Blob {
            id: id.clone(),
            source,
        })
    }
}
