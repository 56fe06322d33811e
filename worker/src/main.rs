//! Parses flags and environment, starts telemetry, runs the app, turns the result into an exit code.

use std::process::ExitCode;

use clap::Parser;
use inferq_worker::app::Ending;
use inferq_worker::config::{Command, Config};
use inferq_worker::{app, check, telemetry};

/// `EX_SOFTWARE` of sysexits.h: start me again. systemd, containers and `restart: on-failure` do.
const WORN_OUT: u8 = 70;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = Config::parse();
    if let Some(Command::Check(args)) = &config.command {
        return check::run(args, &config.gpu);
    }
    match run(config) {
        Ok(Ending::Stopped) => ExitCode::SUCCESS,
        Ok(Ending::WornOut) => ExitCode::from(WORN_OUT),
        Err(error) => {
            eprintln!("inferq-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<Ending> {
    let checked = config.validate()?;
    let telemetry = telemetry::start(&config.telemetry, &checked.worker_id)?;
    let result = app::run(config, checked).await;
    if let Err(error) = &result {
        tracing::error!(error = format!("{error:#}"), "the worker failed");
    }
    telemetry.shutdown();
    result
}
