//! Who floods a model: a process of its own, with what others leave of the machine.
//!
//! Clients of a real flood have machines of their own. Beside the one that measures, in its process, they would
//! be measured too.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, stream};
use inferq::{Client, Job, ModelName};
use inferq_integration::{digits, messages_in};
use tokio::process::{Child, Command};

/// How often it is looked whether so many jobs still wait.
const LOOK: Duration = Duration::from_millis(5);
/// Jobs that always wait for the flooded model.
const WAITING: usize = 2_000;
/// Jobs that are added to them at a time.
const TOP_UP: usize = 100;

/// Starts the process; dropping it ends it.
pub(crate) fn start(url: &str, model: &str) -> Result<Child> {
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(std::env::current_exe()?);
    command.args(["--flood", url, model]).kill_on_drop(true);
    command.spawn().context("the flood cannot be started")
}

/// Fills the queue of `model` again and again, as far as it can.
pub(crate) async fn run(url: &str, model: &str) -> Result<Infallible> {
    let client = Client::connect(url).await?;
    let model = ModelName::new(model)?;
    add(&client, &model, WAITING).await?;
    loop {
        if messages_in(&client, "INFER_JOBS").await? < WAITING as u64 {
            add(&client, &model, TOP_UP).await?;
        } else {
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn add(client: &Client, model: &ModelName, jobs: usize) -> Result<()> {
    let body = digits::held_out()?[0].tensor_request();
    let jobs = (0..jobs).map(|_| Job::new(model.clone(), body.clone()).no_cache());
    let mut submitted = Box::pin(client.submit_many(stream::iter(jobs)));
    while let Some(submitted) = submitted.next().await {
        submitted?;
    }
    Ok(())
}
