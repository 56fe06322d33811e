//! Jobs by reference that are purged: their bodies go with them.

use anyhow::{Context, Result};
use async_nats::{HeaderMap, jetstream};
use inferq::dead::DeadFilter;
use inferq::stack::{Stack, StackOptions};
use inferq::{Job, JobId, ModelName, Status};
use inferq_integration::command::inferq;
use inferq_integration::{
    PATIENCE, digits, fixtures, messages_in, start, submit_all, wait_until_empty,
};

use crate::{large_job, objects, passing};

#[tokio::test(flavor = "multi_thread")]
async fn purging_a_queue_deletes_the_bodies_of_its_jobs() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = passing(folder.path(), 0).await?;
    let client = stack.client();
    submit_all(client, vec![large_job(1)?, large_job(2)?]).await?;
    assert_eq!(objects(client).await?.len(), 2);
    let purged = inferq(&stack, "queue purge pass --lane normal --yes").await?;
    assert!(purged.well, "{}", purged.err);
    assert_eq!(purged.out.trim(), "pass normal: 2 jobs removed");
    assert!(objects(client).await?.is_empty());
    assert_eq!(
        messages_in(client, "OBJ_infer_blobs").await?,
        0,
        "no part is left"
    );
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_purged_although_their_bodies_cannot_be_deleted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = passing(folder.path(), 0).await?;
    let client = stack.client();
    let job = client.submit(large_job(1)?).await?.id;
    let server = jetstream::new(client.nats().clone());
    server.delete_stream("OBJ_infer_blobs").await?;
    let purged = inferq(&stack, "queue purge pass --lane normal --yes").await?;
    assert!(purged.well, "{}", purged.err);
    assert!(
        purged.err.contains("1 bodies by reference"),
        "{}",
        purged.err
    );
    assert_eq!(messages_in(client, "INFER_JOBS").await?, 0);
    let outcome = client.result(&job, PATIENCE).await?;
    assert_eq!(outcome.status(), Status::Cancelled);
    Ok(stack.stop().await?)
}

/// A job by reference that has failed and has its letter.
async fn fails(stack: &Stack, images: &[digits::Digit]) -> Result<JobId> {
    let client = stack.client();
    let job = Job::new(ModelName::new("narrow")?, digits::rows_request(images));
    let outcome = client.run(job).await?;
    assert_eq!(outcome.status(), Status::Error);
    wait_until_empty(client, "INFER_JOBS").await?;
    Ok(outcome.headers.job_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn purging_a_dead_letter_deletes_the_body_of_its_job_and_no_other() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // Takes four numbers, not the 64 of a digit.
    fixtures::add_model(folder.path(), "narrow", "mean_axis0.onnx")?;
    let stack = start(StackOptions::new(folder.path())).await?;
    let client = stack.client();
    let images = [digits::held_out()?.as_slice(); 6].concat();
    let purged = fails(&stack, &images).await?;
    let kept = fails(&stack, &images[1..]).await?;
    assert_eq!(objects(client).await?.len(), 2);
    let command = inferq(&stack, &format!("dead purge {purged} --yes")).await?;
    assert!(command.well, "{}", command.err);
    let filter = DeadFilter {
        jobs: vec![kept],
        ..DeadFilter::default()
    };
    let kept = client.dead().list(&filter).await?.letters.pop();
    let kept = kept.context("it stays")?;
    let reference = kept.body_reference().context("it has one")?;
    assert_eq!(objects(client).await?, [reference.name()]);
    // A second one, as that of a replay which failed again, needs the body too.
    let server = jetstream::new(client.nats().clone());
    let subject = format!("infer.dead.narrow.normal.{}", kept.job);
    let mut headers = HeaderMap::new();
    headers.insert("Infer-Payload-Ref", reference.to_string());
    let copy = server.publish_with_headers(subject, headers, "".into());
    let copy = copy.await?.await?;
    assert!(client.dead().purge(&kept).await?);
    assert_eq!(objects(client).await?.len(), 1);
    assert!(!client.dead().purge(&kept).await?);
    assert_eq!(objects(client).await?.len(), 1);
    let second = client.dead().list(&filter).await?.letters.pop();
    let second = second.context("it was published")?;
    assert_eq!(second.sequence, copy.sequence);
    assert!(client.dead().purge(&second).await?);
    assert!(objects(client).await?.is_empty());
    Ok(stack.stop().await?)
}
