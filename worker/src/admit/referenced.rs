//! Step 8 of admission for a body that is not in its message: make room, fetch it, verify it.

use std::sync::Arc;

use bytes::Bytes;
use inferq_schemas::{ContentType, PayloadRef};

use crate::admit::Admission;
use crate::blobs::{BlobError, Blobs};
use crate::deadline::passed;
use crate::disposition::JobError;
use crate::job::Job;

impl Admission {
    /// The body of `job`: that of its message, or the one it refers to, for which room is reserved
    /// as long as the job is held.
    pub(super) async fn body(&self, job: &mut Job) -> Result<Bytes, JobError> {
        let Some(reference) = job.headers.payload_ref.clone() else {
            return Ok(job.body.clone());
        };
        if !job.body.is_empty() {
            let message = "Infer-Payload-Ref: the message has a body as well; send one of the two";
            return Err(JobError::Unsupported(message.to_owned()));
        }
        // Within reach first, looked up after: a cancellation in between is seen by one of the two.
        let grip = self.in_hand.take(&job.headers.id);
        if self.tombstones.call_off(&job.headers, &job.origin) {
            return Err(JobError::Cancelled);
        }
        let deadline = job.deadline;
        let body = tokio::select! {
            biased;
            fetched = self.fetched(job, &reference) => fetched?,
            () = grip.stopped() => return Err(JobError::Cancelled),
            () = passed(deadline) => return Err(JobError::Expired),
        };
        if job.headers.content_type.is_none() {
            job.content_type = ContentType::detect(&body);
        }
        Ok(body)
    }

    async fn fetched(&self, job: &mut Job, reference: &PayloadRef) -> Result<Bytes, JobError> {
        let most = job.hold.most_bytes().min(self.limits.max_body_bytes);
        let bytes = usize::try_from(reference.size()).unwrap_or(usize::MAX);
        if bytes > most {
            return Err(JobError::BodyTooLarge {
                size: reference.size(),
                limit: most,
            });
        }
        job.hold.reserve(bytes).await;
        let name: Arc<str> = reference.name().into();
        let fetched = Blobs::of(&self.ledger).fetch(reference).await;
        fetched.map_err(|error| match error {
            BlobError::Missing | BlobError::Damaged => JobError::Body {
                name,
                problem: error,
            },
            BlobError::Full(_) | BlobError::Unanswered(_) => JobError::Bucket(error),
        })
    }
}
