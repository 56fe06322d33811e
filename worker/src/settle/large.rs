//! Outcomes that do not fit into a message: stored beside it, and told to those who cannot follow a
//! reference.

use inferq_schemas::headers::Status;
use inferq_schemas::{ErrorCode, Failure, PayloadRef};
use tracing::{debug, warn};

use crate::blobs::{BlobError, Blobs};
use crate::disposition::JobError;
use crate::job::{Finished, Job, Outcome, Verdict};
use crate::settle::Settler;

/// Room for the headers of an outcome beside its body, in bytes.
const HEADER_BYTES: usize = 4 * 1024;

impl Settler {
    /// The same verdict, but with a reference in place of an answer that is too large for a message.
    pub(super) async fn by_reference(&self, finished: Finished) -> Finished {
        let Finished { job, verdict } = finished;
        let limit = self.ledger.max_payload();
        let mut outcome = match verdict {
            Verdict::Commit(outcome) if outcome.body.len() + HEADER_BYTES > limit => outcome,
            verdict => return Finished { job, verdict },
        };
        let bytes = outcome.body.len();
        let reference = PayloadRef::fresh(&outcome.body);
        match Blobs::of(&self.ledger)
            .store(&reference, &outcome.body)
            .await
        {
            Ok(()) => {
                outcome.headers.payload_ref = Some(reference);
                outcome.body = bytes::Bytes::new();
                let verdict = Verdict::Commit(outcome);
                Finished { job, verdict }
            }
            Err(error @ BlobError::Full(_)) => {
                let problem = error;
                let error = JobError::AnswerTooLarge {
                    bytes,
                    limit,
                    problem,
                };
                self.author.conclude(job, &error)
            }
            Err(error) => self.author.conclude(job, &JobError::Bucket(error)),
        }
    }

    /// Deletes what nobody needs once `standing` is the outcome of `job`: its own body, if it has
    /// no dead letter, and the answer that `proposed` names, if another stands.
    ///
    /// What is left behind by a crash or a bucket without answer is deleted by age.
    pub(super) async fn clear(
        &self,
        job: &Job,
        proposed: Option<PayloadRef>,
        standing: &Outcome,
        conflict: bool,
    ) {
        // With a dead letter it may be run again.
        let is_over = match standing.headers.status {
            Status::Ok | Status::Expired | Status::Cancelled => !conflict,
            Status::Error | Status::Dead => false,
        };
        let body = job.headers.payload_ref.as_ref().filter(|_| is_over);
        let answer = proposed
            .as_ref()
            .filter(|proposed| standing.headers.payload_ref.as_ref() != Some(*proposed));
        for reference in body.into_iter().chain(answer) {
            match Blobs::of(&self.ledger).delete(reference).await {
                Ok(()) => debug!(object = reference.name(), "a body was deleted"),
                Err(error) => {
                    warn!(%error, "a body by reference was not deleted, its age will do it");
                }
            }
        }
    }

    /// What is replied where `outcome` has its answer beside it and `job` did not say that it can
    /// follow a reference: an error that names where the answer is.
    pub(super) fn too_large_to_reply(&self, job: &Job, outcome: &Outcome) -> Option<Outcome> {
        let reference = outcome.headers.payload_ref.as_ref()?;
        if job.headers.accept_ref {
            return None;
        }
        let message = format!(
            "the answer has {} bytes, the server takes {}; it is object {} of bucket {} for a day (Infer-Payload-Ref). \
             Fetch it there, or ask for fewer outputs or send fewer rows; with Infer-Accept: ref the reply is the reference",
            reference.size(),
            self.ledger.max_payload(),
            reference.name(),
            self.ledger.assets().blobs_obj(),
        );
        let failure = Failure::new(ErrorCode::TooLarge, message);
        let version = outcome.headers.model_version;
        let mut told = self.author.failure(job, Status::Error, failure, version);
        told.headers.payload_ref = Some(reference.clone());
        Some(told)
    }
}
