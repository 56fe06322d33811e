//! `inferq up` and workers that end: they are started again, and go on where they were.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use inferq::stack::worker_program;
use inferq::{Client, Status, WorkerRecord};
use inferq_integration::process::signal;
use inferq_integration::{PATIENCE, digits, fixtures, hazards, submit_all, uncached};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// `inferq up` as a process of its own; dropping it kills it, and the kernel what it started.
struct Up {
    child: Child,
    out: mpsc::UnboundedReceiver<String>,
    err: mpsc::UnboundedReceiver<String>,
}

impl Up {
    fn start(models: &Path, data: &Path) -> Result<Self> {
        let program = worker_program(None)?.with_file_name("inferq");
        let mut child = Command::new(program)
            .args(["up", "--port", "0", "--redis", "off"])
            .arg("--models")
            .arg(models)
            .arg("--data")
            .arg(data)
            .args(["--", "--executors", "1", "--gpu", "off"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self {
            out: lines(child.stdout.take().context("it is piped")?),
            err: lines(child.stderr.take().context("it is piped")?),
            child,
        })
    }

    /// Asks it to end and waits until it has.
    async fn stop(mut self) -> Result<()> {
        signal(self.child.id().context("it runs")?, "-TERM")?;
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await??;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

/// Reads on whether or not anybody wants to know.
fn lines(source: impl AsyncRead + Unpin + Send + 'static) -> mpsc::UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut source = BufReader::new(source).lines();
        while let Ok(Some(line)) = source.next_line().await {
            sender.send(line).ok();
        }
    });
    lines
}

/// The next line that has `word` in it.
async fn line_with(lines: &mut mpsc::UnboundedReceiver<String>, word: &str) -> Result<String> {
    let found = async {
        while let Some(line) = lines.recv().await {
            if line.contains(word) {
                return Ok(line);
            }
        }
        anyhow::bail!("it ended without a word of {word}")
    };
    let found = tokio::time::timeout(PATIENCE, found).await;
    found.with_context(|| format!("no word of {word}"))?
}

async fn ready(client: &Client) -> Result<WorkerRecord> {
    let begun = tokio::time::Instant::now();
    loop {
        let workers = client.workers().await.unwrap_or_default();
        if let Some(worker) = workers.into_iter().find(|worker| worker.ready) {
            return Ok(worker);
        }
        ensure!(begun.elapsed() < PATIENCE, "no worker is ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_worn_out_is_started_again_and_no_other_job_is_lost() -> Result<()> {
    let (models, data) = (tempfile::tempdir()?, tempfile::tempdir()?);
    fixtures::add_digits(models.path(), "digits")?;
    hazards::add(models.path(), Duration::from_millis(500))?;
    let mut up = Up::start(models.path(), data.path())?;
    let announced = line_with(&mut up.out, "nats://").await?;
    let url = announced.split_whitespace().last().context("an address")?;
    let client = Client::connect(url).await?;
    let first = ready(&client).await?;
    let guilty = client.submit(hazards::endless().max_attempts(2)).await?.id;
    let image = &digits::held_out()?[0];
    let others = (0..100).map(|_| uncached(image)).collect();
    let others = submit_all(&client, others).await?;
    let told = line_with(&mut up.err, "worker-1 is worn out").await?;
    assert!(told.contains("starts again in 250ms"), "{told}");
    for job in &others {
        assert_eq!(client.result(job, PATIENCE).await?.status(), Status::Ok);
    }
    let outcome = client.result(&guilty, PATIENCE).await?;
    assert_eq!(outcome.status(), Status::Dead, "{}", outcome.text());
    let next = ready(&client).await?;
    assert!(next.id == first.id && next.pid != first.pid, "{next:?}");
    client.close().await;
    up.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_is_started_again_and_one_that_drained_is_not() -> Result<()> {
    let (models, data) = (tempfile::tempdir()?, tempfile::tempdir()?);
    fixtures::add_digits(models.path(), "digits")?;
    let mut up = Up::start(models.path(), data.path())?;
    let announced = line_with(&mut up.out, "nats://").await?;
    let url = announced.split_whitespace().last().context("an address")?;
    let client = Client::connect(url).await?;
    let first = ready(&client).await?;
    signal(first.pid, "-KILL")?;
    let told = line_with(&mut up.err, "worker-1 ended").await?;
    assert!(
        told.contains("SIGKILL") && told.contains("starts again in 250ms"),
        "{told}"
    );
    let image = &digits::held_out()?[0];
    let jobs = submit_all(&client, vec![uncached(image)]).await?;
    assert_eq!(
        client.result(&jobs[0], PATIENCE).await?.status(),
        Status::Ok
    );
    let next = ready(&client).await?;
    assert!(next.id == first.id && next.pid != first.pid, "{next:?}");
    signal(next.pid, "-TERM")?;
    let told = line_with(&mut up.err, "worker-1 ended").await?;
    assert!(!told.contains("starts again"), "{told}");
    line_with(&mut up.err, "no worker is left").await?;
    client.close().await;
    up.stop().await
}
