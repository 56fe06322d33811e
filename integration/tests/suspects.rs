//! Jobs that may have ended their process wait until nothing else runs: their deadlines do not, and they
//! can be called off.

use std::time::Duration;

use anyhow::Result;
use inferq::stack::StackOptions;
use inferq::{Job, JobId, Lane, ModelName, Status};
use inferq_integration::scrape::{metric, wait_for_metric};
use inferq_integration::{
    PATIENCE, deliveries, digits, fixtures, hazards, messages_in, start, uncached,
};

/// Until then a worker has been started, and something runs in it.
const COMES_AGAIN: Duration = Duration::from_secs(12);
/// So long a suspect waits in it for its deadline; then the next one comes.
const WAITS: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn suspects_that_wait_end_at_their_deadline_or_when_they_are_cancelled() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fixtures::add_digits(folder.path(), "digits")?;
    hazards::add(folder.path(), Duration::from_secs(300))?;
    let stack = start(StackOptions {
        workers: 0,
        worker_args: ["--executors", "2"].map(str::to_owned).to_vec(),
        expect: Some(vec![ModelName::new("digits")?, ModelName::new("spin")?]),
        ..StackOptions::new(folder.path())
    })
    .await?;
    let client = stack.client();
    let image = &digits::held_out()?[0];
    let third_delivery = async |job: Job, after: Duration| {
        let id: JobId = client.submit(job).await?.id;
        deliveries::in_vain(client, Lane::Normal, Duration::ZERO).await?;
        deliveries::in_vain(client, Lane::Normal, after).await?;
        anyhow::Ok(id)
    };
    let late = uncached(image).timeout(COMES_AGAIN + WAITS);
    let late = third_delivery(late, COMES_AGAIN).await?;
    let unwanted = third_delivery(uncached(image), COMES_AGAIN + 2 * WAITS).await?;
    client.submit(hazards::endless()).await?;
    stack.start_worker().await?;
    stack.wait_ready(PATIENCE).await?;
    let suspects_here = r#"inferq_redeliveries_total{model="digits"}"#;
    wait_for_metric(client, "worker-1", suspects_here, 1.0).await?;
    let outcome = client.result(&late, PATIENCE).await?;
    assert_eq!(outcome.status(), Status::Expired);
    assert_eq!(outcome.headers.attempt, 3);
    wait_for_metric(client, "worker-1", suspects_here, 2.0).await?;
    assert_eq!(client.cancel(&unwanted).await?.status(), Status::Cancelled);
    // What runs is all that is left.
    wait_for_metric(client, "worker-1", "inferq_inflight_jobs", 1.0).await?;
    let alone = r#"inferq_suspects_total{model="digits"}"#;
    assert_eq!(metric(client, "worker-1", alone).await?, 0.0);
    // Nothing has to be kept away from the others any more.
    assert!(client.run(uncached(image)).await?.is_ok());
    let left = async {
        // All but what still runs.
        while messages_in(client, "INFER_JOBS").await? > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, left).await??;
    assert_eq!(messages_in(client, "INFER_DEAD").await?, 0);
    Ok(())
}
