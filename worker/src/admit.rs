//! Decides whether a delivery is run: who it is, whether it is answered already, whether it is too
//! late, which version takes it, and whether its input fits. A body by reference is fetched here.
//!
//! The order is that of `ARCHITECTURE.md`: identity; an outcome that stands already; headers;
//! attempts; cancellation; deadline; model; body. Whatever ends here ends with a message that names
//! the place.

use std::sync::Arc;

use bytes::Bytes;
use inferq_schemas::headers::{JobHeaders, ParsedHeaders};
use inferq_schemas::identity::JobId;
use inferq_schemas::subjects::{Lane, ReplyPrefixes};
use inferq_schemas::tensor::Tensor;
use inferq_schemas::{ContentType, HeaderProblem, InferRequest, Limits};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{Instrument, info_span, warn};

use crate::cancel::InHand;
use crate::cancelled::Tombstones;
use crate::clock::unix_ms_now;
use crate::deadline::{Deadline, RpcTimes, rpc_deadline_unix_ms};
use crate::decision::{Decision, Facts, decide, may_have_ended};
use crate::disposition::JobError;
use crate::events::Events;
use crate::job::{Admitted, Ask, Author, Delivery, Finished, Job, Origin, Outcome, Verdict};
use crate::ledger::{Ledger, header_pairs};
use crate::metrics::Door;
use crate::models::{Models, Version};
use crate::telemetry;

mod referenced;

/// What admission needs.
pub struct Admission {
    /// Where standing outcomes are read.
    pub ledger: Ledger,
    /// The versions that are loaded.
    pub models: Models,
    /// Jobs that were cancelled.
    pub tombstones: Tombstones,
    /// Lets a cancellation reach a job whose body is fetched.
    pub in_hand: InHand,
    /// Addresses that replies may go to.
    pub replies: ReplyPrefixes,
    /// What a request may hold.
    pub limits: Limits,
    /// Deadlines of RPC requests.
    pub rpc_times: RpcTimes,
    /// Writes refusals.
    pub author: Author,
    /// Tells of jobs that ask for it.
    pub events: Events,
}

/// Runs the stage until its input closes. Admitted jobs go on, all others straight to settlement.
pub async fn run(
    mut deliveries: mpsc::Receiver<Delivery>,
    admission: Arc<Admission>,
    admitted: mpsc::Sender<Admitted>,
    finished: mpsc::Sender<Finished>,
) {
    // Room is bounded before this stage, so the number of tasks is too.
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            delivery = deliveries.recv() => match delivery {
                Some(delivery) => {
                    let (admission, admitted, finished) = (admission.clone(), admitted.clone(), finished.clone());
                    tasks.spawn(async move {
                        let sent = match admission.admit(delivery).await {
                            Ok(job) => admitted.send(job).await.is_ok(),
                            Err(refused) => finished.send(*refused).await.is_ok(),
                        };
                        if !sent {
                            warn!("the next stage has ended, the job comes again");
                        }
                    });
                }
                None => break,
            },
            Some(ended) = tasks.join_next() => if let Err(error) = ended {
                warn!(%error, "an admission stopped half-way, its job comes again");
            },
        }
    }
    while tasks.join_next().await.is_some() {}
}

impl Admission {
    async fn admit(&self, delivery: Delivery) -> Result<Admitted, Box<Finished>> {
        let called_off = delivery.called_off;
        let (mut job, problems) = self.identify(delivery);
        let span = job.span.clone();
        async move {
            let standing = self.standing(&job).await;
            if job.door() == Door::Job && job.replay().is_some() {
                self.tombstones.look(&job.headers.id, &self.ledger).await;
            }
            let facts = self.facts(&job, problems, called_off);
            let error = match decide(facts, standing, || self.version(&job)) {
                Decision::Settle(standing) => {
                    let verdict = Verdict::Standing(standing);
                    return Err(Box::new(Finished { job, verdict }));
                }
                Decision::Conclude(error) => error,
                Decision::Run(version) => match self.take(&mut job, &version).await {
                    Ok((inputs, ask)) => {
                        return Ok(Admitted {
                            job,
                            version,
                            inputs,
                            ask,
                        });
                    }
                    Err(error) => error,
                },
            };
            Err(Box::new(self.author.conclude(job, &error)))
        }
        .instrument(span)
        .await
    }

    /// Identity and headers. A job without an id of its own is called by its place in the stream.
    pub fn identify(&self, delivery: Delivery) -> (Job, Vec<HeaderProblem>) {
        let fallback = match &delivery.origin {
            Origin::Queue(queued) => JobId::derived(&queued.stream, queued.sequence),
            Origin::Rpc { .. } => JobId::random(),
        };
        let ParsedHeaders { headers, problems } =
            JobHeaders::parse(header_pairs(&delivery.headers), fallback, &self.replies);
        let deadline = self
            .deadline(&delivery.origin, &headers)
            .map(Deadline::from_unix_ms);
        let lane = match &delivery.origin {
            Origin::Queue(_) => delivery.lane,
            Origin::Rpc { .. } => headers.lane.unwrap_or(Lane::High),
        };
        let span = info_span!("job", job = %headers.id, model = %delivery.model, lane = %lane);
        telemetry::set_parent(&span, &headers);
        let events = match &delivery.origin {
            Origin::Queue(queued) if queued.recorded && headers.events => {
                let teller = self.events.teller(&headers.id, queued.attempt);
                Some(Arc::new(teller))
            }
            Origin::Queue(_) | Origin::Rpc { .. } => None,
        };
        let job = Job {
            digest: headers.body_digest(&delivery.model, &delivery.body),
            content_type: headers
                .content_type
                .unwrap_or_else(|| ContentType::detect(&delivery.body)),
            origin: delivery.origin,
            model: delivery.model,
            lane,
            headers,
            raw_headers: delivery.headers,
            body: delivery.body,
            deadline,
            received: delivery.received,
            hold: delivery.hold,
            events,
            span,
        };
        (job, problems)
    }

    fn deadline(&self, origin: &Origin, headers: &JobHeaders) -> Option<u64> {
        match origin {
            Origin::Queue(queued) if queued.recorded => headers.deadline(queued.published_unix_ms),
            Origin::Queue(queued) => Some(rpc_deadline_unix_ms(
                headers,
                queued.published_unix_ms,
                self.rpc_times,
            )),
            Origin::Rpc { .. } => {
                Some(rpc_deadline_unix_ms(headers, unix_ms_now(), self.rpc_times))
            }
        }
    }

    /// The outcome that stands for the job, if there can be one.
    async fn standing(&self, job: &Job) -> Option<Outcome> {
        if !may_have_ended(job.attempt(), job.door() == Door::Job, job.replay()) {
            return None;
        }
        match self.ledger.read(&job.headers.id).await {
            Ok(standing) => standing,
            Err(error) => {
                // Running it again costs time but decides nothing: COMMIT is refused if one stands.
                warn!(%error, "could not look for an earlier outcome");
                None
            }
        }
    }

    fn facts(&self, job: &Job, problems: Vec<HeaderProblem>, called_off: bool) -> Facts {
        Facts {
            attempt: job.attempt(),
            most: job.headers.max_attempts,
            recorded: job.door() == Door::Job,
            replay: job.replay(),
            proto: job.headers.proto,
            problems,
            cancelled: called_off || self.tombstones.call_off(&job.headers, &job.origin),
            late: job.deadline.is_some_and(Deadline::has_passed),
        }
    }

    fn version(&self, job: &Job) -> Result<Arc<Version>, JobError> {
        self.models
            .resolve(&job.model, &job.headers.version)
            .map_err(|failure| match self.models.snapshot().get(&job.model) {
                None if job.ack().is_some() => JobError::Unloaded(job.model.clone()),
                _ => JobError::Unknown(failure),
            })
    }

    /// Step 8: the inputs of a job that is run, and what it asks beside them.
    async fn take(&self, job: &mut Job, version: &Version) -> Result<(Vec<Tensor>, Ask), JobError> {
        let body = self.body(job).await?;
        let (inputs, ask) = self.decode(&body, job.content_type, version)?;
        let by_row = inputs.first().filter(|_| version.batching.is_ok());
        job.hold.weigh(by_row.map_or(1, Tensor::rows));
        Ok((inputs, ask))
    }

    fn decode(
        &self,
        body: &Bytes,
        content_type: ContentType,
        version: &Version,
    ) -> Result<(Vec<Tensor>, Ask), JobError> {
        let decoded = InferRequest::decode(body, Some(content_type), &self.limits)?;
        let ask = Ask::of(&decoded.request, decoded.form);
        check_outputs(&ask.outputs, version)?;
        let inputs = decoded
            .request
            .into_tensors(&version.inputs, &self.limits)?;
        if version.batching.is_ok() {
            check_rows(&inputs)?;
        }
        Ok((inputs, ask))
    }
}

/// Where rows are computed apart from each other, every input has the same number of them.
fn check_rows(inputs: &[Tensor]) -> Result<(), JobError> {
    let Some(first) = inputs.first() else {
        return Ok(());
    };
    let rows = first.rows();
    if rows == 0 {
        let message = "inputs: no rows; send at least one";
        return Err(JobError::Unsupported(message.to_owned()));
    }
    match inputs.iter().find(|input| input.rows() != rows) {
        None => Ok(()),
        Some(other) => Err(JobError::Unsupported(format!(
            "inputs: `{}` has {rows} rows and `{}` has {}; send as many of each",
            first.name,
            other.name,
            other.rows()
        ))),
    }
}

fn check_outputs(asked: &[String], version: &Version) -> Result<(), JobError> {
    let known = |name: &String| version.outputs.iter().any(|output| output.name == *name);
    let unknown: Vec<&str> = asked
        .iter()
        .filter(|name| !known(name))
        .map(String::as_str)
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let has: Vec<&str> = version
        .outputs
        .iter()
        .map(|output| output.name.as_str())
        .collect();
    let message = format!(
        "outputs: the model has no `{}`; it has `{}`",
        unknown.join("`, `"),
        has.join("`, `")
    );
    Err(JobError::Unsupported(message))
}
