//! A worker that may not write outcomes says so once, and once when it may again.

use std::time::Duration;

use anyhow::{Context, Result};
use inferq::stack::{Log, LogLine, StackOptions};
use inferq_integration::scrape::metric;
use inferq_integration::{
    PATIENCE, digits, models_folder, start, submit_all, uncached, wait_until_empty,
};
use tokio::sync::mpsc;

const CANNOT: &str = "outcomes cannot be stored";
const AGAIN: &str = "outcomes are stored again";

/// Everybody has these rights.
fn permissions(denied: &str) -> String {
    format!(
        "no_auth_user: all\n\
         authorization {{ users = [\n\
           {{ user: all, password: a, permissions: {{ publish: {{ deny: [{denied}] }} }} }}\n\
         ] }}"
    )
}

/// Reads until a line has `text`; keeps all in `lines`.
async fn until(
    log: &mut mpsc::Receiver<LogLine>,
    lines: &mut Vec<String>,
    text: &str,
) -> Result<()> {
    let found = async {
        while let Some(line) = log.recv().await {
            let found = line.text.contains(text);
            lines.push(line.text);
            if found {
                return Ok(());
            }
        }
        anyhow::bail!("the log ended")
    };
    let found = tokio::time::timeout(PATIENCE, found).await;
    found.with_context(|| format!("no line with `{text}`: {lines:#?}"))?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_may_not_write_outcomes_says_so_once_and_not_for_each_job() -> Result<()> {
    const JOBS: usize = 200;
    let (lines_in, mut log) = mpsc::channel(10_000);
    let stack = start(StackOptions {
        nats_config: permissions(""),
        log: Log::Lines(lines_in),
        sweeper: false,
        ..StackOptions::new(models_folder())
    })
    .await?;
    let client = stack.client();
    let image = &digits::held_out()?[0];
    client.run(uncached(image)).await?;
    stack.nats().reload(&permissions("\"infer.results.>\""))?;
    let jobs = (0..JOBS).map(|_| uncached(image)).collect();
    let ids = submit_all(client, jobs).await?;
    let mut lines = Vec::new();
    until(&mut log, &mut lines, CANNOT).await?;
    let told = lines.last().context("the line")?.clone();
    assert!(told.contains("not written"), "it says why: {told}");
    // Every job that is held has been tried again.
    while metric(client, "worker-1", "inferq_commit_retries_total").await? < 100.0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stack.nats().reload(&permissions(""))?;
    until(&mut log, &mut lines, AGAIN).await?;
    for id in &ids {
        assert!(client.result(id, PATIENCE).await?.is_ok(), "{id}");
    }
    wait_until_empty(client, "INFER_JOBS").await?;
    stack.stop().await?;
    while let Some(line) = log.recv().await {
        lines.push(line.text);
    }
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!((count(CANNOT), count(AGAIN)), (1, 1), "{lines:#?}");
    let loud = |line: &&String| line.contains("WARN") || line.contains("ERROR");
    let loud = lines.iter().filter(loud).count();
    assert!(loud < 10, "{loud} of {} lines: {lines:#?}", lines.len());
    Ok(())
}
