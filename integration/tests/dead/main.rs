//! Jobs that failed for good: found, understood, mended and run again, or forgotten; in the library
//! and by `inferq dead`.

mod letters;
mod replay;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use inferq::dead::{DeadEntry, DeadFilter};
use inferq::stack::{Stack, StackOptions};
use inferq::{Client, Job, JobId, Outcome};
use inferq_integration::{PATIENCE, fixtures, start, wait_until_empty};

/// Too short for the digits model, in every version.
pub(crate) const CUT: &str = r#"{"instances": [[1, 2, 3]]}"#;

/// Submits a job and waits for its outcome and for the end of its message.
pub(crate) async fn run(client: &Client, job: Job) -> Result<(JobId, Outcome)> {
    let submitted = client.submit(job).await?;
    let outcome = client.wait(&submitted, PATIENCE).await?;
    wait_until_empty(client, &submitted.stream).await?;
    Ok((submitted.id, outcome))
}

pub(crate) async fn letters(client: &Client, job: &JobId) -> Result<Vec<DeadEntry>> {
    let filter = DeadFilter {
        jobs: vec![job.clone()],
        ..DeadFilter::default()
    };
    Ok(client.dead().list(&filter).await?.letters)
}

/// The only dead letter of a job.
pub(crate) async fn letter(client: &Client, job: &JobId) -> Result<DeadEntry> {
    let mut found = letters(client, job).await?;
    ensure!(found.len() == 1, "{found:?}");
    found.pop().context("one is there")
}

/// The outcome of a job whose message is gone, and its sequence.
pub(crate) async fn outcome(client: &Client, job: &JobId) -> Result<(Outcome, u64)> {
    let read = client.result(job, Duration::ZERO).await?;
    let sequence = read.sequence.context("it is stored")?;
    Ok((read, sequence))
}

/// A stack whose model `mended` takes four numbers, not the 64 of a digit.
pub(crate) async fn misfit(folder: &Path) -> Result<Stack> {
    fixtures::add_model(folder, "mended", "mean_axis0.onnx")?;
    start(StackOptions::new(folder)).await
}

/// Puts a second version into place that takes digits, and waits until a worker serves it.
pub(crate) async fn mend(stack: &Stack, folder: &Path) -> Result<()> {
    fixtures::add_digits_version(folder, "mended", 2)?;
    let begun = Instant::now();
    loop {
        let workers = stack.client().workers().await?;
        let mut models = workers.iter().flat_map(|worker| &worker.models);
        if models.any(|model| model.versions.contains(&2)) {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "version 2 is never served");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
