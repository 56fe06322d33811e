//! Where the workers are: on the server that --nats names, or in a private stack for this run.

use std::{num::NonZeroUsize, path::PathBuf};

use anyhow::bail;
use inferq::{
    AssetPlan, Client,
    assets::Storage,
    stack::{DataFolder, Log, RedisChoice, Stack, StackError, StackOptions, WithoutWorkers},
};

use super::super::{Global, output::Output};

/// Rows of one forward pass in a private stack, which has no live traffic to keep waiting.
const WORKER_ENV: [(&str, &str); 1] = [("INFERQ_MAX_BATCH_ROWS", "256")];

/// The private stack.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Private stack")]
pub(super) struct StackArgs {
    /// The folder of models, <name>/<version>/model.onnx: start a private nats-server and workers for this run.
    #[arg(long, env = "INFERQ_MODELS", value_name = "DIR")]
    models: Option<PathBuf>,
    /// How many workers.
    #[arg(long, value_name = "N", default_value = "1")]
    workers: NonZeroUsize,
    /// The worker program, if not the one beside inferq or on PATH.
    #[arg(long, env = "INFERQ_WORKER_BIN", value_name = "FILE")]
    worker_bin: Option<PathBuf>,
    /// More arguments for every worker, after `--`; see `inferq-worker --help`.
    #[arg(last = true, value_name = "WORKER ARGUMENTS")]
    worker_args: Vec<String>,
}

/// Who scores.
pub(super) enum Place {
    /// Workers of others.
    Fleet(Client),
    /// Our own.
    Private(Box<Stack>),
}

impl StackArgs {
    pub(super) async fn start(self, global: &Global, output: &Output) -> anyhow::Result<Place> {
        match (self.models, global.names_server()) {
            (_, true) => Ok(Place::Fleet(global.connect().await?)),
            (None, false) => bail!(
                "nobody is there to score: give --models DIR to start workers for this run, or --nats URL to \
                 use those of a server"
            ),
            (Some(models), false) => {
                output.note("starting a private nats-server and workers");
                let mut worker_args = Vec::new();
                if let Some(endpoint) = &global.otlp_endpoint {
                    worker_args.extend(["--otlp-endpoint".to_owned(), endpoint.clone()]);
                }
                worker_args.extend(self.worker_args);
                let stack = Stack::start(StackOptions {
                    workers: self.workers.get(),
                    data: DataFolder::Temporary,
                    redis: RedisChoice::Off,
                    worker_bin: self.worker_bin,
                    worker_args,
                    worker_env: unless_set(&WORKER_ENV),
                    // Whoever has the rows can send them again.
                    plan: AssetPlan {
                        bulk_storage: Storage::Memory,
                        ..AssetPlan::default()
                    },
                    prefix: global.prefix.clone(),
                    log: Log::Quiet,
                    ..StackOptions::new(models)
                });
                Ok(Place::Private(Box::new(stack.await?)))
            }
        }
    }
}

/// What this process has set itself is handed on, and goes before.
fn unless_set(environment: &[(&str, &str)]) -> Vec<(String, String)> {
    let unset = environment
        .iter()
        .filter(|(name, _)| std::env::var_os(name).is_none());
    unset
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

impl Place {
    pub(super) fn client(&self) -> &Client {
        match self {
            Self::Fleet(client) => client,
            Self::Private(stack) => stack.client(),
        }
    }

    /// Keeps our own stack running; returns, with the reason, when that cannot be done.
    pub(super) async fn keep(&self, output: &Output) -> StackError {
        match self {
            Self::Fleet(_) => std::future::pending().await,
            Self::Private(stack) => {
                let told = |happened: &str| output.note(happened);
                stack.keep(WithoutWorkers::End, told).await
            }
        }
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::Fleet(client) => client.close().await,
            Self::Private(stack) => stack.stop().await?,
        }
        Ok(())
    }
}
