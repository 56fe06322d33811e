//! Owns all intake: takes from the queue exactly what this worker has room for.
//!
//! Each consumer has at most one request outstanding. A consumer not known to hold messages gets a
//! waiting pull of one message, 5 s long; one that reported messages gets a non-waiting fetch
//! of its fair share of the free room. All requests answer to one inbox. No request goes out
//! while there is no room or while outcomes cannot be written, so at most one surplus message per
//! consumer waits here under progress acknowledgements. Bytes have no surplus: the room promises each
//! request those that it may bring, and what is held and promised together stays below its limit.
//!
//! A job that may have ended earlier processes comes in only when nothing else is here, and nothing
//! else comes in beside it; `pull/suspects.rs` says how.
//!
//! Never a heartbeat on these requests: the client library stops listening after the first one.
//! Only this stage watches the stop token. It then leaves the inbox, gives back what still arrives
//! and closes its output, which ends the stages after it one by one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::Message;
use async_nats::jetstream;
use inferq_schemas::headers::JobHeaders;
use inferq_schemas::identity::JobId;
use inferq_schemas::subjects::{QueueKind, ReplyPrefixes};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::cancel::InHand;
use crate::cancelled::Tombstones;
use crate::clock::unix_ms;
use crate::deadline::Deadline;
use crate::hold::{Renewal, Room, Way};
use crate::job::{Delivery, Origin, Queued};
use crate::ledger::{Ledger, header_pairs};
use crate::metrics::{Door, Metrics, OutcomeLabel};
use crate::pull::consumers::Serving;
use crate::pull::inbox::Inbox;
use crate::pull::sources::{Arrival, NO_RESPONDERS, Sources};
use crate::pull::suspects::{Held, Record, SUSPECT_FROM, Step, Suspects};
use crate::settle::Gate;

mod ask;
pub mod consumers;
mod inbox;
pub mod micro;
pub mod rpc;
mod sources;
mod suspects;

/// Time between progress acknowledgements of a job, whose ack_wait is 30 s.
const JOB_PROGRESS: Duration = Duration::from_secs(10);
/// The same for queued RPC, whose ack_wait is 10 s.
const RPC_PROGRESS: Duration = Duration::from_secs(3);
/// Messages that are taken in before anything else is looked at.
const MOST_AT_ONCE: usize = 64;
/// How often it is looked whether the connection is another one.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// What pulling needs.
pub struct Puller {
    /// The connection, and where surplus is given back.
    pub ledger: Ledger,
    /// Room in this worker.
    pub room: Room,
    /// The consumers of the models it serves, as they come and go.
    pub serving: watch::Receiver<Serving>,
    /// Woken when a request finds no consumer.
    pub absent: Arc<Notify>,
    /// Open while outcomes can be written.
    pub gate: Gate,
    /// Lets a cancellation reach a suspect that waits.
    pub in_hand: InHand,
    /// Jobs that were cancelled before they came here.
    pub tombstones: Tombstones,
    /// Counts redeliveries.
    pub metrics: Metrics,
    /// Ends intake.
    pub stop: CancellationToken,
}

/// What is under way between the server and the next stage.
struct Intake {
    sources: Sources,
    /// Where messages arrive; none while a suspect is here.
    inbox: Option<Inbox>,
    suspects: Suspects<Held>,
    deliveries: mpsc::Sender<Delivery>,
}

/// Runs the stage until it is stopped.
///
/// # Errors
/// If the inbox cannot be subscribed to, or the next stage is gone.
pub async fn run(mut puller: Puller, deliveries: mpsc::Sender<Delivery>) -> anyhow::Result<()> {
    // Before the first job comes, or one that was cancelled while nobody ran it would be run here.
    tokio::select! {
        () = puller.stop.cancelled() => return Ok(()),
        () = puller.tombstones.known() => {}
    }
    let mut connects = Connects::of(&puller.ledger);
    let mut gate = puller.gate.watch();
    let mut intake = Intake {
        sources: Sources::new(),
        inbox: Some(Inbox::open(&puller.ledger).await?),
        suspects: Suspects::new(),
        deliveries,
    };
    intake.sources.update(&puller.serving.borrow_and_update());
    loop {
        if connects.changed() {
            intake.sources.forget_requests();
        }
        for over in intake.suspects.take_over() {
            intake.deliveries.send(over).await?;
        }
        if intake.suspects.any() || puller.room.is_shut() {
            puller.isolate(&mut intake).await?;
        }
        if let Some(inbox) = &intake.inbox
            && !intake.suspects.any()
        {
            puller.issue(&mut intake.sources, inbox).await;
        }
        let look_again = Instant::now() + LOOK_AGAIN;
        let wake = intake
            .sources
            .next_expiry()
            .map_or(look_again, |expiry| expiry.min(look_again));
        tokio::select! {
            biased;
            () = puller.stop.cancelled() => break,
            message = next(&mut intake.inbox) => match message {
                Some(message) => {
                    puller.take(&mut intake, message).await?;
                    puller.take_ready(&mut intake).await?;
                }
                None => anyhow::bail!("the connection to NATS was closed for good"),
            },
            changed = puller.serving.changed() => {
                changed?;
                let serving = puller.serving.borrow_and_update().clone();
                intake.sources.update(&serving);
            }
            () = puller.room.changed() => {}
            changed = gate.changed() => changed?,
            () = intake.suspects.one_over() => {}
            () = tokio::time::sleep_until(wake) => intake.sources.expire(Instant::now()),
        }
    }
    puller.leave(intake).await;
    Ok(())
}

/// The next message; none ever comes without an inbox.
async fn next(inbox: &mut Option<Inbox>) -> Option<Message> {
    match inbox {
        Some(inbox) => inbox.next().await,
        None => std::future::pending().await,
    }
}

impl Puller {
    /// What else has come: whoever is asked for more next is chosen once for all of it, since choosing
    /// looks at every consumer.
    async fn take_ready(&self, intake: &mut Intake) -> anyhow::Result<()> {
        for _ in 0..MOST_AT_ONCE {
            let Some(message) = intake.inbox.as_mut().and_then(Inbox::ready) else {
                break;
            };
            self.take(intake, message).await?;
        }
        Ok(())
    }

    /// A message of the inbox: a job, or the server's word on a request.
    async fn take(&self, intake: &mut Intake, message: Message) -> anyhow::Result<()> {
        let inbox = intake.inbox.as_ref();
        if let Some(source) = inbox.and_then(|inbox| inbox.source_of_status(&message)) {
            let status = message.status.map_or(0, |status| status.as_u16());
            let description = message.description.as_deref().unwrap_or_default();
            debug!(%source, status, description, "a pull request ended");
            let too_large = description.contains("MaxBytes");
            intake.sources.ended(source, status, too_large);
            if status == NO_RESPONDERS {
                self.absent.notify_one();
            }
            return Ok(());
        }
        let Some(delivery) = self.receive(&mut intake.sources, message) else {
            return Ok(());
        };
        match self.suspected(delivery) {
            Ok((record, held)) => intake.suspects.push(record, held),
            Err(delivery) => intake.deliveries.send(*delivery).await?,
        }
        Ok(())
    }

    /// Takes the next step with suspects: out of the way of everything else, one by one, back to work.
    async fn isolate(&self, intake: &mut Intake) -> anyhow::Result<()> {
        if intake.suspects.any() {
            self.room.shut();
            // Fetches are answered at once, and a message on its way while the inbox ends would be lost
            // until ack_wait. Only what waits at the server is cut short.
            if intake.sources.fetching() {
                return Ok(());
            }
            if let Some(inbox) = intake.inbox.take() {
                let expected = intake.sources.expected();
                for message in inbox.leave(&self.ledger, expected).await {
                    self.take(intake, message).await?;
                }
                intake.sources.forget_requests();
            }
        }
        match intake.suspects.next(self.room.held_jobs()) {
            Step::Wait => {}
            Step::Run { give_back, suspect } => {
                let suspect = suspect.into_delivery();
                for (other, delay) in give_back {
                    self.give_back(&other.into_delivery(), delay).await;
                }
                debug!(model = %suspect.model, "a job runs alone, since earlier deliveries of it were not finished");
                self.metrics.suspect(&suspect.model);
                intake.deliveries.send(suspect).await?;
            }
            Step::Open => {
                self.room.open();
                if intake.inbox.is_none() {
                    intake.inbox = Some(Inbox::open(&self.ledger).await?);
                }
            }
        }
        Ok(())
    }

    async fn give_back(&self, delivery: &Delivery, delay: Duration) {
        if let Origin::Queue(Queued { ack: Some(ack), .. }) = &delivery.origin {
            self.ledger.retry(ack, delay).await;
            let (label, held) = (OutcomeLabel::Retried, delivery.received.elapsed());
            self.metrics
                .job_done(&delivery.model, Door::Job, label, held);
        }
    }

    /// A job as the stages know it, if the message is one.
    fn receive(&self, sources: &mut Sources, message: Message) -> Option<Delivery> {
        let message = jetstream::Message {
            message,
            context: self.ledger.jetstream().clone(),
        };
        let Some(subject) = self.ledger.subjects().parse_job(&message.subject) else {
            warn!(subject = %message.subject, "a message on a subject that is none of ours was left to its stream");
            return None;
        };
        let (queued, source, pending) = match message.info() {
            Ok(info) => {
                let source = sources.find(info.stream, info.consumer);
                let attempt = u64::try_from(info.delivered).unwrap_or(1);
                let queued = Queued {
                    stream: info.stream.to_owned(),
                    sequence: info.stream_sequence,
                    attempt,
                    published_unix_ms: unix_ms(info.published.into()),
                    ack: message.reply.as_ref().map(ToString::to_string),
                    recorded: subject.kind == QueueKind::Job,
                };
                (queued, source, info.pending)
            }
            Err(error) => {
                warn!(%error, "a message without acknowledgement subject was left to its stream");
                return None;
            }
        };
        if queued.attempt > 1 {
            self.metrics.redelivery(&subject.model);
        }
        let async_nats::Message {
            headers,
            payload,
            length,
            ..
        } = message.message;
        let every = match subject.kind {
            QueueKind::Job => JOB_PROGRESS,
            QueueKind::Rpc => RPC_PROGRESS,
        };
        let renewal = queued.ack.clone().map(|ack| Renewal { ack, every });
        // Taken in before its promise is given back, so that nobody else is promised the same.
        let model = &subject.model;
        let hold = self
            .room
            .enter(model, Way::Queue(subject.lane), payload.len(), renewal);
        if let Some(source) = source {
            let arrival = Arrival {
                pending,
                attempt: queued.attempt,
                bytes: length,
            };
            sources.received(source, arrival);
        }
        Some(Delivery {
            hold,
            origin: Origin::Queue(queued),
            model: subject.model,
            lane: subject.lane,
            headers: headers.unwrap_or_default(),
            body: payload,
            received: std::time::Instant::now(),
            called_off: false,
        })
    }

    /// A suspect, and what decides when it runs; or the delivery as it was, if it is none.
    fn suspected(&self, delivery: Delivery) -> Result<(Record, Held), Box<Delivery>> {
        let Origin::Queue(queued) = &delivery.origin else {
            return Err(Box::new(delivery));
        };
        if queued.attempt < SUSPECT_FROM {
            return Err(Box::new(delivery));
        }
        let id = JobId::derived(&queued.stream, queued.sequence);
        // Who may be replied to plays no part in it.
        let pairs = header_pairs(&delivery.headers);
        let headers = JobHeaders::parse(pairs, id, &ReplyPrefixes::default()).headers;
        let record = Record {
            sequence: queued.sequence,
            attempt: queued.attempt,
            most: u64::from(headers.max_attempts),
        };
        let deadline = headers.deadline(queued.published_unix_ms);
        let deadline = deadline.map(Deadline::from_unix_ms);
        let off = (&self.in_hand, &self.tombstones);
        Ok((record, Held::new(delivery, &headers, deadline, off)))
    }

    /// Leaves the inbox and gives back what was on its way, so that nothing waits for ack_wait.
    async fn leave(&self, mut intake: Intake) {
        for suspect in intake.suspects.take_all() {
            self.give_back(&suspect.into_delivery(), Duration::ZERO)
                .await;
        }
        let Some(inbox) = intake.inbox else { return };
        for message in inbox.leave(&self.ledger, intake.sources.expected()).await {
            if let Some(ack) = &message.reply {
                self.ledger.retry(ack, Duration::ZERO).await;
            }
        }
    }
}

/// Tells a connection from the next: what was requested over one is not answered over another.
struct Connects {
    statistics: Arc<async_nats::Statistics>,
    seen: u64,
}

impl Connects {
    fn of(ledger: &Ledger) -> Self {
        let statistics = ledger.client().statistics();
        let seen = statistics.connects.load(Ordering::Relaxed);
        Self { statistics, seen }
    }

    /// Whether there is a new connection since the last call.
    fn changed(&mut self) -> bool {
        let now = self.statistics.connects.load(Ordering::Relaxed);
        std::mem::replace(&mut self.seen, now) != now
    }
}

/// Sends progress acknowledgements for everything held, until everything is settled.
pub async fn keep_alive(ledger: Ledger, room: Room, ended: CancellationToken) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            _ = ticks.tick() => for ack in room.due_for_progress() {
                ledger.progress(&ack).await;
            }
        }
    }
}
