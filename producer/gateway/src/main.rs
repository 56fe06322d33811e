//! `inferq-gateway`: reads the flags, connects, serves until a signal.

use std::{io::IsTerminal, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use inferq::Client;
use inferq_gateway::Config;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = Config::parse();
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,async_nats=error"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(filter)
        .init();
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inferq-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut builder = Client::builder()
        .name("inferq-gateway")
        .prefix(&config.prefix);
    if let Some(file) = &config.nats_creds {
        builder = builder.credentials(file);
    }
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}; choose with --listen", config.listen))?;
    let client = builder.connect(&config.nats).await?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "the gateway is open");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = inferq_gateway::serve(listener, client.clone(), config.max_body, async {
        stopped.await.ok();
    });
    let signals = async {
        asked(&mut interrupt, &mut terminate).await;
        tracing::info!("stopping: requests that run are answered");
        drop(stop);
        asked(&mut interrupt, &mut terminate).await;
    };
    tokio::select! {
        served = serving => served.context("the gateway failed")?,
        () = signals => tracing::warn!("stopped at once"),
    }
    client.close().await;
    Ok(())
}

async fn asked(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
