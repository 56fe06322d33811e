//! Jobs that are called off: queued, held, running, ended, and at the very moment they are answered.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use inferq::dead::{DeadFilter, ReplayOptions};
use inferq::stack::{Stack, StackOptions};
use inferq::{CancelError, ErrorCode, JobId, ModelName, Outcome, Status};
use inferq_integration::lone::LoneWorker;
use inferq_integration::scrape::{metric, wait_for_metric};
use inferq_integration::{
    PATIENCE, digits, finish, fixtures, hazards, job, messages_in, plain, stack, start, uncached,
    wait_until_empty,
};

/// One thread, and a model that keeps it busy.
async fn busy_stack(folder: &std::path::Path, more: &[&str]) -> Result<Stack> {
    fixtures::add_digits(folder, "digits")?;
    hazards::add(folder, Duration::from_secs(300))?;
    let arguments = ["--executors", "1"].iter().chain(more);
    start(StackOptions {
        worker_args: arguments.map(|argument| (*argument).to_owned()).collect(),
        expect: Some(vec![ModelName::new("spin")?]),
        ..StackOptions::new(folder)
    })
    .await
}

/// So many tombstones come before that of a test: who takes a job as soon as it can has not heard of it by then.
const OTHERS: u64 = 10_000;

/// Leaves tombstones of jobs that there never were.
async fn bury_others(stack: &Stack) -> Result<()> {
    let nats = stack.client().nats();
    for other in 0..OTHERS {
        let subject = format!("$KV.infer_cancel.other-{other}");
        nats.publish(subject, "".into()).await?;
    }
    nats.flush().await?;
    let begun = Instant::now();
    while tombstones(stack).await? < OTHERS {
        ensure!(begun.elapsed() < PATIENCE, "they are not stored");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn tombstones(stack: &Stack) -> Result<u64> {
    messages_in(stack.client(), "KV_infer_cancel").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_job_that_is_cancelled_is_never_run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = busy_stack(folder.path(), &["--serve", "spin"]).await?;
    let (client, nats) = (stack.client(), stack.client().nats());
    let inbox = nats.new_inbox();
    let mut replies = nats.subscribe(inbox.clone()).await?;
    let image = &digits::held_out()?[0];
    let queued = client.submit(uncached(image).reply_to(&inbox)).await?;
    bury_others(&stack).await?;
    let told = client.cancel(&queued.id).await?;
    assert_eq!(told.status(), Status::Cancelled);
    assert_eq!(
        told.failure().map(|failure| failure.code),
        Some(ErrorCode::Conflict)
    );
    assert_eq!(tombstones(&stack).await?, OTHERS + 1);
    assert_eq!(messages_in(client, "INFER_JOBS").await?, 1);
    // Whoever comes to serve the model finds that it is cancelled, tells its sender and moves on.
    let _late = LoneWorker::start(client, stack.nats_url(), "late").await?;
    let reply = tokio::time::timeout(PATIENCE, replies.next())
        .await
        .context("its sender was not told")?
        .context("the connection closed")?;
    assert_eq!(reply.payload, told.body);
    wait_until_empty(client, "INFER_JOBS").await?;
    let ended = r#"inferq_jobs_total{model="digits",door="job",outcome="cancelled"}"#;
    wait_for_metric(client, "late", ended, 1.0).await?;
    let runs = r#"inferq_batch_rows_count{model="digits"}"#;
    assert_eq!(metric(client, "late", runs).await?, 0.0);
    assert_eq!(messages_in(client, "INFER_RESULTS").await?, 1);
    assert_eq!(messages_in(client, "INFER_DEAD").await?, 0);
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_replay_that_is_cancelled_is_never_run_and_a_later_one_is() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = busy_stack(folder.path(), &["--serve", "spin"]).await?;
    let client = stack.client();
    let mut early = LoneWorker::start(client, stack.nats_url(), "early").await?;
    let narrow = job("digits", r#"{"instances": [[1, 2, 3]]}"#);
    let failed = client.run(narrow).await?;
    assert_eq!(failed.status(), Status::Error);
    let id = failed.headers.job_id;
    wait_until_empty(client, "INFER_JOBS").await?;
    let letter = || async {
        let filter = DeadFilter {
            jobs: vec![id.clone()],
            ..DeadFilter::default()
        };
        let letter = client.dead().list(&filter).await?.letters.pop();
        letter.context("a dead letter")
    };
    // No replay is queued, and the next one is as good as any.
    assert_eq!(client.cancel(&id).await?.status(), Status::Error);
    let options = ReplayOptions::default();
    let replayed = client.dead().replay(&letter().await?, &options).await?;
    let outcome = client.dead().wait(&replayed, PATIENCE).await?;
    assert_eq!(outcome.status(), Status::Error, "it has run again");
    wait_until_empty(client, "INFER_JOBS").await?;
    early.kill().await?;

    let replayed = client.dead().replay(&letter().await?, &options).await?;
    assert_eq!(messages_in(client, "INFER_JOBS").await?, 1);
    let told = client.cancel(&id).await?;
    assert_eq!(told.status(), Status::Error, "it had ended, and stands");
    let _late = LoneWorker::start(client, stack.nats_url(), "late").await?;
    let outcome = client.dead().wait(&replayed, PATIENCE).await?;
    assert_eq!(outcome.status(), Status::Cancelled);
    wait_until_empty(client, "INFER_JOBS").await?;
    assert_eq!(messages_in(client, "INFER_RESULTS").await?, 1);
    assert_eq!(messages_in(client, "INFER_DEAD").await?, 0);
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_wait_or_run_in_a_worker_end_at_once_when_they_are_cancelled() -> Result<()> {
    /// Half a minute of one core, in one operator.
    const STEPS: u32 = 2_500_000;
    let folder = tempfile::tempdir()?;
    let stack = busy_stack(folder.path(), &[]).await?;
    stack.wait_ready(PATIENCE).await?;
    let client = stack.client();
    let running = client.submit(hazards::spin(STEPS)).await?.id;
    // The other one would be over before it if it came first.
    let runs = r#"inferq_batch_seconds_count{model="spin"}"#;
    wait_for_metric(client, "worker-1", runs, 1.0).await?;
    let waiting = client.submit(uncached(&digits::held_out()?[0])).await?.id;
    wait_for_metric(client, "worker-1", "inferq_inflight_jobs", 2.0).await?;
    wait_for_metric(client, "worker-1", runs, 1.0).await?;
    let begun = Instant::now();
    for id in [&waiting, &running] {
        assert_eq!(client.cancel(id).await?.status(), Status::Cancelled);
        assert_eq!(
            client.result(id, Duration::ZERO).await?.status(),
            Status::Cancelled
        );
    }
    // Off the queue and out of the worker, although nothing interrupts the thread within an operator.
    wait_until_empty(client, "INFER_JOBS").await?;
    wait_for_metric(client, "worker-1", "inferq_inflight_jobs", 0.0).await?;
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(messages_in(client, "INFER_RESULTS").await?, 2);
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_that_is_cancelled_or_expires_stops_between_operators() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fixtures::add_digits(folder.path(), "digits")?;
    hazards::add_chain(folder.path())?;
    let stack = start(StackOptions {
        worker_args: ["--executors", "1"].map(str::to_owned).to_vec(),
        ..StackOptions::new(folder.path())
    })
    .await?;
    let client = stack.client();
    let begun = r#"inferq_batch_seconds_count{model="chain"}"#;
    let over = r#"inferq_batch_rows_count{model="chain"}"#;
    let cancelled = client.submit(hazards::many_operators()).await?.id;
    wait_for_metric(client, "worker-1", begun, 1.0).await?;
    assert_eq!(client.cancel(&cancelled).await?.status(), Status::Cancelled);
    // All of it would take longer than anybody here waits, and there is one thread.
    let image = &digits::held_out()?[0];
    let next = client.submit(uncached(image)).await?.id;
    let answered = client.result(&next, PATIENCE).await?;
    assert_eq!(answered.status(), Status::Ok, "{}", answered.text());
    assert_eq!(metric(client, "worker-1", over).await?, 1.0);
    let expires = hazards::many_operators().timeout(Duration::from_secs(2));
    let expires = client.submit(expires).await?.id;
    wait_for_metric(client, "worker-1", begun, 2.0).await?;
    let next = client.submit(uncached(image)).await?.id;
    let answered = client.result(&next, PATIENCE).await?;
    assert_eq!(answered.status(), Status::Ok, "{}", answered.text());
    let expired = client.result(&expires, PATIENCE).await?;
    assert_eq!(expired.status(), Status::Expired);
    assert_eq!(metric(client, "worker-1", over).await?, 2.0);
    for kind in ["error", "timeout"] {
        let failures = format!(r#"inferq_engine_failures_total{{kind="{kind}"}}"#);
        assert_eq!(metric(client, "worker-1", &failures).await?, 0.0);
    }
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_job_that_has_ended_stays_as_it_ended() -> Result<()> {
    let stack = stack(1).await?;
    let client = stack.client();
    let image = &digits::held_out()?[0];
    let ended = client.run(job("digits", image.row_request())).await?;
    let id = &ended.headers.job_id;
    for _ in 0..2 {
        let told = client.cancel(id).await?;
        assert_eq!((told.status(), &told.body), (Status::Ok, &ended.body));
    }
    assert_eq!(tombstones(&stack).await?, 0);
    assert_eq!(
        client.result(id, Duration::ZERO).await?.status(),
        Status::Ok
    );
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn an_id_that_nobody_has_used_is_taken_by_its_cancellation() -> Result<()> {
    let stack = stack(1).await?;
    let client = stack.client();
    let id = JobId::random();
    for _ in 0..2 {
        assert_eq!(client.cancel(&id).await?.status(), Status::Cancelled);
    }
    let late = uncached(&digits::held_out()?[0]).with_id(id.clone());
    let outcome = client.run(late).await?;
    assert_eq!(outcome.status(), Status::Cancelled);
    wait_until_empty(client, "INFER_JOBS").await?;
    assert_eq!(messages_in(client, "INFER_RESULTS").await?, 1);
    let runs = r#"inferq_batch_rows_count{model="digits"}"#;
    assert_eq!(metric(client, "worker-1", runs).await?, 0.0);
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_cancellation_and_an_answer_at_the_same_time_one_stands_for_everybody() -> Result<()> {
    const JOBS: usize = 400;
    let stack = stack(2).await?;
    let client = stack.client();
    let images = digits::held_out()?;
    let raced: Vec<(Outcome, Outcome)> = stream::iter(images.iter().cycle().take(JOBS).enumerate())
        .map(|(place, image)| async move {
            let id = client.submit(uncached(image)).await?.id;
            tokio::time::sleep(Duration::from_micros(500 * (place as u64 % 16))).await;
            let told = client.cancel(&id).await?;
            let kept = client.result(&id, Duration::ZERO).await?;
            anyhow::Ok((told, kept))
        })
        .buffer_unordered(64)
        .try_collect()
        .await?;
    for (told, kept) in &raced {
        assert!(matches!(told.status(), Status::Ok | Status::Cancelled));
        assert_eq!((told.status(), &told.body), (kept.status(), &kept.body));
    }
    wait_until_empty(client, "INFER_JOBS").await?;
    let jetstream = async_nats::jetstream::new(client.nats().clone());
    let results = jetstream.get_stream("INFER_RESULTS").await?;
    let state = &results.cached_info().state;
    assert_eq!(
        (state.messages, state.last_sequence),
        (JOBS as u64, JOBS as u64),
        "one outcome each, none written twice"
    );
    let cancelled = raced
        .iter()
        .filter(|(told, _)| told.status() == Status::Cancelled);
    assert_eq!(tombstones(&stack).await?, cancelled.count() as u64);
    assert_eq!(messages_in(client, "INFER_DEAD").await?, 0);
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn the_command_tells_of_every_job_and_fails_if_one_had_ended() -> Result<()> {
    let stack = stack(1).await?;
    let client = stack.client();
    let image = &digits::held_out()?[0];
    let ended = client.run(job("digits", image.row_request())).await?;
    let ended = ended.headers.job_id.to_string();
    let program = inferq::stack::worker_program(None)?.with_file_name("inferq");
    let cancel = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command.args(["--nats", stack.nats_url(), "cancel"]);
        command.args(arguments);
        finish(command)
    };
    let both = cancel(&[&ended, "order-1", "--json"])?;
    assert_eq!(both.status.code(), Some(1), "one had ended");
    let lines = String::from_utf8(both.stdout)?;
    let told: Vec<(String, String)> = lines
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line)?;
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            anyhow::Ok((text("job"), text("status")))
        })
        .collect::<Result<_>>()?;
    let expected = [(ended.as_str(), "ok"), ("order-1", "cancelled")];
    assert_eq!(
        told,
        expected.map(|(job, status)| (job.into(), status.into()))
    );
    let again = cancel(&["order-1", "order-2"])?;
    assert_eq!(again.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(again.stdout)?,
        "order-1 cancelled\norder-2 cancelled\n"
    );
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn without_a_worker_the_caller_is_told_at_once() -> Result<()> {
    let stack = stack(0).await?;
    let begun = Instant::now();
    let refused = stack.client().cancel(&JobId::random()).await;
    let error = refused.expect_err("nobody is there");
    assert!(matches!(error, CancelError::NoWorker { .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(2));
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn what_cannot_be_an_id_is_refused_with_the_rule() -> Result<()> {
    let stack = stack(1).await?;
    let subject = format!("infer.cancel.{}", "x".repeat(65));
    let answer = plain::request(stack.client().nats(), &subject, &[], "").await?;
    assert_eq!(answer.code(), Some(400));
    let error = answer.json()?["error"].clone();
    assert!(
        error.as_str().context("text")?.contains("1 to 64"),
        "{error}"
    );
    assert_eq!(messages_in(stack.client(), "INFER_RESULTS").await?, 0);
    Ok(stack.stop().await?)
}
