//! The broker is full, or the permissions of a user are taken away.
//!
//! Invariant: nothing that was accepted is lost, whoever is refused hears why, and work goes on by itself
//! once there is room, or permission, again.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use inferq::stack::{Stack, StackOptions};
use inferq::{AssetPlan, ByteSize, CallError, Client, ErrorCode, JobId, SubmitError};
use inferq_integration::lone::LoneWorker;
use inferq_integration::{
    PATIENCE, digits, messages_in, models_folder, plain, start, submit_all, uncached,
};

use crate::check::Watch;
use crate::load::Load;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_one_job_and_holds_up_many_and_loses_none() -> Result<()> {
    const DEPTH: usize = 20;
    let stack = start(StackOptions {
        workers: 0,
        plan: AssetPlan {
            queue_depth: NonZeroUsize::new(DEPTH).context("not zero")?,
            ..AssetPlan::default()
        },
        ..StackOptions::new(models_folder())
    })
    .await?;
    let client = stack.client().clone();
    let load = Load::new()?;
    let mut accepted = Vec::new();
    for n in 0..DEPTH {
        accepted.push(client.submit(load.job(n)).await?.id);
    }
    let refused = client.submit(load.job(DEPTH)).await;
    let refused = refused.err().context("the queue is full")?;
    assert!(
        matches!(refused, SubmitError::Overloaded { .. }),
        "{refused}"
    );
    assert_eq!(refused.code(), ErrorCode::Overloaded);
    // A client of another make hears of it in the stream's answer to its publish.
    let request = async_nats::Request::new().payload(load.body(DEPTH).into());
    let answer = client
        .nats()
        .send_request("infer.jobs.digits.normal", request)
        .await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload)?;
    assert_eq!(answer["error"]["err_code"], 10_077, "{answer}");

    let more: Vec<_> = (DEPTH..DEPTH * 6).map(|n| load.job(n)).collect();
    let submitting = tokio::spawn({
        let client = client.clone();
        async move { submit_all(&client, more).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!submitting.is_finished(), "there is no room yet");
    stack.start_worker().await?;
    accepted.extend(submitting.await??);
    assert_eq!(accepted.len(), DEPTH * 6);
    Watch::stack(&stack)?
        .all_ended_once(&client, &load, &accepted)
        .await?;
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_what_workers_and_queue_hold_are_told_429_at_once() -> Result<()> {
    const CALLS: usize = 300;
    let stack = start(StackOptions {
        plan: AssetPlan {
            rpc_bytes: ByteSize::mib(1),
            ..AssetPlan::default()
        },
        worker_args: ["--executors", "1", "--max-batch-rows", "1"]
            .map(str::to_owned)
            .to_vec(),
        ..StackOptions::new(models_folder())
    })
    .await?;
    let nats = stack.client().nats();
    // 100 KiB each, so that the queue holds ten of them and the worker two.
    let body = digits::rows_request(&digits::held_out()?[..400]);
    ensure!(body.len() > 100_000, "{}", body.len());
    let calls = (0..CALLS).map(|_| {
        let headers = [("Infer-Cache", "off"), ("Infer-Timeout", "20000")];
        let body = body.clone();
        async move { plain::request(nats, "infer.rpc.digits", &headers, body).await }
    });
    let answers = futures::future::join_all(calls).await;
    let mut codes = std::collections::BTreeMap::<Option<u16>, usize>::new();
    for answer in answers {
        let answer = answer?;
        if answer.code() == Some(429) {
            let told = answer.json()?;
            assert!(
                told["error"]
                    .as_str()
                    .is_some_and(|error| error.contains("try again")),
                "{told}"
            );
        }
        *codes.entry(answer.code()).or_default() += 1;
    }
    assert!(
        codes.contains_key(&None) && codes.contains_key(&Some(429)),
        "{codes:?}"
    );
    let others: usize = codes
        .iter()
        .filter(|(code, _)| !matches!(code, None | Some(408 | 429 | 503)))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(others, 0, "{codes:?}");
    // The flood is over: the next one is served.
    let image = &digits::held_out()?[0];
    assert!(stack.client().call(uncached(image)).await?.is_ok());
    Ok(stack.stop().await?)
}

/// Users of one account: the test itself may do everything, worker and producer what is left to them.
fn permissions(worker: &str, producer: &str) -> String {
    format!(
        "no_auth_user: admin\n\
         authorization {{ users = [\n\
           {{ user: admin, password: a }}\n\
           {{ user: worker, password: w, permissions: {{ publish: {{ deny: [{worker}] }} }} }}\n\
           {{ user: producer, password: p, permissions: {{ publish: {{ deny: [{producer}] }} }} }}\n\
         ] }}"
    )
}

/// A stack with users, and without workers.
async fn guarded() -> Result<Stack> {
    start(StackOptions {
        workers: 0,
        nats_config: permissions("", ""),
        ..StackOptions::new(models_folder())
    })
    .await
}

fn as_user(stack: &Stack, user: &str, password: &str) -> String {
    stack
        .nats_url()
        .replace("nats://", &format!("nats://{user}:{password}@"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_may_not_write_outcomes_holds_its_jobs_and_takes_no_more() -> Result<()> {
    const JOBS: usize = 400;
    let stack = guarded().await?;
    let client = stack.client();
    let url = as_user(&stack, "worker", "w");
    let worker = LoneWorker::start(client, &url, "guarded").await?;
    let watch = Watch::lone([&worker])?;
    let load = Load::new()?;
    let mut accepted = vec![client.submit(load.job(0)).await?.id];
    client.result(&accepted[0], PATIENCE).await?;
    stack
        .nats()
        .reload(&permissions("\"infer.results.>\"", ""))?;
    // The server has taken it over once it refuses a user; until then outcomes are written.
    for n in 1..JOBS {
        accepted.push(client.submit(load.job(n)).await?.id);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let written = messages_in(client, "INFER_RESULTS").await?;
    assert!(
        written < JOBS as u64,
        "{written} outcomes: the permission was never missing"
    );
    assert!(messages_in(client, "INFER_JOBS").await? > 0);
    stack.nats().reload(&permissions("", ""))?;
    watch.all_ended_once(client, &load, &accepted).await?;
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_whose_permission_is_revoked_is_told_so_at_once() -> Result<()> {
    let stack = guarded().await?;
    let producer = Client::connect(&as_user(&stack, "producer", "p")).await?;
    let image = &digits::held_out()?[0];
    producer.submit(uncached(image)).await?;
    let denied = "\"infer.jobs.>\", \"infer.rpc.>\", \"$JS.API.DIRECT.GET.INFER_RESULTS.>\"";
    stack.nats().reload(&permissions("", denied))?;
    let begun = Instant::now();
    let submitted = loop {
        match producer.submit(uncached(image)).await {
            Ok(_) => ensure!(begun.elapsed() < PATIENCE, "it is still allowed"),
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(matches!(submitted, SubmitError::Denied(_)), "{submitted}");
    assert!(
        submitted.to_string().contains("infer.jobs.digits.normal"),
        "{submitted}"
    );
    let begun = Instant::now();
    let called = producer
        .call(uncached(image))
        .await
        .err()
        .context("denied")?;
    assert!(matches!(called, CallError::Denied(_)), "{called}");
    let read = producer.result(&JobId::random(), Duration::ZERO).await;
    let read = read.err().context("denied")?;
    assert!(read.to_string().contains("INFER_RESULTS"), "{read}");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    stack.nats().reload(&permissions("", ""))?;
    let begun = Instant::now();
    while producer.submit(uncached(image)).await.is_err() {
        ensure!(begun.elapsed() < PATIENCE, "it is still denied");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(stack.stop().await?)
}
