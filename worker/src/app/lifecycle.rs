//! When a worker ends, and how long that may take.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Stages;

/// Waits for the stop, or for the end of what this process can do, then for the stages to finish what they hold, but not longer than `grace`.
pub(super) async fn supervise(
    stages: &mut Stages,
    stop: CancellationToken,
    worn_out: &CancellationToken,
    grace: Duration,
) -> Result<()> {
    let early = tokio::select! {
        biased; // A stop that was asked for is never mistaken for a stage that failed.
        () = stop.cancelled() => None,
        () = worn_out.cancelled() => None,
        first = stages.join_next() => first,
    };
    stop.cancel();
    let rest = async {
        while let Some(stage) = stages.join_next().await {
            stage.context("a stage panicked")??;
        }
        Ok(())
    };
    let drained = tokio::time::timeout(grace, rest).await;
    if let Some(stage) = early {
        stage.context("a stage panicked")??;
        bail!("a stage ended before anyone asked it to");
    }
    // What is left after the grace is handed back by the caller, so this is no failure.
    drained.unwrap_or(Ok(()))
}

/// SIGTERM or SIGINT drains; a second one ends the process at once.
pub(super) fn watch_signals(stop: CancellationToken) -> Result<()> {
    const STOPPED_BY_SIGNAL: i32 = 130;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be watched")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be watched")?;
    tokio::spawn(async move {
        for last in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if last {
                warn!("stopping at once, unfinished jobs come again after ack_wait");
                std::process::exit(STOPPED_BY_SIGNAL);
            }
            info!("draining; a second signal stops at once");
            stop.cancel();
        }
    });
    Ok(())
}
