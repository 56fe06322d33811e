//! A job by reference that failed: its letter keeps the reference, and its body stays until it is
//! answered.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use inferq::dead::{DeadFilter, ReplayError, ReplayOptions};
use inferq::stack::StackOptions;
use inferq::{ErrorCode, Job, ModelName};
use inferq_integration::{PATIENCE, digits, fixtures, messages_in, start, wait_until_empty};

use crate::{bucket, objects, wait_for_objects};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_by_reference_is_replayed_while_its_body_is_there_and_refused_after() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // Takes four numbers, not the 64 of a digit, until its second version.
    fixtures::add_model(folder.path(), "mended", "mean_axis0.onnx")?;
    let stack = start(StackOptions::new(folder.path())).await?;
    let client = stack.client();
    let images = [digits::held_out()?.as_slice(); 6].concat();
    let mut letters = Vec::new();
    for images in [&images[..], &images[1..]] {
        let job = Job::new(ModelName::new("mended")?, digits::rows_request(images));
        let submitted = client.submit(job).await?;
        let outcome = client.wait(&submitted, PATIENCE).await?;
        let failure = outcome.failure().context("four numbers are expected")?;
        assert_eq!(failure.code, ErrorCode::BadInput);
        wait_until_empty(client, "INFER_JOBS").await?;
        let filter = DeadFilter {
            jobs: vec![submitted.id],
            ..DeadFilter::default()
        };
        let letter = client.dead().list(&filter).await?.letters.pop();
        letters.push(letter.context("it has a letter")?);
    }
    assert_eq!(objects(client).await?.len(), 2, "a letter may need them");
    let read = client.dead().read(&letters[0]).await?;
    assert!(read.body.is_empty());
    let outcome = client.result(&letters[0].job, PATIENCE).await?;
    assert_eq!(Some(read.digest()), outcome.headers.body_digest);

    fixtures::add_digits_version(folder.path(), "mended", 2)?;
    let begun = Instant::now();
    loop {
        let workers = client.workers().await?;
        let mut models = workers.iter().flat_map(|worker| &worker.models);
        if models.any(|model| model.versions.contains(&2)) {
            break;
        }
        ensure!(begun.elapsed() < PATIENCE, "version 2 is never served");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let options = ReplayOptions::default();
    let replayed = client.dead().replay(&letters[0], &options).await?;
    let outcome = client.dead().wait(&replayed, PATIENCE).await?;
    assert!(outcome.is_ok(), "{}", outcome.text());
    let left = wait_for_objects(client, 1).await?;

    let reference = letters[1].body_reference().context("it has one")?;
    assert_eq!(left, [reference.name()]);
    bucket(client).await?.delete(reference.name()).await?;
    let refused = client.dead().replay(&letters[1], &options).await;
    let refused = refused.err().context("nothing is there to run")?;
    assert!(matches!(refused, ReplayError::NoBody { .. }), "{refused}");
    assert!(refused.to_string().contains(reference.name()), "{refused}");
    assert_eq!(messages_in(client, "INFER_JOBS").await?, 0);
    assert_eq!(messages_in(client, "INFER_DEAD").await?, 1, "it stays");
    Ok(stack.stop().await?)
}
