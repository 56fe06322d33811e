//! Several workers over one queue: they share the load, lose nothing when one dies, and leave
//! nothing behind when one is told to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream};
use inferq::stack::{Stack, StackOptions};
use inferq::{JobId, Status};
use inferq_integration::digits::{self, Digit};
use inferq_integration::{
    PATIENCE, messages_in, models_folder, start, submit_all, uncached, wait_until_empty,
};

/// A stack whose workers run one row at a time, so that a few thousand jobs take seconds.
async fn slow_stack(workers: usize) -> Result<Stack> {
    let worker_args = ["--executors", "1", "--max-batch-rows", "8"]
        .map(str::to_owned)
        .to_vec();
    start(StackOptions {
        workers,
        worker_args,
        ..StackOptions::new(models_folder())
    })
    .await
}

async fn submit(stack: &Stack, digits: &[Digit], jobs: usize) -> Result<Vec<JobId>> {
    let all = digits.iter().cycle().take(jobs).map(uncached).collect();
    submit_all(stack.client(), all).await
}

/// Every outcome of `jobs`: status and worker, read from the stream one by one.
async fn outcomes(stack: &Stack, jobs: &[JobId]) -> Result<Vec<(Status, String)>> {
    let read = stream::iter(jobs).map(|id| async move {
        let outcome = stack
            .client()
            .result(id, PATIENCE)
            .await
            .with_context(|| format!("job {id}"))?;
        Ok::<_, anyhow::Error>((outcome.status(), outcome.headers.worker.clone()))
    });
    read.buffered(64)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect()
}

#[tokio::test]
async fn two_workers_share_the_load() -> Result<()> {
    let stack = slow_stack(2).await?;
    let jobs = submit(&stack, &digits::held_out()?, 1_000).await?;
    let mut by_worker: BTreeMap<String, usize> = BTreeMap::new();
    for (status, worker) in outcomes(&stack, &jobs).await? {
        assert_eq!(status, Status::Ok);
        *by_worker.entry(worker).or_default() += 1;
    }
    assert_eq!(by_worker.len(), 2, "{by_worker:?}");
    assert!(by_worker.values().all(|jobs| *jobs >= 200), "{by_worker:?}");
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_worker_killed_in_mid_run_loses_and_doubles_nothing() -> Result<()> {
    let stack = slow_stack(2).await?;
    let digits = digits::held_out()?;
    let count = 5_000;
    let submitting = submit(&stack, &digits, count);
    let killing = async {
        // Somewhere in the middle: after the first outcomes, long before the last.
        while messages_in(stack.client(), "INFER_RESULTS").await? < 500 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stack.worker(0).context("worker 0")?.kill();
        let done = messages_in(stack.client(), "INFER_RESULTS").await?;
        ensure!(
            done < count as u64,
            "killed after the last job, so nothing was tested"
        );
        Ok(())
    };
    let (jobs, killed) = tokio::join!(submitting, killing);
    killed?;
    let jobs = jobs?;
    let unique: BTreeSet<&JobId> = jobs.iter().collect();
    assert_eq!(unique.len(), count);
    let outcomes = outcomes(&stack, &jobs).await?;
    assert!(outcomes.iter().all(|(status, _)| *status == Status::Ok));
    // One message per outcome is kept, and no outcome was ever replaced: first and last sequence tell.
    let jetstream = async_nats::jetstream::new(stack.client().nats().clone());
    let results = jetstream.get_stream("INFER_RESULTS").await?;
    let state = &results.cached_info().state;
    assert_eq!(
        (state.messages, state.last_sequence),
        (count as u64, count as u64)
    );
    wait_until_empty(stack.client(), "INFER_JOBS").await?;
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_drain_loses_nothing_and_leaves_no_job_waiting() -> Result<()> {
    let stack = slow_stack(2).await?;
    let jobs = submit(&stack, &digits::held_out()?, 2_000).await?;
    let leaving = stack.worker(0).context("worker 0")?;
    let told = Instant::now();
    leaving.terminate();
    let exit = leaving.wait(PATIENCE).await.context("it ends")?;
    assert!(exit.success(), "{exit}: {}", leaving.last_lines());
    let outcomes = outcomes(&stack, &jobs).await?;
    assert!(outcomes.iter().all(|(status, _)| *status == Status::Ok));
    wait_until_empty(stack.client(), "INFER_JOBS").await?;
    // A job left to ack_wait would have come again after 30 s only.
    assert!(
        told.elapsed() < Duration::from_secs(30),
        "took {:?}",
        told.elapsed()
    );
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn calls_survive_a_worker_that_is_told_to_stop() -> Result<()> {
    let stack = slow_stack(2).await?;
    let digits = digits::held_out()?;
    let calls = stream::iter(digits.iter().cycle().take(600)).map(|digit| {
        let client = stack.client();
        async move { client.call(uncached(digit)).await }
    });
    let calling = calls.buffer_unordered(8).collect::<Vec<_>>();
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stack.worker(0).context("worker 0")?.terminate();
        Ok::<_, anyhow::Error>(())
    };
    let (answers, stopped) = tokio::join!(calling, stopping);
    stopped?;
    for answer in answers {
        let answer = answer?;
        assert!(answer.is_ok(), "{:?}", answer.failure());
    }
    Ok(stack.stop().await?)
}
