//! Where the workers are: on the server that --nats names, or in a private stack for this run.

use std::{num::NonZeroUsize, path::PathBuf};

use anyhow::bail;
use inferq::{
    Client,
    stack::{DataFolder, Log, RedisChoice, Stack, StackOptions},
};

use super::super::{Global, output::Output};

/// Rows of one forward pass in a private stack, which has no live traffic to keep waiting.
const BATCH_ROWS: &str = "256";

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
                let mut worker_args = vec!["--max-batch-rows".to_owned(), BATCH_ROWS.to_owned()];
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
                    prefix: global.prefix.clone(),
                    log: Log::Quiet,
                    ..StackOptions::new(models)
                });
                Ok(Place::Private(Box::new(stack.await?)))
            }
        }
    }
}

impl Place {
    pub(super) fn client(&self) -> &Client {
        match self {
            Self::Fleet(client) => client,
            Self::Private(stack) => stack.client(),
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
