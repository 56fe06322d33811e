//! A worker is killed right before, and right after, it has written an outcome.
//!
//! Invariant: there is one outcome, whoever wrote it, and its caller is told that one.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use inferq::stack::Stack;
use inferq_integration::lone::LoneWorker;
use inferq_integration::proxy::{Proxy, Side};
use inferq_integration::{
    PATIENCE, digits, messages_in, plain, redeliver_after, stack, wait_until_empty,
};

/// A stack without workers, whose jobs come again after two seconds instead of thirty.
async fn impatient_stack() -> Result<Stack> {
    let stack = stack(0).await?;
    redeliver_after(stack.client(), "digits", Duration::from_secs(2)).await?;
    Ok(stack)
}

/// Kills the first worker at the outcome of a job and lets a second one go on.
async fn killed(side: Side, attempt: &str, worker: &str) -> Result<()> {
    let stack = impatient_stack().await?;
    let nats = stack.client().nats();
    let proxy = Proxy::start(stack.nats_url()).await?;
    let mut first = LoneWorker::start(stack.client(), &proxy.url(), "first").await?;
    proxy.hold(side, "infer.results.");
    let inbox = nats.new_inbox();
    let mut replies = nats.subscribe(inbox.clone()).await?;
    let headers = [
        ("Infer-Job-Id", "crash"),
        ("Infer-Reply-To", inbox.as_str()),
    ];
    let image = &digits::held_out()?[0];
    plain::job(
        nats,
        "infer.jobs.digits.normal",
        &headers,
        image.row_request(),
    )
    .await?;
    proxy.held().await?;
    first.kill().await?;
    let _second = LoneWorker::start(stack.client(), stack.nats_url(), "second").await?;
    let reply = tokio::time::timeout(PATIENCE, replies.next())
        .await
        .context("nobody was told")?
        .context("the connection closed")?;
    let headers = reply.headers.context("headers")?;
    let header = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
    assert_eq!(header("Infer-Status").as_deref(), Some("ok"));
    assert_eq!(header("Infer-Attempt").as_deref(), Some(attempt));
    assert_eq!(header("Infer-Worker").as_deref(), Some(worker));
    let kept = plain::outcome(nats, "crash", PATIENCE).await?;
    assert_eq!(
        kept.body, reply.payload,
        "the reply is the outcome that stands"
    );
    wait_until_empty(stack.client(), "INFER_JOBS").await?;
    assert_eq!(messages_in(stack.client(), "INFER_RESULTS").await?, 1);
    assert_eq!(messages_in(stack.client(), "INFER_DEAD").await?, 0);
    let more = tokio::time::timeout(Duration::from_millis(100), replies.next()).await;
    assert!(more.is_err(), "one reply: the first worker sent none");
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_before_the_commit_leaves_the_job_to_the_next() -> Result<()> {
    killed(Side::Before, "2", "second").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_after_the_commit_has_decided_and_the_next_tells_it() -> Result<()> {
    killed(Side::After, "1", "first").await
}
