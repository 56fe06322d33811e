//! Workers are replaced one by one while they are called and have jobs: nobody notices.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use inferq::stack::{Stack, StackOptions};
use inferq::{Client, JobId, Status};
use inferq_integration::digits::{self, Digit};
use inferq_integration::{PATIENCE, messages_in, models_folder, start, uncached, wait_until_empty};
use tokio_util::sync::CancellationToken;

/// How often all workers are replaced.
const ROUNDS: usize = 3;
const WORKERS: usize = 2;
const CALLS_AT_ONCE: usize = 16;

/// Calls until `over`; how many there were, and the failures.
async fn calls(client: &Client, image: &Digit, over: &CancellationToken) -> (usize, Vec<String>) {
    let endless = stream::repeat(()).take_until(over.cancelled());
    let call = async |()| {
        let request = uncached(image).timeout(Duration::from_secs(30));
        client
            .call(request)
            .await
            .map_err(|error| error.to_string())
    };
    let answers: Vec<_> = endless
        .map(call)
        .buffer_unordered(CALLS_AT_ONCE)
        .collect()
        .await;
    let count = answers.len();
    let failures = answers.into_iter().filter_map(Result::err);
    (count, failures.collect())
}

/// Submits jobs until `over`.
async fn jobs(client: &Client, image: &Digit, over: &CancellationToken) -> Result<Vec<JobId>> {
    let ticks = tokio::time::interval(Duration::from_millis(5));
    let paced = stream::unfold(ticks, async |mut ticks| {
        ticks.tick().await;
        Some((uncached(image), ticks))
    });
    let submitted = client.submit_many(Box::pin(paced.take_until(over.cancelled())));
    submitted
        .map(|submitted| anyhow::Ok(submitted.context("a job was not accepted")?.id))
        .try_collect()
        .await
}

/// Starts another worker before each that is told to stop.
async fn replace_all(stack: &Stack) -> Result<()> {
    for _ in 0..ROUNDS * WORKERS {
        let old = stack.workers().into_iter().find(|old| old.is_running());
        let old = old.context("somebody works")?;
        stack.start_worker().await?;
        stack.wait_ready(PATIENCE).await?;
        old.terminate();
        let status = old.wait(PATIENCE).await.context("it does not end")?;
        assert!(status.success(), "{status}: {}", old.last_lines());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_replaced_one_by_one_under_load_without_a_failed_call_or_job() -> Result<()> {
    let stack = start(StackOptions {
        workers: WORKERS,
        worker_args: ["--executors", "1"].map(str::to_owned).to_vec(),
        ..StackOptions::new(models_folder())
    })
    .await?;
    let client = stack.client();
    let image = &digits::held_out()?[0];
    let over = CancellationToken::new();
    let replaced = async {
        let replaced = replace_all(&stack).await;
        over.cancel();
        replaced
    };
    let (replaced, (called, failures), submitted) = tokio::join!(
        replaced,
        calls(client, image, &over),
        jobs(client, image, &over)
    );
    replaced?;
    let submitted = submitted?;
    assert!(called > 100 && submitted.len() > 100, "there was load");
    assert!(
        failures.is_empty(),
        "{} of {called} calls: {:?}",
        failures.len(),
        failures.first()
    );
    for id in &submitted {
        let outcome = client.result(id, PATIENCE).await?;
        assert_eq!(outcome.status(), Status::Ok, "{id}");
    }
    wait_until_empty(client, "INFER_JOBS").await?;
    assert_eq!(messages_in(client, "INFER_DEAD").await?, 0);
    let jetstream = async_nats::jetstream::new(client.nats().clone());
    let results = jetstream.get_stream("INFER_RESULTS").await?;
    let state = &results.cached_info().state;
    let jobs = submitted.len() as u64;
    assert_eq!((state.messages, state.last_sequence), (jobs, jobs));
    Ok(stack.stop().await?)
}
