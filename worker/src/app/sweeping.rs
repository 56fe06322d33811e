//! Lets the sweeper end jobs the way every job is ended: outcome, dead letter, reply.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use futures::future::BoxFuture;
use inferq_schemas::Status;
use inferq_schemas::subjects::QueueKind;
use tracing::warn;

use crate::admit::Admission;
use crate::hold::{Room, Way};
use crate::job::{Delivery, Finished, Job, Origin, Queued, Verdict};
use crate::ledger::Ledger;
use crate::settle::Settler;
use crate::sweep::{Ages, SweepVerdict, Sweeper, SweptJob};

type Conclude = Box<dyn Fn(SweptJob) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>;

/// The sweeper of the worker `worker_id`.
pub(super) fn sweeper(
    worker_id: String,
    admission: Arc<Admission>,
    settler: Settler,
    room: Room,
) -> Sweeper<Conclude> {
    let ledger = settler.ledger.clone();
    let metrics = settler.metrics.clone();
    let conclude: Conclude = Box::new(move |swept| {
        let (admission, settler, room) = (admission.clone(), settler.clone(), room.clone());
        Box::pin(async move {
            let (verdict, subject) = (swept.verdict, swept.raw_subject.clone());
            let finished = finish(swept, &admission, &settler, &room);
            if verdict == SweepVerdict::Left {
                return keep(&finished.job, subject, &settler.ledger).await;
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
    let standing = ledger.read(&job.headers.id).await;
    if standing
        .context("cannot read the outcome of a job")?
        .is_some()
    {
        return Ok(());
    }
    warn!(job = %job.headers.id, "a job was acknowledged and has no outcome, it is queued again");
    ledger.queue_again(job, subject).await
}

fn finish(swept: SweptJob, admission: &Admission, settler: &Settler, room: &Room) -> Finished {
    let status = match swept.verdict {
        SweepVerdict::UnknownModel => Status::Error,
        SweepVerdict::TooOld => Status::Expired,
        // Nobody is told so: `keep` reads or repeats what stands.
        SweepVerdict::Left => Status::Error,
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
