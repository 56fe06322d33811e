//! What the stages hand to each other: a delivery becomes a job, a job becomes a verdict.
//!
//! Stages share these types and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use inferq_schemas::headers::{JobHeaders, OutcomeHeaders, ResultMode, Status};
use inferq_schemas::identity::{Digest, JobId};
use inferq_schemas::subjects::{Lane, ModelName};
use inferq_schemas::tensor::Tensor;
use inferq_schemas::{ContentType, ErrorCode, Failure, Form, InferRequest};
use tracing::Span;

use crate::clock::unix_ms_now;
use crate::deadline::Deadline;
use crate::disposition::{Circumstances, Disposition, JobError, disposition};
use crate::events::Teller;
use crate::hold::Hold;
use crate::metrics::Door;
use crate::models::Version;
use crate::settlement::{Record, Replay};

/// A message as it left the queue or the RPC door, before anybody looked inside.
#[derive(Debug)]
pub struct Delivery {
    /// Where it came from, and so how it is answered.
    pub origin: Origin,
    /// The model its subject names.
    pub model: ModelName,
    /// The lane its subject names; RPC requests name it in a header and may be changed at admission.
    pub lane: Lane,
    /// Headers as they arrived.
    pub headers: HeaderMap,
    /// Body as it arrived.
    pub body: Bytes,
    /// When this worker received it.
    pub received: Instant,
    /// Its job was cancelled after that: it ends, and is not run.
    pub called_off: bool,
    /// Room, progress acknowledgements and counters, all given back on drop.
    pub hold: Hold,
}

/// Where a delivery came from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A stored message: it comes again until it is acknowledged.
    Queue(Queued),
    /// A plain request to `infer.rpc.<model>`: nothing stores it, its caller waits.
    Rpc {
        /// The caller's inbox.
        reply: String,
    },
}

/// Coordinates of a stored message.
#[derive(Debug, Clone)]
pub struct Queued {
    /// The stream that stores it.
    pub stream: String,
    /// Its sequence in that stream.
    pub sequence: u64,
    /// Deliveries so far, this one included.
    pub attempt: u64,
    /// When the stream stored it, in unix milliseconds.
    pub published_unix_ms: u64,
    /// Where acknowledgements go; `None` for a job that the sweeper read, which was never delivered.
    pub ack: Option<String>,
    /// Whether an outcome is recorded: yes for jobs, no for queued RPC.
    pub recorded: bool,
}

/// A delivery whose identity and headers are known.
#[derive(Debug)]
pub struct Job {
    /// Where it came from.
    pub origin: Origin,
    /// The model it is for.
    pub model: ModelName,
    /// Its lane.
    pub lane: Lane,
    /// Its headers, understood.
    pub headers: JobHeaders,
    /// Its headers as they came: a dead letter keeps them.
    pub raw_headers: HeaderMap,
    /// Its body as it came.
    pub body: Bytes,
    /// BLAKE3 of model and body: tells two bodies under one id apart.
    pub digest: Digest,
    /// The type its answer is written in.
    pub content_type: ContentType,
    /// When it ends whether or not it has been run.
    pub deadline: Option<Deadline>,
    /// When this worker received it.
    pub received: Instant,
    /// Given back on drop.
    pub hold: Hold,
    /// Tells whoever listens how it gets on; only for a job that asks for it.
    pub events: Option<Arc<Teller>>,
    /// The span of its processing; children of it go to the same trace.
    pub span: Span,
}

impl Job {
    /// Deliveries so far, this one included; an RPC request has one.
    pub fn attempt(&self) -> u64 {
        match &self.origin {
            Origin::Queue(queued) => queued.attempt,
            Origin::Rpc { .. } => 1,
        }
    }

    /// Which door it came in by.
    pub fn door(&self) -> Door {
        match &self.origin {
            Origin::Queue(queued) if queued.recorded => Door::Job,
            Origin::Queue(_) | Origin::Rpc { .. } => Door::Rpc,
        }
    }

    /// Where its acknowledgements go, if it was delivered by a queue.
    pub fn ack(&self) -> Option<&str> {
        match &self.origin {
            Origin::Queue(queued) => queued.ack.as_deref(),
            Origin::Rpc { .. } => None,
        }
    }

    /// What it takes the place of, if it is the replay of a dead letter.
    pub fn replay(&self) -> Option<Replay> {
        self.headers.supersedes.map(|outcome| Replay {
            outcome,
            letter: self.headers.replays.unwrap_or(0),
        })
    }

    /// Where the answer goes, if anywhere.
    pub fn reply_to(&self) -> Option<&str> {
        match &self.origin {
            Origin::Queue(queued)
                if queued.recorded && self.headers.result_mode() == ResultMode::Store =>
            {
                None
            }
            Origin::Queue(_) => self.headers.reply_to.as_deref(),
            Origin::Rpc { reply } => Some(reply),
        }
    }
}

/// A job whose input fits its model.
#[derive(Debug)]
pub struct Admitted {
    /// The job.
    pub job: Job,
    /// The version that answers it.
    pub version: Arc<Version>,
    /// Inputs in the model's order.
    pub inputs: Vec<Tensor>,
    /// What the request said beside its inputs.
    pub ask: Ask,
}

/// What a request said beside its inputs.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Its own id, echoed in the answer.
    pub id: Option<String>,
    /// The form the answer takes.
    pub form: Form,
    /// Outputs asked for; all when empty.
    pub outputs: Vec<String>,
    /// Its parameters.
    pub parameters: inferq_schemas::Parameters,
}

impl Ask {
    /// Everything of `request` but its inputs.
    pub fn of(request: &InferRequest, form: Form) -> Self {
        Self {
            id: request.id.clone(),
            form,
            outputs: request.outputs.clone(),
            parameters: request.parameters.clone(),
        }
    }
}

/// A job's end, as the `infer.results` stream keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Status, codes and provenance.
    pub headers: OutcomeHeaders,
    /// The answer, or the error in the answer's type.
    pub body: Bytes,
    /// Its sequence in the results stream, once it stands there.
    pub sequence: Option<u64>,
}

impl Outcome {
    /// Stands for a record at `sequence` that is not ours to read: asking again would bring the same, for
    /// ever.
    pub fn unreadable(job: &JobId, sequence: Option<u64>) -> Self {
        let failure = Failure::new(
            ErrorCode::Conflict,
            format!(
                "the record that stands as the outcome of job {job} cannot be read; use a new id"
            ),
        );
        let content_type = ContentType::Json;
        Self {
            body: failure.body(content_type),
            headers: OutcomeHeaders {
                job_id: job.clone(),
                status: Status::Error,
                failure: Some(failure),
                worker: "unknown".to_owned(),
                model_version: None,
                attempt: 0,
                body_digest: None,
                payload_ref: None,
                content_type,
                traceparent: None,
            },
            sequence,
        }
    }
}

impl Record for Outcome {
    fn status(&self) -> Status {
        self.headers.status
    }

    fn body_digest(&self) -> Option<Digest> {
        self.headers.body_digest
    }

    fn sequence(&self) -> Option<u64> {
        self.sequence
    }
}

/// A job and what this worker has decided about it.
#[derive(Debug)]
pub struct Finished {
    /// The job.
    pub job: Job,
    /// The decision.
    pub verdict: Verdict,
}

/// What is to become of a delivery.
#[derive(Debug)]
pub enum Verdict {
    /// This is the outcome, unless another one stands already.
    Commit(Outcome),
    /// An earlier delivery left this outcome; its reply and acknowledgement follow.
    Standing(Outcome),
    /// Not now: deliver it again.
    Retry {
        /// After this long.
        after: Duration,
        /// Why.
        reason: String,
    },
}

/// Builds outcomes: every one names its worker, job, attempt and body in the same way.
#[derive(Debug, Clone)]
pub struct Author {
    /// The id of this worker.
    pub worker: Arc<str>,
}

impl Author {
    /// An outcome with a body of its own.
    pub fn answer(&self, job: &Job, version: u64, body: Bytes) -> Outcome {
        Outcome {
            headers: self.headers(job, Status::Ok, None, Some(version)),
            body,
            sequence: None,
        }
    }

    /// An outcome that says why there is no answer.
    pub fn failure(
        &self,
        job: &Job,
        status: Status,
        failure: Failure,
        version: Option<u64>,
    ) -> Outcome {
        let body = failure.body(job.content_type);
        Outcome {
            headers: self.headers(job, status, Some(failure), version),
            body,
            sequence: None,
        }
    }

    /// The end of a job that got no answer, or its next try.
    pub fn conclude(&self, job: Job, error: &JobError) -> Finished {
        let verdict = match disposition(error, circumstances(&job)) {
            Disposition::End(status, failure) => {
                Verdict::Commit(self.failure(&job, status, failure, None))
            }
            Disposition::RetryAfter(after) => Verdict::Retry {
                after,
                reason: error.to_string(),
            },
        };
        Finished { job, verdict }
    }

    fn headers(
        &self,
        job: &Job,
        status: Status,
        failure: Option<Failure>,
        version: Option<u64>,
    ) -> OutcomeHeaders {
        OutcomeHeaders {
            job_id: job.headers.id.clone(),
            status,
            failure,
            worker: self.worker.to_string(),
            model_version: version,
            attempt: job.attempt(),
            body_digest: Some(job.digest),
            payload_ref: None,
            content_type: job.content_type,
            traceparent: crate::telemetry::inject(&job.span)
                .or_else(|| job.headers.traceparent.clone()),
        }
    }
}

/// How often the RPC stream delivers a message: a retry of the last delivery would never come.
const RPC_DELIVERIES: u64 = 2;

fn circumstances(job: &Job) -> Circumstances {
    let (redeliverable, age) = match &job.origin {
        Origin::Queue(queued) => (
            queued.recorded || queued.attempt < RPC_DELIVERIES,
            Duration::from_millis(unix_ms_now().saturating_sub(queued.published_unix_ms)),
        ),
        Origin::Rpc { .. } => (false, job.received.elapsed()),
    };
    Circumstances {
        attempt: job.attempt(),
        age,
        left: job
            .deadline
            .map(|deadline| deadline.0.saturating_duration_since(Instant::now())),
        redeliverable,
        jitter: rand::random(),
    }
}
