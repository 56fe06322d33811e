//! References to what is not there, not that body, or more than a worker may hold.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use inferq::stack::{Stack, StackOptions};
use inferq::{ErrorCode, Failure, Outcome, Status, Submitted};
use inferq_integration::lone::LoneWorker;
use inferq_integration::scrape::wait_for_metric;
use inferq_integration::{
    PATIENCE, digits, fixtures, job, messages_in, models_folder, plain, start, wait_until_empty,
};
use inferq_schemas::PayloadRef;

use crate::{bucket, large_job, numbers, objects, passing, request};

fn failure(outcome: &Outcome) -> Result<Failure> {
    ensure!(outcome.status() == Status::Error, "{}", outcome.text());
    outcome.failure().context("an error says why")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_was_replaced_or_deleted_is_never_run_as_the_one_that_was_meant() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let stack = passing(folder.path(), 0).await?;
    let client = stack.client();
    let mut jobs = Vec::new();
    for seed in 1..=4 {
        let before = objects(client).await?;
        let submitted = client.submit(large_job(seed)?).await?;
        let after = objects(client).await?;
        let name = after.into_iter().find(|name| !before.contains(name));
        jobs.push((submitted, name.context("a new object")?));
    }
    let bucket = bucket(client).await?;
    let size = bucket.info(&jobs[0].1).await?.size;
    // As large, and shorter.
    bucket
        .put(jobs[0].1.as_str(), &mut vec![7; size].as_slice())
        .await?;
    bucket
        .put(jobs[1].1.as_str(), &mut b"short".as_slice())
        .await?;
    bucket.delete(&jobs[2].1).await?;
    // The record is there and the parts are not.
    let record = bucket.info(&jobs[3].1).await?;
    let jetstream = async_nats::jetstream::new(client.nats().clone());
    let stream = jetstream.get_stream("OBJ_infer_blobs").await?;
    let parts = format!("$O.infer_blobs.C.{}", record.nuid);
    stream.purge().filter(parts).await?;

    stack.start_worker().await?;
    for ((submitted, name), words) in jobs.iter().zip(["digest", "digest", "not there", "digest"]) {
        let outcome = client.wait(submitted, PATIENCE).await?;
        let failure = failure(&outcome)?;
        assert_eq!(failure.code, ErrorCode::BadInput, "{failure}");
        let message = failure.message;
        assert!(message.starts_with("Infer-Payload-Ref: "), "{message}");
        assert!(
            message.contains(name) && message.contains(words),
            "{message}"
        );
        assert!(message.contains("store the body again"), "{message}");
    }
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_larger_than_a_worker_may_hold_is_413_and_is_not_fetched() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fixtures::add_passing(folder.path(), "pass")?;
    let stack = start(StackOptions {
        worker_args: ["--max-inflight-bytes", "1MiB"].map(str::to_owned).to_vec(),
        ..StackOptions::new(folder.path())
    })
    .await?;
    let client = stack.client();
    let outcome = client.run(large_job(1)?).await?;
    let told = failure(&outcome)?;
    assert_eq!(told.code, ErrorCode::TooLarge);
    assert!(told.message.contains("--max-inflight-bytes"), "{told}");
    // A size that was made up takes no memory.
    let digest = inferq_schemas::Digest::of(b"");
    let huge = format!("nothing;size={};blake3={digest}", u64::MAX);
    let headers = [("Infer-Payload-Ref", huge.as_str())];
    let answer = plain::request(client.nats(), "infer.rpc.pass", &headers, "").await?;
    assert_eq!(answer.code(), Some(413), "{answer:?}");
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_that_cannot_be_read_or_comes_with_a_body_is_400() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = passing(folder.path(), 1).await?;
    let nats = stack.client().nats();
    let body = request(&numbers(2, 1))?.encode(inferq::ContentType::Cbor)?;
    let good = PayloadRef::fresh(&body).to_string();
    for (reference, body, words) in [
        (
            "a name",
            bytes::Bytes::new(),
            "`<name>;size=<bytes>;blake3=<digest>`",
        ),
        (&good, body, "send one of the two"),
        (&good, bytes::Bytes::new(), "not there"),
    ] {
        let headers = [("Infer-Payload-Ref", reference)];
        let answer = plain::request(nats, "infer.rpc.pass", &headers, body).await?;
        assert_eq!(answer.code(), Some(400), "{answer:?}");
        let told = answer.header("Nats-Service-Error");
        let told = told.context("an error")?;
        assert!(
            told.contains("Infer-Payload-Ref") && told.contains(words),
            "{told}"
        );
    }
    Ok(stack.stop().await?)
}

/// Users of one account: the test itself may do everything, the worker not what is listed.
fn permissions(denied: &str) -> String {
    format!(
        "no_auth_user: admin\n\
         authorization {{ users = [\n\
           {{ user: admin, password: a }}\n\
           {{ user: worker, password: w, permissions: {{ publish: {{ deny: [{denied}] }} }} }}\n\
         ] }}"
    )
}

/// A worker that hears nothing when it asks for a body, and a job that it asks for.
async fn silent_bucket() -> Result<(Stack, LoneWorker, Submitted)> {
    let stack = start(StackOptions {
        workers: 0,
        nats_config: permissions("\"$JS.API.DIRECT.GET.OBJ_infer_blobs.>\""),
        ..StackOptions::new(models_folder())
    })
    .await?;
    let client = stack.client();
    let url = stack.nats_url().replace("nats://", "nats://worker:w@");
    let worker = LoneWorker::start(client, &url, "guarded").await?;
    let body = digits::rows_request(&[digits::held_out()?.as_slice(); 6].concat());
    let submitted = client.submit(job("digits", body)).await?;
    ensure!(objects(client).await?.len() == 1, "it is a large one");
    Ok((stack, worker, submitted))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_body_is_on_its_way_ends_at_once_when_it_is_cancelled() -> Result<()> {
    let (stack, _worker, submitted) = silent_bucket().await?;
    let client = stack.client();
    wait_for_metric(client, "guarded", "inferq_inflight_jobs", 1.0).await?;
    let begun = Instant::now();
    let told = client.cancel(&submitted.id).await?;
    assert_eq!(told.status(), Status::Cancelled);
    wait_until_empty(client, "INFER_JOBS").await?;
    // The bucket would have been waited for 5 s.
    assert!(begun.elapsed().as_secs() < 4, "{:?}", begun.elapsed());
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_body_cannot_be_asked_for_is_tried_again_and_not_given_up() -> Result<()> {
    let (stack, _worker, submitted) = silent_bucket().await?;
    let client = stack.client();
    let jetstream = async_nats::jetstream::new(client.nats().clone());
    let mut consumer: async_nats::jetstream::consumer::PullConsumer = jetstream
        .get_consumer_from_stream("digits__normal", "INFER_JOBS")
        .await?;
    let begun = Instant::now();
    while consumer.info().await?.num_redelivered == 0 {
        ensure!(begun.elapsed() < PATIENCE, "it was not tried again");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(messages_in(client, "INFER_RESULTS").await?, 0);
    stack.nats().reload(&permissions(""))?;
    let outcome = client.wait(&submitted, PATIENCE).await?;
    assert!(outcome.is_ok(), "{}", outcome.text());
    assert!(outcome.headers.attempt > 1);
    Ok(stack.stop().await?)
}
