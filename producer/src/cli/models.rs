//! `inferq models`: what there is to say about models. Its work is done by `inferq-worker`, which has the engine.

use std::{path::PathBuf, process::Command};

use anyhow::Context;
use inferq::stack::worker_program;

use super::{Ended, Global};

/// Look at models.
#[derive(Debug, clap::Args)]
pub(super) struct Models {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ModelsCommand {
    /// Load models and tell what a worker would make of them: inputs, outputs, batch proof, memory, operators, speed.
    Check(Check),
}

#[derive(Debug, clap::Args)]
struct Check {
    /// An ONNX file, a version's folder, a model's folder or a folder of models.
    path: PathBuf,
    /// Also what each operator of a run takes.
    #[arg(long)]
    explain: bool,
    /// Whether dense parts may run on a graphics card: `off`, `auto` or `force`.
    #[arg(long, env = "INFERQ_GPU", default_value = "auto")]
    gpu: String,
    /// Use only an adapter whose name contains this.
    #[arg(long, env = "INFERQ_GPU_NAME", value_name = "NAME")]
    gpu_name: Option<String>,
    /// Let models with `engine.weights = "half"` use the card's own products of matrices, as workers with this flag do.
    #[arg(
        long,
        env = "INFERQ_GPU_COOPERATIVE",
        action = clap::ArgAction::SetTrue,
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    gpu_cooperative: bool,
    /// The program `inferq-worker`; else the one beside this program, else the one on PATH.
    #[arg(long, env = "INFERQ_WORKER_BIN", value_name = "FILE")]
    worker_bin: Option<PathBuf>,
}

impl Models {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Ended> {
        match self.command {
            ModelsCommand::Check(check) => tokio::task::spawn_blocking({
                let json = global.json;
                move || check.run(json)
            })
            .await
            .context("the check was interrupted")?,
        }
    }
}

impl Check {
    /// The report goes straight to the terminal: the worker prints it as it finds out.
    fn run(self, json: bool) -> anyhow::Result<Ended> {
        let program = worker_program(self.worker_bin.as_deref())?;
        let mut command = Command::new(&program);
        command
            .arg("check")
            .arg(&self.path)
            .args(["--gpu", &self.gpu]);
        if let Some(name) = &self.gpu_name {
            command.args(["--gpu-name", name]);
        }
        let flags = [
            (json, "--json"),
            (self.explain, "--explain"),
            (self.gpu_cooperative, "--gpu-cooperative"),
        ];
        for (wanted, flag) in flags {
            if wanted {
                command.arg(flag);
            }
        }
        let status = command
            .status()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        Ok(if status.success() {
            Ended::Well
        } else {
            Ended::ShowingFailure
        })
    }
}
