//! Lets the sweeper end jobs the way every job is ended: outcome, dead letter, reply.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use futures::future::BoxFuture;
use inferq_schemas::Status;
use inferq_schemas::subjects::QueueKind;
use tracing::warn;

use crate::admit::Admission;
use crate::hold::{Room, RoomLimits, Way};
use crate::job::{Delivery, Finished, Job, Origin, Outcome, Queued, Verdict};
use crate::ledger::Ledger;
use crate::settle::{Gate, Settler};
use crate::sweep::{Ages, SweepVerdict, Sweeper, SweptJob};

type Conclude = Box<dyn Fn(SweptJob) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>;

/// The sweeper of the worker `worker_id`.
pub(super) fn sweeper(
    worker_id: String,
    admission: Arc<Admission>,
    settler: Settler,
    limits: RoomLimits,
) -> Sweeper<Conclude> {
    // Of their own: what is swept must not keep the worker from its own jobs.
    let room = Room::aside(limits);
    let settler = Settler {
        gate: Gate::new(),
        ..settler
    };
    let ledger = settler.ledger.clone();
    let metrics = settler.metrics.clone();
    let conclude: Conclude = Box::new(move |swept| {
        let (admission, settler, room) = (admission.clone(), settler.clone(), room.clone());
        Box::pin(async move {
            let (verdict, subject) = (swept.verdict, swept.raw_subject.clone());
            let mut finished = finish(swept, &admission, &settler, &room);
            match verdict {
                SweepVerdict::UnknownModel | SweepVerdict::TooOld => {}
                SweepVerdict::Left => return keep(&finished.job, subject, &settler.ledger).await,
                SweepVerdict::Answered => {
                    let standing = standing(&finished.job, &settler.ledger).await?;
                    let standing = standing.context("the outcome of a job is gone again")?;
                    finished.verdict = Verdict::Standing(standing);
                }
            }
            settler.settle(finished).await;
            Ok(())
        })
    });
    Sweeper {
        jetstream: ledger.jetstream().clone(),
        subjects: ledger.subjects().clone(),
        worker_id,
        metrics,
        ages: Ages::default(),
        conclude,
    }
}

/// Sees that a job which leaves its queue has an outcome, or comes again.
async fn keep(job: &Job, subject: String, ledger: &Ledger) -> anyhow::Result<()> {
    if standing(job, ledger).await?.is_some() {
        return Ok(());
    }
    warn!(job = %job.headers.id, "a job was acknowledged and has no outcome, it is queued again");
    ledger.queue_again(job, subject).await
}

/// The outcome of a job, if it has one; that which a replay takes the place of is not its own.
async fn standing(job: &Job, ledger: &Ledger) -> anyhow::Result<Option<Outcome>> {
    let standing = ledger.read(&job.headers.id).await;
    let standing = standing.context("cannot read the outcome of a job")?;
    let replay = job.replay();
    Ok(standing.filter(|standing| !replay.is_some_and(|replay| replay.replaces(standing))))
}

fn finish(swept: SweptJob, admission: &Admission, settler: &Settler, room: &Room) -> Finished {
    let status = match swept.verdict {
        SweepVerdict::UnknownModel => Status::Error,
        SweepVerdict::TooOld => Status::Expired,
        // Nobody is told so: what stands is read or repeated.
        SweepVerdict::Left | SweepVerdict::Answered => Status::Error,
    };
    let queued = Queued {
        stream: swept.stream,
        sequence: swept.sequence,
        attempt: 1,
        published_unix_ms: swept.published_unix_ms,
        ack: None,
        recorded: swept.subject.kind == QueueKind::Job,
    };
    let (job, _) = admission.identify(Delivery {
        hold: room.enter(
            &swept.subject.model,
            Way::Queue(swept.subject.lane),
            swept.body.len(),
            None,
        ),
        origin: Origin::Queue(queued),
        model: swept.subject.model,
        lane: swept.subject.lane,
        headers: swept.headers,
        body: swept.body,
        received: Instant::now(),
        called_off: false,
    });
    let outcome = settler.author.failure(&job, status, swept.failure, None);
    Finished {
        job,
        verdict: Verdict::Commit(outcome),
    }
}
