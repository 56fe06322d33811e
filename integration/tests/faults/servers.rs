//! nats-server and Redis crash, or stop answering.
//!
//! Invariant: every job that was accepted ends once and rightly, and each call of a client ends with a
//! result or a typed error within its limit.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use inferq::stack::{RedisChoice, RedisServer, StackOptions};
use inferq::{Client, JobId, SubmitError};
use inferq_integration::{PATIENCE, digits, job, messages_in, start, uncached, wait_until_empty};

use crate::check::Watch;
use crate::load::{JOBS, Load, slow};
use crate::outcomes;

#[tokio::test(flavor = "multi_thread")]
async fn jobs_survive_a_server_that_crashes_and_comes_back() -> Result<()> {
    let (load, stack) = (Load::new()?, start(slow(2)).await?);
    let watch = Watch::stack(&stack)?;
    let submitting = load.submitting(stack.client());
    outcomes(stack.client(), 20).await?;
    stack.nats().kill().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stack.nats().restart().await?;
    let accepted = submitting.accepted().await?;
    watch
        .all_ended_once(stack.client(), &load, &accepted)
        .await?;
    // The server still knows the streams and consumers of what lives for seconds only.
    stack.wait_ready(PATIENCE).await?;
    let image = &digits::held_out()?[0];
    let called = stack.client().call(job("digits", image.row_request()));
    assert!(called.await?.is_ok());
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_answering_loses_nothing() -> Result<()> {
    let (load, stack) = (Load::new()?, start(slow(2)).await?);
    let watch = Watch::stack(&stack)?;
    let submitting = load.submitting(stack.client());
    outcomes(stack.client(), 20).await?;
    // It has yet to ask whether the model is known, and asks a server that says nothing.
    let newcomer = Client::connect(stack.nats_url()).await?;
    stack.nats().pause();
    let late = load.job(JOBS);
    let late = tokio::spawn(async move { newcomer.submit(late).await });
    tokio::time::sleep(Duration::from_secs(7)).await;
    stack.nats().resume();
    let mut accepted = submitting.accepted().await?;
    accepted.push(late.await??.id);
    watch
        .all_ended_once(stack.client(), &load, &accepted)
        .await?;
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
    let load = Load::new()?;
    let stack = start(StackOptions {
        redis: RedisChoice::Auto,
        ..slow(2)
    })
    .await?;
    let watch = Watch::stack(&stack)?;
    let redis = stack
        .redis()
        .context("redis-server is missing; deploy/setup.sh installs it")?;
    let submitting = load.submitting_as(stack.client(), Load::cached);
    outcomes(stack.client(), 20).await?;
    fail(redis).await;
    let accepted = submitting.accepted().await?;
    watch
        .all_ended_once(stack.client(), &load, &accepted)
        .await?;
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
