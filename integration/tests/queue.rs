//! What waits for workers is counted, shown and taken off again; in the library and by
//! `inferq queue`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{self, AckKind, consumer::PullConsumer};
use futures::{StreamExt, TryStreamExt};
use inferq::dead::{DeadFilter, ReplayOptions};
use inferq::queue::{PurgeOptions, QueueState};
use inferq::stack::{Stack, StackOptions};
use inferq::{AssetPlan, Client, ErrorCode, JobId, Lane, ModelName, Status, SubmitError};
use inferq_integration::command::inferq;
use inferq_integration::{
    PATIENCE, digits, job, messages_in, models_folder, plain, stack, start, submit_all, uncached,
    wait_until_empty,
};
use inferq_schemas::{ContentType, OutcomeHeaders, body_digest};

/// Jobs that a queue of these tests takes.
const DEPTH: usize = 8;

fn model() -> Result<ModelName> {
    Ok(ModelName::new("digits")?)
}

/// A stack that knows the model `digits`, and has no worker.
async fn unserved(plan: AssetPlan) -> Result<Stack> {
    let stack = start(StackOptions {
        workers: 0,
        plan: plan.clone(),
        ..StackOptions::new(models_folder())
    })
    .await?;
    stack.client().admin(plan).ensure_model(&model()?).await?;
    Ok(stack)
}

async fn submit(client: &Client, count: usize, lane: Lane) -> Result<Vec<JobId>> {
    let images = digits::held_out()?;
    let jobs = images[..count]
        .iter()
        .map(|image| uncached(image).lane(lane));
    submit_all(client, jobs.collect()).await
}

async fn queue(client: &Client, lane: Lane) -> Result<QueueState> {
    let found = client.queues().of(&model()?).await?;
    let mut of_lane = found.into_iter().filter(|queue| queue.lane == lane);
    of_lane.next().context("the lane has a queue")
}

/// Takes messages off a queue as a worker does, and keeps them.
async fn take(client: &Client, count: usize) -> Result<Vec<jetstream::Message>> {
    let server = jetstream::new(client.nats().clone());
    let consumer: PullConsumer = server
        .get_consumer_from_stream("digits__normal", "INFER_JOBS")
        .await?;
    let batch = consumer.batch().max_messages(count).expires(PATIENCE);
    let taken = batch.messages().await?.try_collect().await;
    taken.map_err(|error| anyhow::anyhow!(error))
}

/// Returns once the server has taken it in, so that what is asked next comes after it.
async fn acknowledge(message: &jetstream::Message, kind: AckKind) -> Result<()> {
    let confirmed = message.double_ack_with(kind).await;
    confirmed.map_err(|error| anyhow::anyhow!(error))
}

#[tokio::test]
async fn the_numbers_of_a_queue_are_those_of_its_backlog() -> Result<()> {
    let begun = SystemTime::now();
    let stack = unserved(AssetPlan {
        queue_depth: NonZeroUsize::new(DEPTH).context("not zero")?,
        ..AssetPlan::default()
    })
    .await?;
    let client = stack.client();
    submit(client, DEPTH, Lane::Normal).await?;
    submit(client, 3, Lane::Low).await?;
    let refused = client.submit(uncached(&digits::held_out()?[0])).await;
    assert!(matches!(refused, Err(SubmitError::Overloaded { .. })));

    let normal = queue(client, Lane::Normal).await?;
    let numbers = normal.consumer.as_ref().context("the model is known")?;
    assert_eq!((normal.jobs, numbers.waiting, numbers.held), (8, 8, 0));
    assert!(normal.is_full());
    let stream = &normal.stream;
    assert_eq!((stream.jobs, stream.max_jobs_per_queue), (8, Some(8)));
    assert_eq!(
        normal.bytes(),
        stream.bytes,
        "no other queue is in the stream"
    );
    assert!(stream.bytes > 8 * 200 && stream.max_bytes == Some(512 << 20));
    let oldest = normal.oldest.context("there are jobs")?;
    assert!(oldest >= begun - Duration::from_secs(1) && oldest <= SystemTime::now());

    let held = take(client, 2).await?;
    acknowledge(&held[0], AckKind::Nak(None)).await?;
    let again = take(client, 1).await?;
    let numbers = queue(client, Lane::Normal)
        .await?
        .consumer
        .context("known")?;
    assert_eq!(
        (numbers.waiting, numbers.held, numbers.redelivered),
        (6, 2, 1)
    );
    acknowledge(&again[0], AckKind::Ack).await?;

    let all = client.queues().list().await?;
    let counted: Vec<(&str, Lane, u64)> = all
        .iter()
        .map(|queue| (queue.model.as_str(), queue.lane, queue.jobs))
        .collect();
    let expected = [Lane::High, Lane::Normal, Lane::Low].map(|lane| {
        let jobs = match lane {
            Lane::High => 0,
            Lane::Normal => 7,
            Lane::Low => 3,
        };
        ("digits", lane, jobs)
    });
    assert_eq!(counted, expected);
    let listed = inferq(&stack, "queue ls --json").await?.lines()?;
    let listed: Vec<_> = listed
        .iter()
        .map(|line| (&line["lane"], &line["jobs"]))
        .collect();
    assert_eq!(
        listed,
        [
            (&"high".into(), &0.into()),
            (&"normal".into(), &7.into()),
            (&"low".into(), &3.into()),
        ]
    );
    let shown = inferq(&stack, "queue show digits --lane low").await?.out;
    for said in [
        "digits low",
        "3, about",
        "8 jobs of this queue",
        "512.0 MiB in INFER_BULK",
    ] {
        assert!(shown.contains(said), "no {said} in\n{shown}");
    }
    let mistyped = inferq(&stack, "queue show digit").await?;
    assert!(
        !mistyped.well && mistyped.err.contains("did you mean `digits`"),
        "{mistyped:?}"
    );
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn jobs_that_nobody_will_take_are_shown_as_such() -> Result<()> {
    let stack = unserved(AssetPlan::default()).await?;
    let client = stack.client();
    for name in ["nobody", "My+Model"] {
        let subject = format!("infer.jobs.{name}.high");
        plain::job(client.nats(), &subject, &[], "{}").await?;
    }
    let all = client.queues().list().await?;
    let unknown: Vec<(&str, u64)> = all
        .iter()
        .filter(|queue| queue.consumer.is_none())
        .map(|queue| (queue.model.as_str(), queue.jobs))
        .collect();
    assert_eq!(unknown, [("My+Model", 1), ("nobody", 1)]);
    let shown = inferq(&stack, "queue ls").await?.out;
    assert!(shown.contains("1, unknown model"), "{shown}");
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_purged_queue_ends_each_job_as_cancelled_and_tells_who_waits() -> Result<()> {
    let stack = unserved(AssetPlan::default()).await?;
    let client = stack.client();
    let nats = client.nats();
    let inbox = nats.new_inbox();
    let mut replies = nats.subscribe(inbox.clone()).await?;
    let image = &digits::held_out()?[0];
    let waited_for = client.submit(uncached(image).reply_to(inbox)).await?.id;
    let mut ids = submit(client, 20, Lane::Normal).await?;
    ids.push(waited_for.clone());
    let nameless = plain::job(nats, "infer.jobs.digits.normal", &[], "{}").await?;
    ids.push(JobId::derived("INFER_JOBS", nameless));
    let low = submit(client, 2, Lane::Low).await?;

    let unasked = inferq(&stack, "queue purge digits --lane normal").await?;
    assert!(
        !unasked.well && unasked.err.contains("--yes"),
        "{unasked:?}"
    );
    assert_eq!(messages_in(client, "INFER_JOBS").await?, 22);
    let purged = inferq(&stack, "queue purge digits --lane normal --yes --json").await?;
    let purged = &purged.lines()?[0];
    assert_eq!(
        (&purged["removed"], &purged["answered"]),
        (&22.into(), &0.into())
    );
    assert_eq!(messages_in(client, "INFER_JOBS").await?, 0);
    for id in &ids {
        let outcome = client.result(id, Duration::ZERO).await?;
        assert_eq!(outcome.status(), Status::Cancelled);
        let failure = outcome.failure().context("it says why")?;
        assert_eq!(failure.code, ErrorCode::Conflict);
    }
    let reply = tokio::time::timeout(PATIENCE, replies.next()).await?;
    let headers = reply.context("connected")?.headers.context("headers")?;
    let told = headers.get("Infer-Job-Id").map(ToString::to_string);
    assert_eq!(told.as_deref(), Some(waited_for.as_str()));
    assert_eq!(messages_in(client, "INFER_BULK").await?, 2);
    assert_eq!(messages_in(client, "INFER_DEAD").await?, 0);

    stack.start_worker().await?;
    for id in &low {
        assert!(client.result(id, PATIENCE).await?.is_ok(), "{id}");
    }
    assert!(client.run(uncached(image)).await?.is_ok());
    Ok(stack.stop().await?)
}

/// Writes the outcome of a job, as whoever ends it does before the job leaves its queue.
async fn answer(client: &Client, id: &JobId, status: Status, body: &[u8]) -> Result<()> {
    let outcome = OutcomeHeaders {
        job_id: id.clone(),
        status,
        failure: None,
        worker: "test".to_owned(),
        model_version: Some(1),
        attempt: 1,
        body_digest: Some(body_digest(&model()?, body)),
        payload_ref: None,
        content_type: ContentType::Json,
        traceparent: None,
    };
    let mut headers = async_nats::HeaderMap::new();
    for (name, value) in outcome.pairs() {
        headers.insert(name, value.as_str());
    }
    headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
    let server = jetstream::new(client.nats().clone());
    let subject = client.subjects().result(id);
    server
        .publish_with_headers(subject, headers, "{}".into())
        .await?
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_job_that_is_answered_is_left_to_its_worker() -> Result<()> {
    let stack = unserved(AssetPlan::default()).await?;
    let client = stack.client();
    let image = &digits::held_out()?[0];
    let submitted = client.submit(uncached(image)).await?;
    let held = take(client, 1).await?;
    answer(client, &submitted.id, Status::Ok, &held[0].payload).await?;
    let options = PurgeOptions::default();
    let purged = client
        .queues()
        .purge(&model()?, Lane::Normal, &options)
        .await?;
    assert_eq!((purged.removed, purged.answered), (0, 1));
    assert_eq!(messages_in(client, "INFER_JOBS").await?, 1);
    // Its worker has crashed before the acknowledgement: the next one takes it off.
    acknowledge(&held[0], AckKind::Nak(None)).await?;
    stack.start_worker().await?;
    wait_until_empty(client, "INFER_JOBS").await?;
    let outcome = client.result(&submitted.id, Duration::ZERO).await?;
    assert_eq!(
        (outcome.status(), outcome.headers.worker.as_str()),
        (Status::Ok, "test")
    );
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_purge_that_ended_half_way_is_finished_by_the_next() -> Result<()> {
    let stack = unserved(AssetPlan::default()).await?;
    let client = stack.client();
    let image = &digits::held_out()?[0];
    let submitted = client.submit(uncached(image)).await?;
    let body = image.row_request();
    answer(client, &submitted.id, Status::Cancelled, body.as_bytes()).await?;
    let options = PurgeOptions::default();
    let queues = client.queues();
    let purged = queues.purge(&model()?, Lane::Normal, &options).await?;
    assert_eq!((purged.removed, purged.answered), (1, 0));
    assert_eq!(messages_in(client, "INFER_JOBS").await?, 0);
    assert_eq!(messages_in(client, "INFER_RESULTS").await?, 1);
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_replay_that_is_purged_ends_as_cancelled_in_place_of_the_old_outcome() -> Result<()> {
    let stack = stack(1).await?;
    let client = stack.client();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let failing = job("digits", r#"{"instances": [[1, 2, 3]]}"#);
        ids.push(client.run(failing).await?.headers.job_id);
    }
    wait_until_empty(client, "INFER_JOBS").await?;
    let worker = stack.worker(0).context("it runs")?;
    worker.terminate();
    worker.wait(PATIENCE).await.context("it drains")?;
    let letters = client.dead().list(&DeadFilter::default()).await?.letters;
    for letter in &letters {
        client
            .dead()
            .replay(letter, &ReplayOptions::default())
            .await?;
    }
    // One of the old outcomes leaves by age, the other is still there.
    let server = jetstream::new(client.nats().clone());
    let results = server.get_stream("INFER_RESULTS").await?;
    results
        .purge()
        .filter(client.subjects().result(&ids[0]))
        .await?;
    let options = PurgeOptions::default();
    let purged = client
        .queues()
        .purge(&model()?, Lane::Normal, &options)
        .await?;
    assert_eq!((purged.removed, purged.answered), (2, 0));
    for id in &ids {
        let outcome = client.result(id, Duration::ZERO).await?;
        assert_eq!(outcome.status(), Status::Cancelled, "{id}");
    }
    assert_eq!(messages_in(client, "INFER_DEAD").await?, 0);
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_purged_while_workers_empty_it_gives_each_job_one_outcome() -> Result<()> {
    const JOBS: usize = 3_000;
    let stack = unserved(AssetPlan::default()).await?;
    let client = stack.client();
    let images = digits::held_out()?;
    let jobs = images.iter().cycle().take(JOBS).map(uncached);
    let ids = submit_all(client, jobs.collect()).await?;
    stack.start_worker().await?;
    let options = PurgeOptions::default();
    let purged = client
        .queues()
        .purge(&model()?, Lane::Normal, &options)
        .await?;
    wait_until_empty(client, "INFER_JOBS").await?;
    assert_eq!(messages_in(client, "INFER_RESULTS").await?, JOBS as u64);
    let mut ended = BTreeMap::<&str, u64>::new();
    for id in &ids {
        let outcome = client.result(id, Duration::ZERO).await?;
        *ended.entry(outcome.status().as_str()).or_default() += 1;
    }
    let cancelled = ended.get("cancelled").copied().unwrap_or(0);
    ensure!(
        ended
            .keys()
            .all(|status| ["ok", "cancelled"].contains(status)),
        "{ended:?}"
    );
    assert_eq!(cancelled, purged.removed, "{ended:?} {purged:?}");
    assert!(cancelled > 0, "{ended:?}");
    assert_eq!(messages_in(client, "INFER_DEAD").await?, 0);
    assert!(
        client
            .run(job("digits", images[0].row_request()))
            .await?
            .is_ok()
    );
    Ok(stack.stop().await?)
}
