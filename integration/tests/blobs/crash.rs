//! A worker that is killed around the outcome of a job by reference: the body is there as long as it
//! may be needed, and no longer.

use std::time::Duration;

use anyhow::Result;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{FromConsumer, pull};
use inferq_integration::lone::LoneWorker;
use inferq_integration::proxy::{Proxy, Side};
use inferq_integration::{PATIENCE, digits, job, stack, wait_until_empty};

use crate::{objects, wait_for_objects};

/// Kills the first worker at the outcome and lets a second one go on.
async fn killed(side: Side, worker: &str) -> Result<()> {
    let stack = stack(0).await?;
    let client = stack.client();
    // Jobs come again after two seconds instead of thirty.
    let stream = jetstream::new(client.nats().clone())
        .get_stream("INFER_JOBS")
        .await?;
    let config = stream.consumer_info("digits__normal").await?.config;
    let config = pull::Config::try_from_consumer_config(config);
    let config = config.map_err(|error| anyhow::anyhow!(error))?;
    let ack_wait = Duration::from_secs(2);
    stream
        .create_consumer(pull::Config { ack_wait, ..config })
        .await?;

    let proxy = Proxy::start(stack.nats_url()).await?;
    let mut first = LoneWorker::start(client, &proxy.url(), "first").await?;
    proxy.hold(side, "infer.results.");
    let body = digits::rows_request(&[digits::held_out()?.as_slice(); 6].concat());
    let submitted = client.submit(job("digits", body)).await?;
    proxy.held().await?;
    assert_eq!(objects(client).await?.len(), 1, "it may be needed again");
    first.kill().await?;
    let _second = LoneWorker::start(client, stack.nats_url(), "second").await?;
    let outcome = client.wait(&submitted, PATIENCE).await?;
    assert!(outcome.is_ok(), "{}", outcome.text());
    assert_eq!(outcome.headers.worker, worker);
    wait_until_empty(client, "INFER_JOBS").await?;
    wait_for_objects(client, 0).await?;
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_before_the_commit_leaves_the_body_for_the_next() -> Result<()> {
    killed(Side::Before, "second").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_after_the_commit_leaves_the_body_to_be_deleted_by_the_next() -> Result<()>
{
    killed(Side::After, "first").await
}
