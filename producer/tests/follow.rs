//! Jobs on their way, without a worker: the tests give jobs out and end them as workers do.

mod common;

use std::time::Duration;

use async_nats::jetstream::{self, consumer::PullConsumer};
use common::{Deployment, SOON, answer, deployment, job};
use futures::StreamExt;
use inferq::{
    AssetPlan, Client, ErrorCode, Event, Events, JobEvent, JobId, Lane, ResultError, Status,
};

/// Longer than any of these tests.
const LONG: Duration = Duration::from_secs(60);

async fn next(events: &mut Events) -> Result<Event, ResultError> {
    let event = tokio::time::timeout(SOON, events.next()).await;
    event.expect("it is told soon").expect("not the end")
}

/// The position that is told next, and whether there is an estimate.
async fn position(events: &mut Events) -> (u64, bool) {
    match next(events).await {
        Ok(Event::Queued {
            position,
            estimated_wait,
        }) => (position, estimated_wait.is_some()),
        other => panic!("{other:?}"),
    }
}

/// The outcome that is told next, and nothing after it.
async fn done(events: &mut Events) -> Status {
    let outcome = match next(events).await {
        Ok(Event::Done(outcome)) => outcome,
        other => panic!("{other:?}"),
    };
    assert!(events.next().await.is_none());
    outcome.status()
}

/// The error that is told next, and nothing after it.
async fn error(events: &mut Events) -> ResultError {
    let error = next(events).await.expect_err("it fails");
    assert!(events.next().await.is_none());
    error
}

/// Gives out the next jobs of lane `normal`, as to a worker.
async fn give_out(client: &Client, jobs: usize) -> Vec<jetstream::Message> {
    let server = jetstream::new(client.nats().clone());
    let consumer: PullConsumer = server
        .get_consumer_from_stream("digits__normal", "INFER_JOBS")
        .await
        .expect("the consumer is there");
    let mut given = consumer
        .fetch()
        .max_messages(jobs)
        .expires(SOON)
        .messages()
        .await
        .expect("the server answers");
    let mut messages = Vec::new();
    while messages.len() < jobs {
        let message = given.next().await.expect("a job waits");
        messages.push(message.expect("it is given out"));
    }
    messages
}

async fn submit(client: &Client, jobs: usize, lane: Lane) {
    for _ in 0..jobs {
        let submitted = client.submit(job("{}").lane(lane)).await;
        submitted.expect("the queue has room");
    }
}

/// A server with a job that a worker took and ended, with or without an outcome.
async fn ended(with_outcome: bool) -> (Deployment, inferq::Submitted) {
    let deployment = deployment(AssetPlan::default()).await;
    let client = &deployment.client;
    let submitted = client.submit(job("{}")).await.expect("room");
    if with_outcome {
        answer(client, &submitted.id, b"{}", "{}").await;
    }
    for message in give_out(client, 1).await {
        message.double_ack().await.expect("acknowledged");
    }
    (deployment, submitted)
}

#[tokio::test]
async fn the_position_falls_with_every_job_given_out_and_counts_its_own_lane_alone() {
    let deployment = deployment(AssetPlan::default()).await;
    let client = &deployment.client;
    submit(client, 2, Lane::Normal).await;
    submit(client, 3, Lane::High).await;
    submit(client, 2, Lane::Normal).await;
    let ours = client.submit(job("{}")).await.expect("room");
    let mut events = client.events(&ours, LONG);
    assert_eq!(position(&mut events).await, (4, false));
    submit(client, 5, Lane::Normal).await;
    give_out(client, 1).await;
    assert_eq!(position(&mut events).await, (3, true));
    submit(client, 5, Lane::High).await;
    give_out(client, 2).await;
    assert_eq!(position(&mut events).await, (1, true));
    give_out(client, 1).await;
    assert_eq!(position(&mut events).await, (0, true));
    // Its own turn. It did not ask to be told of, so what is left is its outcome.
    give_out(client, 1).await;
    answer(client, &ours.id, b"{}", "{}").await;
    assert_eq!(done(&mut events).await, Status::Ok);
}

#[tokio::test]
async fn who_comes_after_the_end_is_told_the_outcome_and_nothing_else() {
    let (deployment, ours) = ended(true).await;
    let client = &deployment.client;
    assert_eq!(done(&mut client.events(&ours, LONG)).await, Status::Ok);
    assert_eq!(done(&mut client.events(&ours.id, LONG)).await, Status::Ok);
    assert_eq!(
        done(&mut client.events(&ours.id, Duration::ZERO)).await,
        Status::Ok
    );
}

#[tokio::test]
async fn what_workers_tell_is_told_until_the_outcome_stands_and_other_words_end_nothing() {
    let deployment = deployment(AssetPlan::default()).await;
    let client = &deployment.client;
    let (ours, mut events) = client.follow(job("{}"), LONG).await.expect("room");
    let subject = client.subjects().events(&ours.id);
    let headers = give_out(client, 1).await.remove(0).headers.clone();
    let asked = headers.and_then(|headers| headers.get("Infer-Events").cloned());
    assert_eq!(asked.map(|asked| asked.to_string()).as_deref(), Some("1"));
    let worker = "w-1".to_owned();
    let (running, retrying) = (
        JobEvent::Running {
            worker: worker.clone(),
            attempt: 1,
            model_version: 3,
        },
        JobEvent::Retrying {
            worker,
            attempt: 1,
            delay_ms: 500,
            reason: "the worker is stopping".to_owned(),
        },
    );
    let finished = JobEvent::Done { status: Status::Ok };
    for told in [&running, &finished, &retrying] {
        let sent = client.nats().publish(subject.clone(), told.body()).await;
        sent.expect("connected");
        let sent = client.nats().publish(subject.clone(), "news".into()).await;
        sent.expect("connected");
    }
    assert_eq!(position(&mut events).await, (0, false));
    for expected in [running, retrying] {
        let told = next(&mut events).await.expect("no error");
        assert_eq!(told.document(), expected);
    }
    answer(client, &ours.id, b"{}", "{}").await;
    assert_eq!(done(&mut events).await, Status::Ok);
}

#[tokio::test]
async fn a_job_that_was_deleted_is_missing_and_one_that_is_late_expired() {
    let (deployment, deleted) = ended(false).await;
    let client = &deployment.client;
    let missing = error(&mut client.events(&deleted, LONG)).await;
    assert!(matches!(missing, ResultError::Missing { .. }), "{missing}");
    assert_eq!(missing.code(), ErrorCode::NotFound);

    let soon = job("{}").timeout(Duration::from_millis(300));
    let (_, mut events) = client.follow(soon, LONG).await.expect("room");
    assert_eq!(position(&mut events).await, (0, false));
    let late = error(&mut events).await;
    assert!(matches!(late, ResultError::Expired { .. }), "{late}");

    let wait = Duration::from_millis(300);
    let never = error(&mut client.events(&JobId::random(), wait)).await;
    assert!(matches!(never, ResultError::NotYet { .. }), "{never}");
}

#[tokio::test]
async fn a_server_that_falls_silent_ends_the_wait_in_its_time() {
    let deployment = deployment(AssetPlan::default()).await;
    let client = &deployment.client;
    let ours = client.submit(job("{}")).await.expect("room");
    deployment.server.pause();
    let silent = error(&mut client.events(&ours, Duration::from_millis(300))).await;
    deployment.server.resume();
    assert!(matches!(silent, ResultError::NotYet { .. }), "{silent}");
    // It is still there, and is told of as ever.
    let mut events = client.events(&ours, LONG);
    assert_eq!(position(&mut events).await, (0, false));
    answer(client, &ours.id, b"{}", "{}").await;
    assert_eq!(done(&mut events).await, Status::Ok);
}
