//! What still holds when a part fails in mid-run: every job that was accepted ends in exactly one
//! outcome, the queue empties, and each call of a client ends with a result or a typed error.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream};
use inferq::stack::{RedisChoice, RedisServer, StackOptions};
use inferq::{Client, Job, JobId, Status, SubmitError};
use inferq_integration::digits::{self, Digit};
use inferq_integration::{
    PATIENCE, job, messages_in, models_folder, start, submit_all, uncached, wait_until_empty,
};
use tokio::task::JoinHandle;

/// Enough that a fault a moment after the first outcome falls among them.
const JOBS: usize = 1_500;

fn slow(workers: usize) -> StackOptions {
    StackOptions {
        workers,
        worker_args: ["--executors", "1", "--max-batch-rows", "4"]
            .map(str::to_owned)
            .to_vec(),
        ..StackOptions::new(models_folder())
    }
}

/// Submits a job for each of [`JOBS`] images beside the test.
fn submitting(
    client: &Client,
    job_of: impl Fn(&Digit) -> Job,
) -> Result<JoinHandle<Result<Vec<JobId>>>> {
    let images = digits::held_out()?;
    let jobs: Vec<Job> = images.iter().cycle().take(JOBS).map(job_of).collect();
    let client = client.clone();
    Ok(tokio::spawn(async move { submit_all(&client, jobs).await }))
}

async fn first_outcomes(client: &Client) -> Result<()> {
    let begun = Instant::now();
    while messages_in(client, "INFER_RESULTS").await? < 20 {
        ensure!(begun.elapsed() < PATIENCE, "no outcomes");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Every one of them is `ok`, none was replaced, nothing waits, nothing died.
async fn all_ended_once(client: &Client, jobs: &[JobId]) -> Result<()> {
    let statuses: Vec<Result<Status>> = stream::iter(jobs)
        .map(|id| async move {
            let outcome = client.result(id, PATIENCE).await;
            Ok(outcome.with_context(|| format!("job {id}"))?.status())
        })
        .buffered(64)
        .collect()
        .await;
    for status in statuses {
        assert_eq!(status?, Status::Ok);
    }
    wait_until_empty(client, "INFER_JOBS").await?;
    assert_eq!(messages_in(client, "INFER_DEAD").await?, 0);
    let jetstream = async_nats::jetstream::new(client.nats().clone());
    let results = jetstream.get_stream("INFER_RESULTS").await?;
    let state = &results.cached_info().state;
    assert_eq!(
        (state.messages, state.last_sequence),
        (jobs.len() as u64, jobs.len() as u64),
        "one outcome each, none written twice"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_survive_a_server_that_crashes_and_comes_back() -> Result<()> {
    let stack = start(slow(2)).await?;
    let submitted = submitting(stack.client(), uncached)?;
    first_outcomes(stack.client()).await?;
    stack.nats().kill().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stack.nats().restart().await?;
    let accepted = submitted.await??;
    assert_eq!(accepted.len(), JOBS, "submit_many outlives the crash");
    all_ended_once(stack.client(), &accepted).await?;
    // The server still knows the streams and consumers of what lives for seconds only.
    stack.wait_ready(PATIENCE).await?;
    let image = &digits::held_out()?[0];
    let called = stack.client().call(job("digits", image.row_request()));
    assert!(called.await?.is_ok());
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_answering_loses_nothing() -> Result<()> {
    let stack = start(slow(2)).await?;
    let submitted = submitting(stack.client(), uncached)?;
    first_outcomes(stack.client()).await?;
    // It has yet to ask whether the model is known, and asks a server that says nothing.
    let newcomer = Client::connect(stack.nats_url()).await?;
    stack.nats().pause();
    let image = digits::held_out()?[0].clone();
    let late = tokio::spawn(async move { newcomer.submit(uncached(&image)).await });
    tokio::time::sleep(Duration::from_secs(7)).await;
    stack.nats().resume();
    let mut accepted = submitted.await??;
    assert_eq!(accepted.len(), JOBS);
    accepted.push(late.await??.id);
    all_ended_once(stack.client(), &accepted).await?;
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_server_that_stops_answering_end_within_their_limits() -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(2);
    const CALLS: usize = 3_000;
    let stack = start(slow(1)).await?;
    let client = Client::builder()
        .submit_within(LIMIT)
        .call_within(LIMIT)
        .connect(stack.nats_url())
        .await?;
    let image = &digits::held_out()?[0];
    client.call(uncached(image)).await?;
    stack.nats().pause();
    let begun = Instant::now();
    let id = JobId::random();
    let submit = client.submit(uncached(image).with_id(id.clone()));
    let read = client.result(&id, LIMIT);
    // More than the connection's own buffer holds, so that some wait for room in it.
    let calls = futures::future::join_all((0..CALLS).map(|_| client.call(uncached(image))));
    let (submitted, read, called) = tokio::join!(submit, read, calls);
    let took = begun.elapsed();
    assert!(
        matches!(
            submitted,
            Err(SubmitError::Unconfirmed { .. } | SubmitError::Model(_))
        ),
        "{submitted:?}"
    );
    assert!(read.is_err() && called.iter().all(Result::is_err));
    assert!(took < LIMIT * 4, "the last call took {took:?}");
    stack.nats().resume();
    // It may have been queued; the same id again is the same job.
    let again = client.run(uncached(image).with_id(id)).await?;
    assert!(again.is_ok());
    wait_until_empty(&client, "INFER_JOBS").await?;
    assert_eq!(messages_in(&client, "INFER_RESULTS").await?, 1);
    Ok(stack.stop().await?)
}

async fn redis_fails(fail: impl AsyncFn(&RedisServer)) -> Result<()> {
    let stack = start(StackOptions {
        redis: RedisChoice::Auto,
        ..slow(2)
    })
    .await?;
    let redis = stack
        .redis()
        .context("redis-server is missing; deploy/setup.sh installs it")?;
    let cached = |digit: &Digit| job("digits", digit.row_request());
    let submitted = submitting(stack.client(), cached)?;
    first_outcomes(stack.client()).await?;
    fail(redis).await;
    let accepted = submitted.await??;
    all_ended_once(stack.client(), &accepted).await?;
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_crashes_in_mid_run_costs_no_job() -> Result<()> {
    redis_fails(async |redis| redis.kill().await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stops_answering_in_mid_run_costs_no_job() -> Result<()> {
    redis_fails(async |redis| redis.pause()).await
}
