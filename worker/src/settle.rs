//! The last stage: makes each verdict true and gives the delivery back.
//!
//! Each job is settled by a task of its own, so that a slow reply or a broker without an answer
//! holds up nobody else. While an outcome cannot be written the gate is shut: `pull` takes in
//! nothing new, and the job is never run again, only its outcome is published again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use inferq_schemas::headers::{ResultMode, Status};
use inferq_schemas::{ErrorCode, Failure};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{Instrument, debug, info, warn};

use crate::job::{Author, Finished, Job, Origin, Outcome, Verdict};
use crate::ledger::{DeadLetter, Keep, Ledger};
use crate::metrics::{Door, Metrics, OutcomeLabel};
use crate::pull::micro::Micro;
use crate::settlement::{Event, Settlement, Step, Terms};

mod large;

/// Pause before a step that had no answer is tried again; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What settling needs.
#[derive(Clone)]
pub struct Settler {
    /// Where settlements are written.
    pub ledger: Ledger,
    /// Where calls are answered.
    pub calls: Ledger,
    /// Writes conflicts.
    pub author: Author,
    /// Counts ends.
    pub metrics: Metrics,
    /// Shut while outcomes cannot be written.
    pub gate: Gate,
    /// Counts answered RPC requests.
    pub micro: Micro,
    /// Counts jobs that were ended.
    pub jobs_done: Arc<AtomicU64>,
}

/// Runs the stage until its input closes and everything in it is settled.
pub async fn run(mut finished: mpsc::Receiver<Finished>, settler: Settler) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            next = finished.recv() => match next {
                Some(job) => {
                    let settler = settler.clone();
                    let span = job.job.span.clone();
                    tasks.spawn(async move { settler.settle(job).await }.instrument(span));
                }
                None => break,
            },
            Some(ended) = tasks.join_next() => report(ended),
        }
    }
    while let Some(ended) = tasks.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        // Its message is redelivered after ack_wait and settled then.
        warn!(%error, "a settlement stopped half-way, its job comes again");
    }
}

impl Settler {
    /// Settles one job; returns when it is off the queue or given back to it.
    pub async fn settle(&self, finished: Finished) {
        let Finished { job, verdict } = self.by_reference(finished).await;
        let proposed = match &verdict {
            Verdict::Commit(outcome) => outcome.headers.payload_ref.clone(),
            Verdict::Standing(_) | Verdict::Retry { .. } => None,
        };
        let settlement = match verdict {
            Verdict::Commit(outcome) => Settlement::commit(outcome, terms(&job)),
            Verdict::Standing(outcome) => Settlement::standing(outcome, terms(&job)),
            Verdict::Retry { after, reason } => return self.give_back(&job, after, &reason).await,
        };
        let started = std::time::Instant::now();
        let (outcome, conflict) = self.carry_out(&job, settlement).await;
        self.metrics.published(&job.model, started.elapsed());
        if let Some(events) = &job.events {
            events.done(outcome.headers.status);
        }
        self.clear(&job, proposed, &outcome, conflict).await;
        if let Origin::Rpc { .. } = job.origin {
            let error = outcome
                .headers
                .failure
                .as_ref()
                .map(|failure| format!("{}:{}", failure.code.as_u16(), failure.message));
            self.micro.count(&job.model, job.received.elapsed(), error);
        }
        let status = outcome.headers.status;
        self.jobs_done.fetch_add(1, Ordering::Relaxed);
        let label = if conflict {
            OutcomeLabel::Conflict
        } else {
            OutcomeLabel::from(status)
        };
        self.metrics
            .job_done(&job.model, job.door(), label, job.received.elapsed());
    }

    async fn give_back(&self, job: &Job, delay: Duration, reason: &str) {
        if let Some(ack) = job.ack() {
            debug!(
                delay_ms = delay.as_millis(),
                attempt = job.attempt(),
                reason,
                "job given back"
            );
            self.ledger.retry(ack, delay).await;
            if let Some(events) = &job.events {
                events.retrying(delay, reason);
            }
            self.metrics.job_done(
                &job.model,
                job.door(),
                OutcomeLabel::Retried,
                job.received.elapsed(),
            );
        }
    }

    /// Drives the machine to its end. Returns the outcome that stands and whether it was a conflict.
    async fn carry_out(&self, job: &Job, mut settlement: Settlement<Outcome>) -> (Outcome, bool) {
        let mut pause = FIRST_PAUSE;
        let mut shut = None;
        while settlement.step() != Step::Done {
            let event = self.perform(job, &settlement).await;
            if event == Event::Unanswered {
                self.metrics.commit_retried();
                debug!(step = ?settlement.step(), pause_ms = pause.as_millis(), "a step of a settlement had no answer, it is tried again");
                if let Origin::Queue(_) = job.origin {
                    shut.get_or_insert_with(|| self.gate.shut(&self.ledger.last_problem()));
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            } else {
                shut = None;
                pause = FIRST_PAUSE;
            }
            let before = settlement.step();
            settlement.apply(event);
            if before == Step::Read && matches!(settlement.step(), Step::Commit(_)) {
                // Refused and yet not there: a replica lags behind, and asking at once would spin.
                tokio::time::sleep(FIRST_PAUSE).await;
            }
        }
        (settlement.outcome().clone(), settlement.is_conflict())
    }

    /// Carries out the next step of `settlement`, once.
    pub async fn perform(&self, job: &Job, settlement: &Settlement<Outcome>) -> Event<Outcome> {
        let outcome = settlement.outcome();
        match settlement.step() {
            Step::Commit(expected) => {
                let keep = match job.headers.result_mode() {
                    ResultMode::Reply => Keep::Status,
                    ResultMode::Both | ResultMode::Store => Keep::Everything,
                };
                self.ledger.commit(outcome, expected, keep).await
            }
            Step::Read => match self.ledger.read(&job.headers.id).await {
                Ok(Some(standing)) => Event::Stands(standing),
                Ok(None) => Event::Missing,
                Err(_) => Event::Unanswered,
            },
            Step::DeadLetter(expected) => {
                let letter = DeadLetter {
                    model: &job.model,
                    lane: job.lane,
                    headers: &job.raw_headers,
                    body: &job.body,
                };
                let event = self.ledger.bury(&letter, outcome, expected).await;
                if event == Event::Done {
                    self.metrics.dead_letter(&job.model);
                }
                event
            }
            Step::Reply => self.reply(job, settlement).await,
            Step::Acknowledge => match job.ack() {
                Some(ack) => self.ledger.acknowledge(ack).await,
                None => Event::Done,
            },
            Step::Done => Event::Done,
        }
    }

    async fn reply(&self, job: &Job, settlement: &Settlement<Outcome>) -> Event<Outcome> {
        let Some(address) = job.reply_to() else {
            return Event::Done;
        };
        if !settlement.is_conflict() {
            let told = self.too_large_to_reply(job, settlement.outcome());
            let told = told.as_ref().unwrap_or(settlement.outcome());
            return self.way_back(job).reply(address, told).await;
        }
        self.metrics.id_conflict();
        let message = format!(
            "job id {} belongs to another body; use a new id for a new job",
            job.headers.id
        );
        let failure = Failure {
            code: ErrorCode::Conflict,
            message,
        };
        let conflict = self.author.failure(job, Status::Error, failure, None);
        self.way_back(job).reply(address, &conflict).await
    }

    /// The connection that `job` came over.
    fn way_back(&self, job: &Job) -> &Ledger {
        match job.origin {
            Origin::Queue(_) => &self.ledger,
            Origin::Rpc { .. } => &self.calls,
        }
    }
}

/// Which steps `job` takes.
pub fn terms(job: &Job) -> Terms {
    Terms {
        recorded: job.door() == Door::Job,
        replies: job.reply_to().is_some(),
        acknowledges: job.ack().is_some(),
        body_digest: job.digest,
        replay: job.replay(),
    }
}

/// Tells `pull` whether outcomes can be written.
#[derive(Debug, Clone)]
pub struct Gate {
    failing: watch::Sender<usize>,
}

impl Gate {
    /// An open gate.
    pub fn new() -> Self {
        Self {
            failing: watch::Sender::new(0),
        }
    }

    /// Whether nothing fails now.
    pub fn is_open(&self) -> bool {
        *self.failing.borrow() == 0
    }

    /// Waits until it opens or shuts.
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.failing.subscribe()
    }

    /// Shuts it for one job. The first says why; what others fail of is most likely the same.
    fn shut(&self, problem: &str) -> Shut {
        self.failing.send_modify(|failing| {
            if *failing == 0 {
                warn!(
                    problem,
                    "outcomes cannot be stored: jobs are held and no more are taken until they can be; look at the results stream and this worker's permissions"
                );
            }
            *failing += 1;
        });
        Shut { gate: self.clone() }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// Keeps the gate shut while it lives.
struct Shut {
    gate: Gate,
}

impl Drop for Shut {
    fn drop(&mut self) {
        self.gate.failing.send_modify(|failing| {
            *failing -= 1;
            if *failing == 0 {
                info!("outcomes are stored again");
            }
        });
    }
}
