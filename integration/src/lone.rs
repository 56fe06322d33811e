//! A worker that connects where a test says: through a proxy, or as a user with few permissions.

use anyhow::{Context, Result, bail};
use inferq::Client;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::{PATIENCE, models_folder};

/// A worker process of its own; dropping it kills it.
#[derive(Debug)]
pub struct LoneWorker {
    child: Child,
    id: String,
}

impl LoneWorker {
    /// Starts one over the project's models and waits, through `client`, until it is ready.
    ///
    /// # Errors
    /// If it cannot be started, or is not ready within [`PATIENCE`].
    pub async fn start(client: &Client, nats: &str, id: &str) -> Result<Self> {
        let program = inferq::stack::worker_program(None)?;
        let child = Command::new(program)
            .args([
                "--nats",
                nats,
                "--id",
                id,
                "--executors",
                "1",
                "--http",
                "127.0.0.1:0",
                "--log",
                "error",
            ])
            .arg("--models")
            .arg(models_folder())
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let worker = Self {
            child,
            id: id.to_owned(),
        };
        let until = Instant::now() + PATIENCE;
        loop {
            let records = client.workers().await.unwrap_or_default();
            if records
                .iter()
                .any(|record| record.id == worker.id && record.ready)
            {
                return Ok(worker);
            }
            if Instant::now() > until {
                bail!("worker {id} is not ready");
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Ends it at once, as a crash would (SIGKILL).
    ///
    /// # Errors
    /// If it is gone already.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("it still runs")
    }
}
