//! A worker is stopped (SIGSTOP) in mid-run for longer than the queue waits for an acknowledgement, and
//! goes on (SIGCONT) as if nothing had happened.
//!
//! Invariant: another worker answers its jobs meanwhile, and when it comes back with outcomes of its
//! own, the first ones stand.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use inferq_integration::scrape::metric;
use inferq_integration::{redeliver_after, start};
use rand::RngExt;

use crate::check::Watch;
use crate::load::{Load, slow};
use crate::{outcomes, random};

/// Instead of 30 s, which would make the test as long.
const ACK_WAIT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_stopped_finds_its_jobs_answered_and_changes_nothing() -> Result<()> {
    let mut random = random()?;
    let (load, stack) = (Load::new()?, start(slow(2)).await?);
    let client = stack.client();
    redeliver_after(client, "digits", ACK_WAIT).await?;
    let watch = Watch::stack(&stack)?;
    let victim = stack.worker(0).context("two were started")?;
    let submitting = load.submitting(client);
    outcomes(client, random.random_range(20..200)).await?;
    // Now and then it is stopped between two jobs and holds none, so once would not be enough.
    for _ in 0..3 {
        victim.pause();
        tokio::time::sleep(ACK_WAIT.mul_f64(random.random_range(1.2..1.6))).await;
        victim.resume();
        tokio::time::sleep(Duration::from_millis(random.random_range(50..200))).await;
    }
    let accepted = submitting.accepted().await?;
    watch.all_ended_once(client, &load, &accepted).await?;
    let again = r#"inferq_redeliveries_total{model="digits"}"#;
    let other = metric(client, "worker-2", again).await?;
    ensure!(
        other > 0.0,
        "nothing of what the stopped one held came again"
    );
    Ok(stack.stop().await?)
}
