//! Durable jobs against a real server that no worker empties.

mod common;

use std::{num::NonZeroUsize, time::Duration};

use futures::{StreamExt, stream};
use inferq::{AssetPlan, ByteSize, Client, Job, Lane, ResultError, SubmitError};
use inferq_schemas::PayloadRef;

use common::{SOON, answer, deployment, digits, job, messages, server};

#[tokio::test]
async fn a_job_is_stored_with_its_headers_on_the_queue_of_its_lane() {
    let deployment = deployment(AssetPlan::default()).await;
    let submitted = deployment
        .client
        .submit(job("{}").lane(Lane::Low).timeout(SOON))
        .await
        .expect("it fits");
    assert_eq!(
        (submitted.stream.as_str(), submitted.duplicate),
        ("INFER_BULK", false)
    );
    let jetstream = async_nats::jetstream::new(deployment.client.nats().clone());
    let stream = jetstream.get_stream("INFER_BULK").await.expect("it exists");
    let message = stream
        .direct_get(submitted.sequence)
        .await
        .expect("it is stored");
    assert_eq!(message.subject.as_str(), "infer.jobs.digits.low");
    let header = |name: &str| {
        message
            .headers
            .get(name)
            .map(|value| value.as_str().to_owned())
    };
    assert_eq!(
        header("Infer-Job-Id").as_deref(),
        Some(submitted.id.as_str())
    );
    assert_eq!(
        header("Nats-Msg-Id").as_deref(),
        Some(submitted.id.as_str())
    );
    assert_eq!(header("Infer-Timeout").as_deref(), Some("10000"));
    assert_eq!(header("Content-Type").as_deref(), Some("application/json"));
    assert!(header("traceparent").is_some());
}

#[tokio::test]
async fn an_unknown_model_is_refused_with_the_nearest_name_and_nothing_is_published() {
    let deployment = deployment(AssetPlan::default()).await;
    let mistyped = Job::new("digit".parse().expect("a valid name"), "{}");
    let error = deployment
        .client
        .submit(mistyped)
        .await
        .expect_err("there is no such model");
    assert_eq!(error.code().as_u16(), 404);
    assert!(
        error.to_string().contains("did you mean `digits`"),
        "{error}"
    );
    assert_eq!(messages(&deployment.client, "INFER_JOBS").await, 0);
}

#[tokio::test]
async fn a_server_without_streams_says_what_to_run() {
    let (server, _data) = server().await;
    let client = Client::connect(server.url())
        .await
        .expect("the server answers");
    let error = client
        .submit(job("{}"))
        .await
        .expect_err("there are no streams");
    assert!(error.to_string().contains("inferq init"), "{error}");
    let blind = Client::builder()
        .check_models(false)
        .connect(server.url())
        .await;
    let error = blind.expect("the server answers").submit(job("{}")).await;
    assert!(
        matches!(error, Err(SubmitError::NoStream { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_same_key_is_the_same_job_unless_the_body_differs() {
    let deployment = deployment(AssetPlan::default()).await;
    let keyed = |body: &'static str| deployment.client.submit(job(body).key("order 17"));
    let first = keyed(r#"{"n": 1}"#).await.expect("it fits");
    let again = keyed(r#"{"n": 1}"#).await.expect("it is the same");
    assert!(!first.duplicate && again.duplicate);
    assert_eq!((&first.id, first.sequence), (&again.id, again.sequence));
    let other = keyed(r#"{"n": 2}"#).await;
    assert!(
        matches!(other, Err(SubmitError::Conflict { .. })),
        "{other:?}"
    );
    assert_eq!(messages(&deployment.client, "INFER_JOBS").await, 1);
}

#[tokio::test]
async fn a_finished_job_still_tells_whether_the_body_is_the_same() {
    let deployment = deployment(AssetPlan::default()).await;
    let client = &deployment.client;
    let first = client.submit(job("one").key("k")).await.expect("it fits");
    answer(client, &first.id, b"one", "{}").await;
    let jetstream = async_nats::jetstream::new(client.nats().clone());
    let stream = jetstream.get_stream("INFER_JOBS").await.expect("it exists");
    stream
        .delete_message(first.sequence)
        .await
        .expect("as if it were acknowledged");
    assert!(
        client
            .submit(job("one").key("k"))
            .await
            .expect("it is the same")
            .duplicate
    );
    let other = client.submit(job("two").key("k")).await;
    assert!(
        matches!(other, Err(SubmitError::Conflict { .. })),
        "{other:?}"
    );
}

#[tokio::test]
async fn a_body_above_three_quarters_of_a_message_goes_beside_it() {
    let deployment = deployment(AssetPlan::default()).await;
    let limit = (1 << 20) / 4 * 3;
    for (bytes, is_beside) in [(limit, false), (limit + 1, true)] {
        let body = vec![b' '; bytes];
        let submitted = deployment.client.submit(job(body.clone())).await;
        let submitted = submitted.expect("both are accepted");
        let server = async_nats::jetstream::new(deployment.client.nats().clone());
        let stream = server.get_stream(&submitted.stream).await;
        let stream = stream.expect("the stream is there");
        let message = stream.direct_get(submitted.sequence).await;
        let message = message.expect("it is queued");
        let reference = message.headers.get("Infer-Payload-Ref");
        assert_eq!(reference.is_some(), is_beside);
        assert_eq!(message.payload.is_empty(), is_beside);
        if let Some(reference) = reference {
            let reference: PayloadRef = reference.as_str().parse().expect("a reference");
            assert!(reference.is_of(&body));
            let store = server.get_object_store("infer_blobs").await;
            let store = store.expect("the bucket is there");
            let object = store.info(reference.name()).await.expect("it is there");
            assert_eq!((object.size, object.chunks), (bytes, 2));
        }
    }
}

#[tokio::test]
async fn a_header_that_would_break_the_message_is_refused() {
    let deployment = deployment(AssetPlan::default()).await;
    let forged = deployment
        .client
        .submit(job("{}").tenant("a\r\nInfer-Reply-To: x"))
        .await;
    assert!(
        matches!(forged, Err(SubmitError::Header { .. })),
        "{forged:?}"
    );
    let wild = deployment.client.submit(job("{}").reply_to("a.*")).await;
    assert!(matches!(wild, Err(SubmitError::Header { .. })), "{wild:?}");
}

fn two_at_most() -> AssetPlan {
    AssetPlan {
        queue_depth: NonZeroUsize::new(2).expect("not zero"),
        ..AssetPlan::default()
    }
}

#[tokio::test]
async fn a_full_queue_is_overload_for_one_job() {
    let deployment = deployment(two_at_most()).await;
    for _ in 0..2 {
        deployment.client.submit(job("{}")).await.expect("it fits");
    }
    let error = deployment
        .client
        .submit(job("{}"))
        .await
        .expect_err("the queue is full");
    assert!(matches!(error, SubmitError::Overloaded { .. }), "{error}");
    assert_eq!(error.code().as_u16(), 429);
    deployment
        .client
        .submit(job("{}").lane(Lane::High))
        .await
        .expect("another lane has its own queue");
}

#[tokio::test]
async fn many_jobs_wait_for_room_in_a_full_queue_and_none_is_lost() {
    let deployment = deployment(two_at_most()).await;
    let client = deployment.client.clone();
    let worker = tokio::spawn(async move {
        let jetstream = async_nats::jetstream::new(client.nats().clone());
        let consumer: async_nats::jetstream::consumer::PullConsumer = jetstream
            .get_consumer_from_stream("digits__normal", "INFER_JOBS")
            .await
            .expect("it was made");
        let mut done = 0;
        while done < 20 {
            let mut some = consumer
                .fetch()
                .max_messages(1)
                .expires(SOON)
                .messages()
                .await
                .expect("it can be pulled");
            while let Some(Ok(message)) = some.next().await {
                message.double_ack().await.expect("the server is there");
                done += 1;
            }
        }
    });
    let jobs = stream::iter((0..20).map(|n| job(format!(r#"{{"n": {n}}}"#))));
    let answers: Vec<_> = deployment.client.submit_many(jobs).collect().await;
    assert_eq!(
        answers.iter().filter(|answer| answer.is_ok()).count(),
        20,
        "{answers:?}"
    );
    worker.await.expect("every job was pulled");
    assert_eq!(messages(&deployment.client, "INFER_JOBS").await, 0);
}

#[tokio::test]
async fn many_jobs_are_answered_in_their_order_through_a_small_window() {
    let deployment = deployment(AssetPlan::default()).await;
    let window = inferq::Window {
        bytes: 4 << 10,
        jobs: 64,
    };
    let client = Client::builder()
        .window(window)
        .connect(deployment.server.url())
        .await;
    let client = client.expect("the server answers");
    let jobs: Vec<Job> = (0..1_000).map(|n| job(format!("{{\"n\": {n}}}"))).collect();
    let ids: Vec<_> = jobs.iter().map(Job::id).collect();
    let answers: Vec<_> = client.submit_many(stream::iter(jobs)).collect().await;
    let answered: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.expect("it fits").id)
        .collect();
    assert_eq!(answered, ids);
    assert_eq!(messages(&client, "INFER_JOBS").await, 1_000);
}

#[tokio::test]
async fn a_server_that_stops_answering_costs_the_deadline_and_not_more() {
    let deployment = deployment(AssetPlan::default()).await;
    let client = Client::builder()
        .submit_within(Duration::from_secs(1))
        .check_models(false);
    let client = client
        .connect(deployment.server.url())
        .await
        .expect("the server answers");
    deployment.server.kill().await;
    let started = std::time::Instant::now();
    let error = client.submit(job("{}")).await.expect_err("nobody answers");
    assert!(matches!(error, SubmitError::Unconfirmed { .. }), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn an_outcome_is_waited_for_and_found_whenever_it_comes() {
    let deployment = deployment(AssetPlan::default()).await;
    let client = deployment.client.clone();
    let submitted = client.submit(job("{}")).await.expect("it fits");
    let none = client.result(&submitted.id, Duration::ZERO).await;
    assert!(matches!(none, Err(ResultError::NotYet { .. })), "{none:?}");
    let waits = tokio::spawn({
        let (client, submitted) = (client.clone(), submitted.clone());
        async move { client.wait(&submitted, SOON).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    answer(&client, &submitted.id, b"{}", r#"{"predictions": [7]}"#).await;
    let outcome = waits.await.expect("no panic").expect("it came");
    assert_eq!(outcome.text(), r#"{"predictions": [7]}"#);
    assert!(outcome.stored.is_some());
    let read = client
        .result(&submitted.id, Duration::ZERO)
        .await
        .expect("it is kept");
    assert_eq!(read.body, outcome.body);
}

#[tokio::test]
async fn an_announcement_that_the_stream_refused_is_not_the_outcome() {
    let deployment = deployment(AssetPlan::default()).await;
    let client = deployment.client.clone();
    let submitted = client.submit(job("{}")).await.expect("it fits");
    let waits = tokio::spawn({
        let (client, id) = (client.clone(), submitted.id.clone());
        async move { client.result(&id, SOON).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    // Subscribers see this, but no stream keeps it: the expected sequence is wrong.
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Expected-Last-Subject-Sequence", "77");
    let subject = client.subjects().result(&submitted.id);
    let forged = client
        .nats()
        .publish_with_headers(subject, headers, "forged".into())
        .await;
    forged.expect("it is sent");
    tokio::time::sleep(Duration::from_millis(200)).await;
    answer(&client, &submitted.id, b"{}", "real").await;
    assert_eq!(
        waits.await.expect("no panic").expect("it came").text(),
        "real"
    );
}

#[tokio::test]
async fn a_job_that_nobody_runs_is_expired_at_its_deadline() {
    let deployment = deployment(AssetPlan::default()).await;
    let timeout = Duration::from_millis(300);
    let submitted = deployment
        .client
        .submit(job("{}").timeout(timeout))
        .await
        .expect("it fits");
    let error = deployment
        .client
        .wait(&submitted, SOON)
        .await
        .expect_err("nobody runs it");
    assert!(matches!(error, ResultError::Expired { .. }), "{error}");
    assert_eq!(error.code().as_u16(), 408);
    let run = deployment
        .client
        .run(job("{}").timeout(timeout))
        .await
        .expect_err("nobody runs it");
    assert_eq!(run.code().as_u16(), 408);
}

#[tokio::test]
async fn a_call_without_a_worker_fails_at_once() {
    let deployment = deployment(AssetPlan::default()).await;
    let started = std::time::Instant::now();
    let error = deployment
        .client
        .call(job("{}"))
        .await
        .expect_err("nobody listens");
    assert_eq!(error.code().as_u16(), 503);
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_call_that_is_not_answered_ends_at_its_time_limit() {
    let deployment = deployment(AssetPlan::default()).await;
    let subject = deployment.client.subjects().rpc(&digits());
    let _silent = deployment
        .client
        .nats()
        .subscribe(subject)
        .await
        .expect("it may listen");
    let started = std::time::Instant::now();
    let limit = Duration::from_millis(300);
    let error = deployment
        .client
        .call(job("{}").timeout(limit))
        .await
        .expect_err("nobody answers");
    assert_eq!(error.code().as_u16(), 408);
    assert!(
        started.elapsed() >= limit && started.elapsed() < SOON,
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_stream_without_room_for_the_body_is_overload() {
    let plan = AssetPlan {
        jobs_bytes: ByteSize::bytes(4_096),
        ..AssetPlan::default()
    };
    let deployment = deployment(plan).await;
    let error = deployment.client.submit(job(vec![b' '; 8_192])).await;
    let error = error.expect_err("larger than the stream");
    assert_eq!(error.code().as_u16(), 429, "{error}");
}
