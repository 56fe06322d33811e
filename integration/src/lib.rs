//! Real servers, real workers, real data: what the behaviour tests share.
//!
//! Every test starts a stack of its own through `inferq::stack`, on free ports and in a temporary
//! folder, and nothing of it outlives the test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream::consumer::{FromConsumer, pull};
use futures::{StreamExt, TryStreamExt, stream};
use inferq::stack::{Stack, StackOptions};
use inferq::{Client, Job, JobId, ModelName};

pub mod cluster;
pub mod command;
pub mod count;
pub mod deliveries;
pub mod digits;
pub mod fixtures;
pub mod hazards;
pub mod link;
pub mod lone;
pub mod memory;
pub mod plain;
pub mod process;
pub mod proxy;
pub mod scrape;

/// How long a test waits for something that takes milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of models that come with the project.
pub fn models_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

/// A stack over the project's models.
///
/// # Errors
/// If a server or worker does not start.
pub async fn stack(workers: usize) -> Result<Stack> {
    start(StackOptions {
        workers,
        ..StackOptions::new(models_folder())
    })
    .await
}

/// A stack with other options. Without a word on `--gpu` its workers stay on the CPU, since many tests
/// compare answers bit by bit and a card may give other last bits.
///
/// # Errors
/// If a server or worker does not start.
pub async fn start(mut options: StackOptions) -> Result<Stack> {
    if !options
        .worker_args
        .iter()
        .any(|argument| argument == "--gpu")
    {
        let off = ["--gpu", "off"].map(str::to_owned);
        options.worker_args.extend(off);
    }
    Stack::start(options)
        .await
        .context("the stack did not start")
}

/// A job for `model` with a JSON body.
///
/// # Panics
/// If `model` is no model name.
pub fn job(model: &str, body: impl Into<String>) -> Job {
    Job::new(
        ModelName::new(model).expect("a valid model name"),
        body.into(),
    )
}

/// A job with one image that is run even if its answer is known, so that work is really done.
pub fn uncached(digit: &digits::Digit) -> Job {
    job("digits", digit.row_request()).no_cache()
}

/// Submits all jobs through a window and returns their ids, in order.
///
/// # Errors
/// If one of them is not accepted.
pub async fn submit_all(client: &Client, jobs: Vec<Job>) -> Result<Vec<JobId>> {
    client
        .submit_many(stream::iter(jobs))
        .map(|submitted| Ok(submitted.context("a job was not accepted")?.id))
        .try_collect()
        .await
}

/// Messages in a stream.
///
/// # Errors
/// If the server does not answer.
pub async fn messages_in(client: &Client, stream: &str) -> Result<u64> {
    let jetstream = async_nats::jetstream::new(client.nats().clone());
    let stream = jetstream.get_stream(stream).await?;
    Ok(stream.cached_info().state.messages)
}

/// Waits until a stream holds nothing. A server that does not answer for a while is asked again.
///
/// # Errors
/// If it still does after [`PATIENCE`].
pub async fn wait_until_empty(client: &Client, stream: &str) -> Result<()> {
    let mut seen = messages_in(client, stream).await;
    let emptied = async {
        while !matches!(seen, Ok(0)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            seen = messages_in(client, stream).await;
        }
    };
    match tokio::time::timeout(PATIENCE, emptied).await {
        Ok(()) => Ok(()),
        Err(_) => anyhow::bail!("{stream} is not empty after {PATIENCE:?}: {seen:?}"),
    }
}

/// Lets jobs of a model in lane `normal` come again so soon after a worker that held them ended,
/// instead of after 30 s.
///
/// # Errors
/// If the consumer cannot be changed.
pub async fn redeliver_after(client: &Client, model: &str, ack_wait: Duration) -> Result<()> {
    let jetstream = async_nats::jetstream::new(client.nats().clone());
    let stream = jetstream.get_stream("INFER_JOBS").await?;
    let info = stream.consumer_info(format!("{model}__normal")).await?;
    let config = pull::Config::try_from_consumer_config(info.config)
        .map_err(|error| anyhow::anyhow!(error))?;
    stream
        .create_consumer(pull::Config { ack_wait, ..config })
        .await?;
    Ok(())
}

/// Runs a program to its end.
///
/// # Errors
/// If it cannot be started, or still runs after [`PATIENCE`]; it is killed then.
pub fn finish(mut command: std::process::Command) -> Result<std::process::Output> {
    use std::process::Stdio;
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{name} cannot be started"))?;
    let begun = std::time::Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill()?;
            anyhow::bail!("{name} still runs after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(child.wait_with_output()?)
}

/// A program of PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
