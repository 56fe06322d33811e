//! Calls jobs off: listens on `infer.cancel.<job>`.
//!
//! Every worker hears every cancellation and stops what it has in hand of the job. One of them,
//! through the queue group, writes the outcome `cancelled` by compare-and-set, then the tombstone
//! that keeps a queued job from being run, and answers with the outcome that stands. So the results
//! stream decides every race: a job that was answered first stays answered, and the canceller is told.
//! Of one that had failed a replay may wait in the queue, which a tombstone of its own calls off.
//!
//! What is stopped at once is a job that waits here or is part of a batch to come. A forward pass that
//! has begun stops at its next operator, unless somebody waits for other rows of it.

use std::time::Duration;

use async_nats::{Message, SubscribeError, Subscriber};
use futures::StreamExt;
use inferq_schemas::headers::{OutcomeHeaders, Status};
use inferq_schemas::identity::JobId;
use inferq_schemas::{ContentType, ErrorCode, Failure};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::cancelled::{Tombstone, Tombstones};
use crate::disposition::JobError;
use crate::job::{Author, Outcome};
use crate::ledger::{Keep, Ledger, Unanswered};
use crate::metrics::{Metrics, OutcomeLabel};
use crate::pull::micro::Member;
use crate::settlement::Event;

mod in_hand;

pub use in_hand::{Grip, InHand};

/// Longest try to write the outcome. Whoever asked waits longer, so that it is told of a failure.
const DECIDE_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait for the bucket. Without its tombstone a job costs a run and ends the same.
const BURY_WITHIN: Duration = Duration::from_secs(2);
/// Pause before a step without an answer is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// Cancellations that one worker answers at the same time.
const MOST_AT_ONCE: usize = 64;

/// What calling off needs.
#[derive(Clone)]
pub struct Canceller {
    /// Where outcomes and tombstones are written.
    pub ledger: Ledger,
    /// Signs the outcomes.
    pub author: Author,
    /// What this worker has in hand.
    pub in_hand: InHand,
    /// What this worker knows to be cancelled.
    pub tombstones: Tombstones,
    /// Counts answers.
    pub metrics: Metrics,
}

impl Canceller {
    /// Subscribes to what every worker hears, and to this worker's share of what is to be answered.
    ///
    /// # Errors
    /// If the connection is closed.
    pub async fn listen(&self) -> Result<(Subscriber, Member), SubscribeError> {
        let subject = self.ledger.subjects().every_cancel();
        let client = self.ledger.client();
        let heard = client.subscribe(subject.clone()).await?;
        let requests = Member::join(client, subject).await?;
        Ok((heard, requests))
    }

    /// Stops what is in hand of cancelled jobs, until `ended`: a drain may be cancelled as well.
    pub async fn hear(self, mut heard: Subscriber, ended: CancellationToken) {
        loop {
            let message = tokio::select! {
                () = ended.cancelled() => return,
                message = heard.next() => message,
            };
            let Some(message) = message else { return };
            let Some(job) = self.ledger.subjects().parse_cancel(&message.subject) else {
                continue;
            };
            let stopped = self.in_hand.stop(&job);
            debug!(%job, stopped, "a job was cancelled");
        }
    }

    /// Answers this worker's share of the cancellations until `stop`, then those on their way.
    pub async fn answer(self, mut requests: Member, stop: CancellationToken) {
        let mut answers = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = answers.join_next() => {}
                request = requests.next(), if answers.len() < MOST_AT_ONCE => match request {
                    Some(request) => {
                        answers.spawn(self.clone().call_off(request));
                    }
                    None => break,
                },
            }
        }
        match requests.leave(&self.ledger).await {
            Ok(mut last) => {
                while let Some(request) = last.next().await {
                    answers.spawn(self.clone().call_off(request));
                }
            }
            Err(error) => warn!(%error, "could not leave the queue group of cancellations"),
        }
        while answers.join_next().await.is_some() {}
    }

    async fn refuse(&self, reply: Option<&str>, code: ErrorCode, message: String) {
        if let Some(reply) = reply {
            let failure = Failure::new(code, message);
            self.ledger.refuse(reply, &failure, ContentType::Json).await;
        }
    }

    async fn call_off(self, request: Message) {
        let reply = request.reply.as_deref();
        let Some(job) = self.ledger.subjects().parse_cancel(&request.subject) else {
            let message = format!(
                "{}: no job can have this id; it has 1 to 64 of A-Z a-z 0-9 _ -",
                request.subject
            );
            return self.refuse(reply, ErrorCode::BadInput, message).await;
        };
        let proposed = self.outcome(job.clone());
        let Ok(standing) = timeout(DECIDE_WITHIN, self.decide(&proposed)).await else {
            let message = format!(
                "job {job} may not be cancelled yet: its outcome could not be written; ask again"
            );
            return self.refuse(reply, ErrorCode::Unavailable, message).await;
        };
        let status = standing.headers.status;
        let tombstone = match status {
            Status::Cancelled => Some(Tombstone::Job),
            Status::Error | Status::Dead => standing.sequence.map(Tombstone::Replay),
            Status::Ok | Status::Expired => None,
        };
        if let Some(tombstone) = tombstone
            && let Err(problem) = self.bury(&job, tombstone).await
        {
            warn!(%job, %problem, "no tombstone for a cancelled job, a worker may run it in vain");
        }
        self.metrics.cancellation(OutcomeLabel::from(status));
        if let Some(reply) = reply {
            self.ledger.reply(reply, &standing).await;
        }
    }

    fn outcome(&self, job: JobId) -> Outcome {
        let failure = Failure::new(ErrorCode::Conflict, JobError::Cancelled.to_string());
        let content_type = ContentType::Json;
        Outcome {
            body: failure.body(content_type),
            headers: OutcomeHeaders {
                job_id: job,
                status: Status::Cancelled,
                failure: Some(failure),
                worker: self.author.worker.to_string(),
                model_version: None,
                // It was not delivered for this.
                attempt: 0,
                // Whatever body the id belongs to, it is cancelled.
                body_digest: None,
                payload_ref: None,
                content_type,
                traceparent: None,
            },
            sequence: None,
        }
    }

    /// Writes `proposed` unless an outcome stands; returns the one that does. Tries for ever.
    async fn decide(&self, proposed: &Outcome) -> Outcome {
        loop {
            match self.ledger.commit(proposed, 0, Keep::Everything).await {
                Event::Stands(ours) => return ours,
                Event::Refused => match self.ledger.read(&proposed.headers.job_id).await {
                    Ok(Some(standing)) => return standing,
                    // A replica lags behind, or the outcome has just aged out.
                    Ok(None) => {}
                    // Its reason is noted, and the caller is told if it lasts.
                    Err(_) => {}
                },
                Event::Unanswered | Event::Done | Event::Missing => {}
            }
            sleep(PAUSE).await;
        }
    }

    /// Leaves word for whoever is delivered the job later.
    async fn bury(&self, job: &JobId, tombstone: Tombstone) -> Result<(), Unanswered> {
        let put = self.tombstones.put(job, tombstone, &self.ledger);
        let put = timeout(BURY_WITHIN, put).await;
        put.map_err(|_| Unanswered::of("no answer")).flatten()
    }
}
