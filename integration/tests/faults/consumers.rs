//! A consumer is deleted while its workers hold messages of it.
//!
//! Invariant: jobs are accepted all the same; a worker says what to type and reports that it is not
//! ready; once the command was run work goes on by itself, and every job ends once and rightly.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use inferq::stack::Stack;
use inferq_integration::command::inferq;
use inferq_integration::{PATIENCE, models_folder, start};
use tokio::time::Instant;

use crate::check::Watch;
use crate::load::{Load, slow};
use crate::outcomes;

async fn delete_consumer(stack: &Stack) -> Result<()> {
    let jetstream = jetstream::new(stack.client().nats().clone());
    let jobs = jetstream.get_stream("INFER_JOBS").await?;
    jobs.delete_consumer("digits__normal").await?;
    Ok(())
}

/// Waits until each worker reports that it is not ready, and has said what to do.
async fn told_what_to_do(stack: &Stack) -> Result<()> {
    let begun = Instant::now();
    loop {
        let records = stack.client().workers().await?;
        let ready = records.iter().any(|record| record.ready);
        let mut workers = stack.workers().into_iter();
        let told = |lines: String| lines.contains("run `inferq init --models DIR`");
        if !ready && workers.all(|worker| told(worker.last_lines())) {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "{records:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_consumer_is_noticed_and_made_again_and_no_job_is_lost() -> Result<()> {
    let (load, stack) = (Load::new()?, start(slow(2)).await?);
    let client = stack.client();
    let watch = Watch::stack(&stack)?;
    let submitting = load.submitting(client);
    outcomes(client, 20).await?;
    delete_consumer(&stack).await?;
    let accepted = submitting.accepted().await?;
    told_what_to_do(&stack).await?;
    let models = models_folder();
    let models = models.to_str().context("a path in UTF-8")?;
    let made = inferq(&stack, &format!("init --models {models}")).await?;
    ensure!(made.well && made.out.contains("digits__normal"), "{made:?}");
    watch.all_ended_once(client, &load, &accepted).await?;
    stack.wait_ready(PATIENCE).await?;
    Ok(stack.stop().await?)
}
