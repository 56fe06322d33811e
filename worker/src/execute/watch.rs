//! The watch over executor threads: an operator cannot be interrupted, but its thread can be given up.
//!
//! A forward pass that takes longer than its model's `limits.run_timeout` ends for everybody else: its
//! jobs are tried again, so their progress acknowledgements stop, and another thread takes the place of
//! the one that runs it. As nobody waits for it any more, it stops at its next operator, and its thread
//! ends. One that does not come to that is stuck. Stuck threads burn cores, so at the second one the
//! worker is worn out, and a new process has to take its place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::Executors;
use super::runs::{Runs, ThreadNumber};
use crate::batch::Slice;
use crate::disposition::JobError;
use crate::metrics::{EngineFailure, Metrics};
use crate::models::Version;
use crate::work::Work;

/// So many stuck threads at once, and the worker is worn out.
const MOST_STUCK: usize = 2;

/// What the threads report to the watch.
pub(super) struct Board {
    runs: Mutex<Runs<Running>>,
    changed: Notify,
    metrics: Metrics,
}

/// A forward pass.
#[derive(Debug)]
struct Running {
    version: Arc<Version>,
    works: Vec<Arc<Work>>,
}

impl Board {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            runs: Mutex::new(Runs::new()),
            changed: Notify::new(),
            metrics,
        }
    }

    /// `thread` starts to run `slices`.
    pub(super) fn begin(&self, thread: ThreadNumber, version: &Arc<Version>, slices: &[Slice]) {
        let running = Running {
            version: version.clone(),
            works: slices.iter().map(|slice| slice.work.clone()).collect(),
        };
        let end = Instant::now() + version.settings.limits.run_timeout;
        if self.lock().begin(thread, end, running) {
            self.changed.notify_one();
        }
    }

    /// `thread` has come back; false if it was given up, so that its result must not be used.
    pub(super) fn end(&self, thread: ThreadNumber) -> bool {
        let mut runs = self.lock();
        let in_time = runs.end(thread);
        if !in_time {
            self.metrics.stuck_threads(runs.stuck(Instant::now()));
        }
        in_time
    }

    fn lock(&self) -> MutexGuard<'_, Runs<Running>> {
        // Each change of it is complete before anything can panic.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Executors {
    /// Gives up the threads whose time is over and starts others in their place, until `ended`.
    /// Cancels `worn_out` once the process should be replaced, and goes on: a drain needs threads too.
    pub async fn watch(mut self, worn_out: CancellationToken, ended: CancellationToken) {
        loop {
            let (overdue, stuck, next) = {
                let (mut runs, now) = (self.board.lock(), Instant::now());
                let (overdue, stuck) = (runs.overdue(now), runs.stuck(now));
                self.metrics.stuck_threads(stuck);
                (overdue, stuck, runs.next_look(now))
            };
            for running in overdue {
                if !self.give_up(&running) {
                    worn_out.cancel();
                }
            }
            if stuck >= MOST_STUCK && !worn_out.is_cancelled() {
                error!(
                    stuck,
                    "forward passes do not return: this worker drains and exits; look at the model, or raise limits.run_timeout in its model.toml"
                );
                worn_out.cancel();
            }
            tokio::select! {
                () = ended.cancelled() => return,
                () = self.board.changed.notified() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// Answers for the rows of a run and fills its place; false if there is no thread to do so.
    fn give_up(&mut self, running: &Running) -> bool {
        let Running { version, works } = running;
        let limit = version.settings.limits.run_timeout;
        warn!(
            model = %version.model,
            version = version.number,
            ?limit,
            jobs = works.len(),
            "a forward pass did not return in its time: its jobs are tried again, its thread is replaced"
        );
        self.metrics.engine_failure(EngineFailure::Timeout);
        for work in works {
            work.fail(JobError::Overrun(limit));
        }
        // Executor time is shared between models, and this one has had all of that.
        match self.spawn(Some((version.model.clone(), limit))) {
            Ok(()) => true,
            Err(error) => {
                error!(%error, "no thread could be started in the place of a stuck one: this worker drains and exits");
                false
            }
        }
    }
}

/// Sleeps for ever without a moment to wake at.
async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
