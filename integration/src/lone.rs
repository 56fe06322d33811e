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
    pid: u32,
}

/// How a [`LoneWorker`] differs from the usual one: one thread, on the CPU, the project's models.
#[derive(Debug, Clone, Default)]
pub struct Lone {
    /// More arguments.
    pub args: Vec<String>,
    /// More environment.
    pub env: Vec<(String, String)>,
}

impl LoneWorker {
    /// Starts one over the project's models and waits, through `client`, until it is ready.
    ///
    /// # Errors
    /// If it cannot be started, or is not ready within [`PATIENCE`].
    pub async fn start(client: &Client, nats: &str, id: &str) -> Result<Self> {
        Self::start_as(client, nats, id, Lone::default()).await
    }

    /// The same with settings of its own.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_as(client: &Client, nats: &str, id: &str, lone: Lone) -> Result<Self> {
        let program = inferq::stack::worker_program(None)?;
        let usual = "--executors 1 --http 127.0.0.1:0 --log error --gpu off";
        let child = Command::new(program)
            .args(["--nats", nats, "--id", id])
            .args(usual.split(' '))
            .arg("--models")
            .arg(models_folder())
            .args(lone.args)
            .envs(lone.env)
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let worker = Self {
            pid: child.id().context("it has ended already")?,
            child,
            id: id.to_owned(),
        };
        let until = Instant::now() + PATIENCE;
        loop {
            let records = client.workers().await.unwrap_or_default();
            if records
                .iter()
                .any(|record| record.id == worker.id && record.pid == worker.pid && record.ready)
            {
                return Ok(worker);
            }
            if Instant::now() > until {
                bail!("worker {id} is not ready");
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it at once, as a crash would (SIGKILL).
    ///
    /// # Errors
    /// If it is gone already.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("it still runs")
    }
}
