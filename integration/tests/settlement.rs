//! Drives COMMIT and SETTLE on a real server through a crash after every single step, with one
//! worker and with two that hold the same job at once.
//!
//! The worker's own unit tests explore every interleaving on a model of the broker; this test shows
//! that the real one behaves as that model.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_nats::jetstream::{self, consumer::PullConsumer};
use futures::StreamExt;
use inferq::stack::Stack;
use inferq::{ModelName, Status};
use inferq_integration::{PATIENCE, messages_in, plain, stack, wait_until_empty};
use inferq_schemas::subjects::Lane;
use inferq_schemas::{ErrorCode, Failure, Limits, ReplyPrefixes, Subjects};
use inferq_worker::admit::Admission;
use inferq_worker::cancel::InHand;
use inferq_worker::cancelled::Tombstones;
use inferq_worker::deadline::RpcTimes;
use inferq_worker::events::Events;
use inferq_worker::hold::{Room, RoomLimits, Way};
use inferq_worker::job::{Author, Delivery, Job, Origin, Outcome, Queued};
use inferq_worker::ledger::Ledger;
use inferq_worker::metrics::Metrics;
use inferq_worker::models::Models;
use inferq_worker::pull::micro::Micro;
use inferq_worker::settle::{Gate, Settler, terms};
use inferq_worker::settlement::{Settlement, Step};

/// The stages of a worker that settlement needs, without those that run models.
struct Hand {
    admission: Admission,
    settler: Settler,
    room: Room,
    consumer: PullConsumer,
}

impl Hand {
    async fn new(stack: &Stack, name: &str) -> Result<Self> {
        let ledger = Ledger::new(stack.client().nats().clone(), Subjects::default());
        let metrics = Metrics::new();
        let author = Author {
            worker: name.into(),
        };
        let settler = Settler {
            ledger: ledger.clone(),
            calls: ledger.clone(),
            author: author.clone(),
            metrics: metrics.clone(),
            gate: Gate::new(),
            micro: Micro::new(name),
            jobs_done: Arc::new(AtomicU64::new(0)),
        };
        let admission = Admission {
            ledger: ledger.clone(),
            models: Models::new(),
            tombstones: Tombstones::default(),
            in_hand: InHand::default(),
            replies: ReplyPrefixes::default(),
            limits: Limits::default(),
            rpc_times: RpcTimes {
                default: Duration::from_secs(5),
            },
            events: Events::new(ledger.clone(), author.clone(), metrics.clone()),
            author,
        };
        let room = Room::new(
            RoomLimits {
                rows: 8,
                bytes: 1 << 20,
            },
            metrics,
        );
        let consumer = ledger
            .jetstream()
            .get_consumer_from_stream("digits__normal", "INFER_JOBS")
            .await?;
        Ok(Self {
            admission,
            settler,
            room,
            consumer,
        })
    }

    /// The next delivery, as `pull` and `admit` make it.
    async fn receive(&self) -> Result<Job> {
        let mut batch = self
            .consumer
            .batch()
            .max_messages(1)
            .expires(PATIENCE)
            .messages()
            .await?;
        let message = batch
            .next()
            .await
            .context("no delivery")?
            .map_err(|error| anyhow::anyhow!(error))?;
        let info = message.info().map_err(|error| anyhow::anyhow!(error))?;
        let queued = Queued {
            stream: info.stream.to_owned(),
            sequence: info.stream_sequence,
            attempt: u64::try_from(info.delivered)?,
            published_unix_ms: u64::try_from(info.published.unix_timestamp() * 1000)?,
            ack: message.reply.as_ref().map(ToString::to_string),
            recorded: true,
        };
        let model = ModelName::new("digits")?;
        let (job, problems) = self.admission.identify(Delivery {
            hold: self.room.enter(&model, Way::Queue(Lane::Normal), 0, None),
            origin: Origin::Queue(queued),
            model,
            lane: inferq::Lane::Normal,
            headers: message.headers.clone().unwrap_or_default(),
            body: message.payload.clone(),
            received: Instant::now(),
            called_off: false,
        });
        anyhow::ensure!(problems.is_empty(), "{problems:?}");
        Ok(job)
    }

    /// What this worker decides: the outcome that stands, or `status` as a run would have given it.
    async fn decide(&self, job: &Job, status: Status) -> Result<Settlement<Outcome>> {
        if job.attempt() > 1
            && let Some(standing) = self.settler.ledger.read(&job.headers.id).await?
        {
            return Ok(Settlement::standing(standing, terms(job)));
        }
        let outcome = match status {
            Status::Ok => self.settler.author.answer(job, 1, "{}".into()),
            other => {
                let failure = Failure {
                    code: ErrorCode::Model,
                    message: "as the test wants it".to_owned(),
                };
                self.settler.author.failure(job, other, failure, Some(1))
            }
        };
        Ok(Settlement::commit(outcome, terms(job)))
    }

    /// Takes up to `steps` steps; returns whether it came to the end.
    async fn take_steps(
        &self,
        job: &Job,
        settlement: &mut Settlement<Outcome>,
        steps: usize,
    ) -> bool {
        for _ in 0..steps {
            if settlement.step() == Step::Done {
                break;
            }
            let event = self.settler.perform(job, settlement).await;
            settlement.apply(event);
        }
        settlement.step() == Step::Done
    }

    /// Makes the server deliver the job again at once, as it would after ack_wait.
    async fn crash(&self, job: &Job) -> Result<()> {
        self.settler
            .ledger
            .retry(job.ack().context("a delivered job")?, Duration::ZERO)
            .await;
        Ok(self.settler.ledger.barrier().await?)
    }
}

const STATUSES: [Status; 4] = [Status::Ok, Status::Error, Status::Expired, Status::Dead];
/// Commit, dead letter, reply, acknowledge.
const STEPS: usize = 4;

/// A stack whose only workers are the hands of the test.
async fn server() -> Result<Stack> {
    let stack = stack(0).await?;
    let admin = stack.client().admin(inferq::AssetPlan::default());
    admin.ensure_model(&ModelName::new("digits")?).await?;
    Ok(stack)
}

async fn check(
    stack: &Stack,
    id: &str,
    status: Status,
    replies: &mut async_nats::Subscriber,
    deliveries: u64,
) -> Result<()> {
    wait_until_empty(stack.client(), "INFER_JOBS").await?;
    let outcome = plain::outcome(stack.client().nats(), id, PATIENCE).await?;
    assert_eq!(
        outcome.header("Infer-Status"),
        Some(status.as_str()),
        "{id}"
    );
    let jetstream = jetstream::new(stack.client().nats().clone());
    let letter = jetstream
        .get_stream("INFER_DEAD")
        .await?
        .get_last_raw_message_by_subject(&format!("infer.dead.digits.normal.{id}"))
        .await;
    let wants_letter = matches!(status, Status::Error | Status::Dead);
    assert_eq!(
        letter.is_ok(),
        wants_letter,
        "{id}: a dead letter if and only if it failed"
    );
    if let Ok(letter) = letter {
        let outcome = letter
            .headers
            .get("Infer-Dead-Outcome")
            .context("the outcome's sequence")?;
        assert!(outcome.as_str().parse::<u64>().is_ok());
        assert_eq!(
            letter.payload,
            id.as_bytes(),
            "the dead letter keeps the body"
        );
    }
    let reply = tokio::time::timeout(PATIENCE, replies.next())
        .await
        .with_context(|| format!("{id}: nobody was told"))?;
    let reply = reply.context("the connection closed")?;
    assert_eq!(
        reply
            .headers
            .context("headers")?
            .get("Infer-Status")
            .map(|status| status.as_str()),
        Some(status.as_str())
    );
    let mut others = 0;
    while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(20), replies.next()).await {
        others += 1;
    }
    assert!(
        others < deliveries,
        "{id}: {} replies for {deliveries} deliveries",
        others + 1
    );
    Ok(())
}

async fn publish(stack: &Stack, id: &str) -> Result<async_nats::Subscriber> {
    let nats = stack.client().nats();
    let inbox = nats.new_inbox();
    let replies = nats.subscribe(inbox.clone()).await?;
    let headers = [("Infer-Job-Id", id), ("Infer-Reply-To", inbox.as_str())];
    plain::job(nats, "infer.jobs.digits.normal", &headers, id.to_owned()).await?;
    Ok(replies)
}

#[tokio::test]
async fn one_worker_that_crashes_after_any_step_ends_each_job_once() -> Result<()> {
    let stack = server().await?;
    let hand = Hand::new(&stack, "hand").await?;
    let mut jobs = 0;
    for status in STATUSES {
        for steps in 0..STEPS {
            let id = format!("one-{status}-{steps}");
            let mut replies = publish(&stack, &id).await?;
            let job = hand.receive().await?;
            let mut settlement = hand.decide(&job, status).await?;
            let mut deliveries = 1;
            if !hand.take_steps(&job, &mut settlement, steps).await {
                hand.crash(&job).await?;
                let again = hand.receive().await?;
                deliveries += 1;
                assert_eq!(again.attempt(), 2);
                let mut settlement = hand.decide(&again, status).await?;
                assert!(hand.take_steps(&again, &mut settlement, STEPS).await);
            }
            check(&stack, &id, status, &mut replies, deliveries).await?;
            jobs += 1;
        }
    }
    assert_eq!(messages_in(stack.client(), "INFER_RESULTS").await?, jobs);
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn two_workers_with_the_same_job_end_it_once_wherever_the_first_is_held_up() -> Result<()> {
    let stack = server().await?;
    let (slow, fast) = (
        Hand::new(&stack, "slow").await?,
        Hand::new(&stack, "fast").await?,
    );
    for (status, other) in [
        (Status::Ok, Status::Error),
        (Status::Error, Status::Ok),
        (Status::Dead, Status::Dead),
    ] {
        for steps in 0..STEPS - 1 {
            let id = format!("two-{status}-{other}-{steps}");
            let mut replies = publish(&stack, &id).await?;
            let held = slow.receive().await?;
            let mut first = slow.decide(&held, status).await?;
            let before = slow.take_steps(&held, &mut first, steps).await;
            slow.crash(&held).await?;
            let mut stands = status;
            if !before {
                let again = fast.receive().await?;
                let mut second = fast.decide(&again, other).await?;
                assert!(fast.take_steps(&again, &mut second, STEPS).await);
                stands = second.outcome().headers.status;
            }
            // The first wakes up and goes on as if nothing had happened.
            assert!(slow.take_steps(&held, &mut first, STEPS + 2).await);
            assert_eq!(
                first.outcome().headers.status,
                stands,
                "{id}: both end with the same outcome"
            );
            let expected = if steps == 0 { other } else { status };
            assert_eq!(stands, expected, "{id}: the first writer wins");
            check(&stack, &id, stands, &mut replies, 2).await?;
        }
    }
    Ok(stack.stop().await?)
}
