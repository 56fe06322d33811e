//! What this worker tells about itself: its state, and the record that `inferq workers` shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use inferq_schemas::registry::{WorkerRecord, WorkerState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::{millis, unix_ms_now};
use crate::hold::Room;
use crate::models::Models;
use crate::pull::consumers::{Serving, ready_models};

/// Everything the record is made of.
pub(super) struct Status {
    pub(super) worker_id: String,
    pub(super) started: Instant,
    pub(super) http: Option<String>,
    pub(super) executors: usize,
    pub(super) room: Room,
    pub(super) models: Models,
    pub(super) serving: watch::Receiver<Serving>,
    pub(super) state: watch::Receiver<WorkerState>,
    pub(super) jobs_done: Arc<AtomicU64>,
}

impl Status {
    /// The record as of now. A model without consumers is loaded but not served, so it is not listed.
    pub(super) fn record(&self) -> WorkerRecord {
        let now = unix_ms_now();
        let running = millis(self.started.elapsed());
        let state = *self.state.borrow();
        let served = ready_models(&self.serving.borrow());
        let mut models = self.models.served();
        models.retain(|model| served.contains(&model.name));
        WorkerRecord {
            id: self.worker_id.clone(),
            host: host_name(),
            pid: std::process::id(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_ms: now.saturating_sub(running),
            seen_unix_ms: now,
            ready: state == WorkerState::Ready,
            state,
            http: self.http.clone(),
            executors: u32::try_from(self.executors).unwrap_or(u32::MAX),
            room_rows: self.room.limits().rows as u64,
            free_rows: self.room.free_rows() as u64,
            jobs_done: self.jobs_done.load(Ordering::Relaxed),
            models,
        }
    }
}

/// The machine's name, as containers and most shells know it.
fn host_name() -> String {
    let from_kernel =
        std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
    from_kernel
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_else(|_| "unknown".to_owned())
}

/// How often it is looked whether the connections are there.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Keeps `state` in step: ready while a model is served and all `connections` are there, draining from `stop` on.
pub(super) async fn follow(
    state: watch::Sender<WorkerState>,
    mut serving: watch::Receiver<Serving>,
    connections: [async_nats::Client; 2],
    stop: CancellationToken,
) {
    loop {
        let serves = !serving.borrow_and_update().is_empty();
        let is_connected =
            |client: &async_nats::Client| client.connection_state() == State::Connected;
        let now = if serves && connections.iter().all(is_connected) {
            WorkerState::Ready
        } else {
            WorkerState::Starting
        };
        state.send_if_modified(|state| {
            let changed = *state != now;
            *state = now;
            changed
        });
        tokio::select! {
            () = stop.cancelled() => break,
            changed = serving.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
    state.send_replace(WorkerState::Draining);
}
