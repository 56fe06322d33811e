//! The connections to NATS: patient at first, jittered afterwards, and as the user their address names.
//!
//! A worker has two, since a connection hands on what it carries in order: a call behind some large bodies of jobs
//! would wait until all of them are read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_nats::ConnectOptions;
use inferq_schemas::address::Login;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::app::refusals::Refusals;
use crate::config::ConnectionArgs;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Everything but plain requests.
    Jobs,
    /// Plain requests and their answers, and whoever asks which workers there are.
    Calls,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Calls => "calls",
        }
    }
}

/// Connects, however long the server takes to appear; `None` if told to stop before.
pub(super) async fn connect(
    args: &ConnectionArgs,
    worker: &str,
    purpose: Purpose,
    stop: &CancellationToken,
) -> Result<Option<async_nats::Client>> {
    const LOOK_AGAIN: Duration = Duration::from_secs(2);
    let refusals = Arc::new(Mutex::new(Refusals::default()));
    loop {
        let refusals = refusals.clone();
        let options = match Login::of(args.nats.expose()) {
            Some(Login::User { name, password }) => {
                ConnectOptions::with_user_and_password(name, password)
            }
            Some(Login::Token(token)) => ConnectOptions::with_token(token),
            None => ConnectOptions::new(),
        };
        let mut options = options
            .name(format!("inferq-worker {worker} {}", purpose.name()))
            .ping_interval(Duration::from_secs(10))
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(move |event| {
                log_event(&event, purpose.name(), &refusals);
                std::future::ready(())
            });
        if let Some(file) = &args.nats_creds {
            options = options
                .credentials_file(file)
                .await
                .context("the credentials file is not usable")?;
        }
        let servers: Vec<&str> = args.nats.expose().split(',').map(str::trim).collect();
        let attempt = tokio::select! {
            () = stop.cancelled() => return Ok(None),
            attempt = options.connect(servers) => attempt,
        };
        match attempt {
            Ok(client) => return Ok(Some(client)),
            Err(error) => {
                warn!(%error, connection = purpose.name(), "NATS does not answer; check --nats. Trying again")
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// 100 ms doubled up to 8 s, half of it random: many workers must not return in one wave.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1))
        .unwrap_or(u32::MAX)
        .min(7);
    let delay = (Duration::from_millis(100) * 2u32.pow(doublings)).min(Duration::from_secs(8));
    delay.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

fn log_event(event: &async_nats::Event, connection: &str, refusals: &Mutex<Refusals>) {
    use async_nats::Event;
    match event {
        Event::Connected => info!(connection, "connected to NATS"),
        Event::Disconnected => warn!(connection, "disconnected from NATS"),
        // Permission violations come this way and no other.
        Event::ServerError(error) => {
            let mut refusals = refusals.lock().unwrap_or_else(PoisonError::into_inner);
            if refusals.is_news(&error.to_string(), Instant::now()) {
                error!(%error, connection, "the NATS server refuses something; check this user's permissions");
            } else {
                debug!(%error, connection, "the NATS server refuses more of the same");
            }
        }
        Event::SlowConsumer(_) => {
            warn!(
                connection,
                "messages were dropped: this worker reads too slowly"
            );
        }
        other => debug!(event = %other, connection, "NATS connection"),
    }
}
