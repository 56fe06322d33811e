//! The library: nobody notices that a body did not fit into a message.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::{TryStreamExt, stream};
use inferq::{CancelError, ErrorCode, ResultMode, SubmitError};
use inferq_integration::{PATIENCE, messages_in, plain, wait_until_empty};

use crate::{bucket, check, large_job, objects, passing, wait_for_objects};

#[tokio::test(flavor = "multi_thread")]
async fn a_body_and_an_answer_above_max_payload_go_as_job_as_call_and_to_be_read_later()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = passing(folder.path(), 1).await?;
    let client = stack.client();
    check(&client.call(large_job(1)?).await?, 1)?;
    // Neither the request of a call nor its answer is needed any more.
    wait_for_objects(client, 0).await?;

    check(&client.run(large_job(2)?).await?, 2)?;
    let submitted = client.submit(large_job(3)?).await?;
    check(&client.wait(&submitted, PATIENCE).await?, 3)?;
    check(&client.result(&submitted.id, Duration::ZERO).await?, 3)?;
    let many = [large_job(4)?, large_job(5)?, large_job(6)?];
    let many: Vec<_> = client.submit_many(stream::iter(many)).try_collect().await?;
    for (submitted, seed) in many.iter().zip(4..) {
        check(&client.wait(submitted, PATIENCE).await?, seed)?;
    }
    // The answers of the five jobs are kept, what they were asked is not.
    wait_until_empty(client, "INFER_JOBS").await?;
    let kept = wait_for_objects(client, 5).await?;
    let record = plain::outcome(client.nats(), submitted.id.as_str(), PATIENCE).await?;
    assert_eq!(record.header("Infer-Status"), Some("ok"));
    assert!(record.body.is_empty());
    let reference = record.header("Infer-Payload-Ref").context("it has one")?;
    let (name, _) = reference.split_once(';').context("name and size")?;
    assert!(kept.iter().any(|kept| kept == name), "{reference}");
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_that_stands_is_what_a_cancellation_returns() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = passing(folder.path(), 1).await?;
    let client = stack.client();
    let ended = client.run(large_job(1)?).await?;
    let id = &ended.headers.job_id;
    check(&client.cancel(id).await?, 1)?;
    let reference = ended.headers.payload_ref.as_ref();
    let reference = reference.context("it is too large for a message")?;
    bucket(client).await?.delete(reference.name()).await?;
    let error = client.cancel(id).await.err().context("it is gone")?;
    assert!(matches!(error, CancelError::Blob { .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::NotFound);
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_a_job_that_keeps_none_reaches_its_reply_address() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = passing(folder.path(), 1).await?;
    let client = stack.client();
    let outcome = client.run(large_job(1)?.result(ResultMode::Reply)).await?;
    check(&outcome, 1)?;
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_one_job_for_one_large_body_and_a_conflict_for_another() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = passing(folder.path(), 0).await?;
    let client = stack.client();
    let keyed = |seed| anyhow::Ok(large_job(seed)?.key("k"));
    let first = client.submit(keyed(1)?).await?;
    let queued = objects(client).await?;
    assert_eq!(queued.len(), 1);

    // While it waits in its queue.
    let again = client.submit(keyed(1)?).await?;
    assert!(again.duplicate && again.id == first.id);
    let other = client.submit(keyed(2)?).await;
    let other = other.err().context("another body")?;
    assert!(matches!(other, SubmitError::Conflict { .. }), "{other}");
    assert_eq!(
        wait_for_objects(client, 1).await?,
        queued,
        "that of the job"
    );

    // After it was answered.
    stack.start_worker().await?;
    check(&client.wait(&first, PATIENCE).await?, 1)?;
    wait_until_empty(client, "INFER_JOBS").await?;
    let again = client.submit(keyed(1)?).await?;
    assert!(again.duplicate);
    let other = client.submit(keyed(2)?).await;
    let other = other.err().context("another body")?;
    assert_eq!(other.code(), ErrorCode::Conflict);
    // The answer is left, and nothing of the others.
    let left = wait_for_objects(client, 1).await?;
    assert_ne!(left, queued);
    assert_eq!(messages_in(client, "INFER_RESULTS").await?, 1);
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_without_room_refuses_a_body_and_keeps_nothing_of_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    inferq_integration::fixtures::add_passing(folder.path(), "pass")?;
    let stack = inferq_integration::start(inferq::stack::StackOptions {
        workers: 0,
        plan: inferq::AssetPlan {
            blobs_bytes: inferq::ByteSize::mib(3),
            ..inferq::AssetPlan::default()
        },
        ..inferq::stack::StackOptions::new(folder.path())
    })
    .await?;
    let client = stack.client();
    client.submit(large_job(1)?).await?;
    let refused = client.submit(large_job(2)?).await;
    let refused = refused.err().context("two do not fit")?;
    assert_eq!(refused.code(), ErrorCode::Overloaded, "{refused}");
    assert!(refused.to_string().contains("--blobs-bytes"), "{refused}");
    assert_eq!(messages_in(client, "INFER_JOBS").await?, 1);
    assert_eq!(objects(client).await?.len(), 1);
    let parts = messages_in(client, "OBJ_infer_blobs").await?;
    assert_eq!(parts, 1 + 4, "a record and its parts of 512 KiB");
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_gone_is_told_as_such() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = passing(folder.path(), 1).await?;
    let client = stack.client();
    let submitted = client.submit(large_job(1)?).await?;
    check(&client.wait(&submitted, PATIENCE).await?, 1)?;
    wait_until_empty(client, "INFER_JOBS").await?;
    let names = wait_for_objects(client, 1).await?;
    bucket(client).await?.delete(&names[0]).await?;
    let gone = client.result(&submitted.id, Duration::ZERO).await;
    let gone = gone.err().context("it was deleted")?;
    assert_eq!(gone.code(), ErrorCode::NotFound);
    assert!(gone.to_string().contains(&names[0]), "{gone}");
    Ok(stack.stop().await?)
}
