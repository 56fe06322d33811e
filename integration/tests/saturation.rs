//! Workers that are full: who calls is sent to others or told, jobs wait, and no limit is passed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use inferq::stack::{Stack, StackOptions};
use inferq::{CallError, Job};
use inferq_integration::scrape::{metric, wait_for_metric};
use inferq_integration::{
    PATIENCE, digits, fixtures, hazards, messages_in, models_folder, start, submit_all, uncached,
    wait_until_empty,
};
use tokio::time::Instant;

/// Longer than any of it takes, and as long as a call may last.
const LIMIT: Duration = Duration::from_secs(50);
/// So many steps of `spin` take some seconds.
const SECONDS: u32 = 150_000;
const AWAY: &str = r#"inferq_rpc_away{model="digits"}"#;

/// Workers with room for two.
async fn small_stack(folder: &std::path::Path) -> Result<Stack> {
    fixtures::add_digits(folder, "digits")?;
    hazards::add(folder, Duration::from_secs(300))?;
    start(StackOptions {
        worker_args: ["--executors", "1", "--max-batch-rows", "1"]
            .map(str::to_owned)
            .to_vec(),
        ..StackOptions::new(folder)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_room_leaves_calls_to_another_and_comes_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = small_stack(folder.path()).await?;
    let image = &digits::held_out()?[0];
    let calling = |job: Job| {
        let client = stack.client().clone();
        tokio::spawn(async move { client.call(job.timeout(LIMIT)).await })
    };
    let client = stack.client();
    let mut calls: Vec<_> = (0..2).map(|_| calling(hazards::spin(SECONDS))).collect();
    wait_for_metric(client, "worker-1", "inferq_inflight_jobs", 2.0).await?;
    // These find no room and wait in the queue.
    calls.extend((0..3).map(|_| calling(uncached(image))));
    wait_for_metric(client, "worker-1", AWAY, 1.0).await?;
    let refused = client.call(uncached(image)).await.err();
    assert!(
        matches!(refused, Some(CallError::NoWorker { .. })),
        "nobody is in the group: {refused:?}"
    );
    stack.start_worker().await?;
    stack.wait_ready(PATIENCE).await?;
    for _ in 0..50 {
        let outcome = client.call(uncached(image).timeout(LIMIT)).await?;
        if outcome.headers.worker == "worker-1" {
            // It had room again sooner than that, and the call may have waited there for one of the long ones.
            break;
        }
    }
    for call in calls {
        let outcome = call.await??;
        ensure!(outcome.is_ok(), "{:?}", outcome.failure());
    }
    wait_for_metric(client, "worker-1", AWAY, 0.0).await?;
    let begun = Instant::now();
    while client.call(uncached(image)).await?.headers.worker != "worker-1" {
        ensure!(
            begun.elapsed() < PATIENCE,
            "worker-1 takes no calls any more"
        );
    }
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_holds_stays_below_its_bytes_and_large_jobs_get_through() -> Result<()> {
    const ROOM: f64 = 1_048_576.0;
    let stack = start(StackOptions {
        workers: 0,
        worker_args: ["--max-inflight-bytes", "1MiB", "--executors", "1"]
            .map(str::to_owned)
            .to_vec(),
        ..StackOptions::new(models_folder())
    })
    .await?;
    let client = stack.client();
    let images = digits::held_out()?;
    let large = digits::rows_request(&images[..400]);
    ensure!(large.len() > 100_000 && large.len() < 200_000);
    // Of several lanes, and more than twenty times what fits.
    let jobs = (0..300).map(|place| {
        let job = if place % 2 == 0 {
            inferq_integration::job("digits", large.clone()).no_cache()
        } else {
            uncached(&images[place])
        };
        job.lane(inferq::Lane::ALL[place % 3])
    });
    let ids = submit_all(client, jobs.collect()).await?;
    stack.start_worker().await?;
    stack.wait_ready(PATIENCE).await?;
    let mut most: f64 = 0.0;
    let watched = async {
        loop {
            most = most.max(metric(client, "worker-1", "inferq_inflight_bytes").await?);
            tokio::task::yield_now().await;
        }
    };
    let answered = stream::iter(&ids).map(|id| client.result(id, PATIENCE));
    let answered = answered.buffered(64).try_collect::<Vec<_>>();
    let outcomes = tokio::select! {
        watched = watched => watched,
        answered = answered => anyhow::Ok(answered?),
    }?;
    for outcome in &outcomes {
        assert!(outcome.is_ok(), "{:?}", outcome.failure());
        assert_eq!(outcome.headers.attempt, 1);
    }
    assert!(most > 0.0 && most <= ROOM, "{most} bytes at once");
    wait_until_empty(client, "INFER_JOBS").await?;
    wait_until_empty(client, "INFER_BULK").await?;
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_get_their_share_of_a_worker_that_is_flooded_with_calls() -> Result<()> {
    const JOBS: usize = 400;
    let stack = start(StackOptions {
        worker_args: ["--executors", "1", "--max-batch-rows", "4"]
            .map(str::to_owned)
            .to_vec(),
        ..StackOptions::new(models_folder())
    })
    .await?;
    let client = stack.client();
    let image = &digits::held_out()?[0];
    let flood = async {
        let calls = stream::repeat(()).map(|()| client.call(uncached(image)));
        // Some are told that there is no room.
        calls.buffer_unordered(64).for_each(async |_| {}).await;
    };
    let jobs = async {
        let of = |door: &str| {
            format!(r#"inferq_jobs_total{{model="digits",door="{door}",outcome="ok"}}"#)
        };
        while metric(client, "worker-1", &of("rpc")).await? < 500.0 {
            tokio::task::yield_now().await;
        }
        let ids = submit_all(client, (0..JOBS).map(|_| uncached(image)).collect()).await?;
        let before = metric(client, "worker-1", &of("rpc")).await?;
        for id in &ids {
            ensure!(client.result(id, PATIENCE).await?.is_ok(), "{id}");
        }
        let after = metric(client, "worker-1", &of("rpc")).await?;
        anyhow::Ok(after - before)
    };
    let calls = tokio::select! {
        calls = jobs => calls?,
        () = flood => unreachable!("it never ends"),
    };
    // A job also waits for its outcome to be stored, and there are more turns than it can take where disks are slow.
    assert!(calls < 25.0 * JOBS as f64, "{calls} calls for {JOBS} jobs");
    assert_eq!(messages_in(client, "INFER_DEAD").await?, 0);
    drop(stack);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_cannot_be_run_in_time_are_told_so_and_cost_no_run() -> Result<()> {
    /// Takes some tenths of a second.
    const STEPS: u32 = 8_000;
    const MEASURED: usize = 16;
    const HOPELESS: usize = 5;
    const RUNS: &str = r#"inferq_batch_rows_count{model="spin"}"#;
    let folder = tempfile::tempdir()?;
    let stack = small_stack(folder.path()).await?;
    let client = stack.client();
    for _ in 0..MEASURED {
        assert!(client.run(hazards::spin(STEPS)).await?.is_ok());
    }
    let mut told = 0;
    for _ in 0..HOPELESS {
        let hopeless = hazards::spin(STEPS).timeout(Duration::from_millis(60));
        let submitted = client.submit(hopeless).await?;
        let outcome = client.result(&submitted.id, PATIENCE).await?;
        assert_eq!(outcome.status(), inferq::Status::Expired);
        let failure = outcome.failure().context("it says why")?;
        told += usize::from(failure.message.contains("its rows take about"));
    }
    assert!(told > 0, "all had expired before they came");
    assert!(client.run(hazards::spin(STEPS)).await?.is_ok());
    // A run is counted a moment after its answer, but before the executor begins another.
    let image = &digits::held_out()?[0];
    assert!(client.run(uncached(image)).await?.is_ok());
    let runs = metric(client, "worker-1", RUNS).await?;
    // What was measured holds for a second or two: on a machine that stood still, one may be tried.
    let allowed = MEASURED + 1 + HOPELESS - told;
    let runs_expected = (MEASURED + 1) as f64..=allowed as f64;
    assert!(
        runs_expected.contains(&runs),
        "{runs} runs, {told} were told"
    );
    Ok(stack.stop().await?)
}
