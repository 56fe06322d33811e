//! Runs batches on dedicated threads: a forward pass blocks, and must block nobody else.
//!
//! Each thread keeps one session per version. After an error or a panic the session is dropped, as
//! its state may be spoilt. A failing batch is halved until the guilty rows fail alone. A forward pass
//! ends at its next operator once nobody waits for any of its rows; one that does not return in its time
//! is given up together with its thread (`execute/watch.rs`). Whoever wakes up beside a bulk pass
//! goes first (`execute/time_slice.rs`).

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use inferq_engine::{RunError, Session};
use inferq_schemas::subjects::ModelName;
use inferq_schemas::tensor::Tensor;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info_span, warn};

use crate::batch::{Batch, Idle, Slice};
use crate::disposition::JobError;
use crate::execute::rows::{halves, hand_out, stack_inputs, to_wire};
use crate::execute::runs::ThreadNumber;
use crate::execute::time_slice::TimeSlice;
use crate::execute::watch::Board;
use crate::metrics::{EngineFailure, Metrics};
use crate::models::Version;
use crate::telemetry;

mod rows;
mod runs;
mod time_slice;
mod watch;

#[cfg(test)]
mod tests;

/// The executor threads, and what another one needs.
pub struct Executors {
    idle: mpsc::Sender<Idle>,
    metrics: Metrics,
    board: Arc<Board>,
    /// Threads started so far.
    started: ThreadNumber,
}

/// Starts `threads` executors; each ends when nobody hands out batches any more.
///
/// # Errors
/// If the operating system refuses a thread.
pub fn start(
    threads: usize,
    idle: mpsc::Sender<Idle>,
    metrics: Metrics,
) -> std::io::Result<Executors> {
    let mut executors = Executors {
        idle,
        board: Arc::new(Board::new(metrics.clone())),
        metrics,
        started: 0,
    };
    for _ in 0..threads {
        executors.spawn(None)?;
    }
    Ok(executors)
}

impl Executors {
    /// One more thread. `last` is what its predecessor did.
    fn spawn(&mut self, last: Option<(ModelName, Duration)>) -> std::io::Result<()> {
        let thread = self.started;
        self.started += 1;
        let executor = Executor {
            thread,
            sessions: HashMap::new(),
            metrics: self.metrics.clone(),
            board: self.board.clone(),
            given_up: false,
        };
        let idle = self.idle.clone();
        std::thread::Builder::new()
            .name(format!("executor-{thread}"))
            .spawn(move || executor.run(&idle, last))
            .map(drop)
    }
}

struct Executor {
    thread: ThreadNumber,
    sessions: HashMap<usize, (Weak<Version>, Box<dyn Session>)>,
    metrics: Metrics,
    board: Arc<Board>,
    /// Another thread has its place, and its rows have been answered for.
    given_up: bool,
}

impl Executor {
    fn run(mut self, idle: &mpsc::Sender<Idle>, mut last: Option<(ModelName, Duration)>) {
        let mut time_slice = TimeSlice::of_this_thread();
        while !self.given_up {
            let (slot, batch) = oneshot::channel();
            if idle
                .blocking_send(Idle {
                    slot,
                    last: last.take(),
                })
                .is_err()
            {
                return;
            }
            let Ok(batch) = batch.blocking_recv() else {
                return;
            };
            let started = Instant::now();
            time_slice.set_long(batch.is_bulk());
            // The model's own panics are caught closer to it; one of ours must not cost the thread.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.run_batch(&batch))) {
                let message = panic_message(panic.as_ref());
                warn!(model = %batch.version.model, version = batch.version.number, message, "a batch panicked outside of its model");
                self.metrics.engine_failure(EngineFailure::Panic);
                self.sessions.clear();
                for slice in &batch.slices {
                    slice.work.fail(panicked(&message));
                }
            }
            // What comes next may be a call, and has to wake up like one.
            time_slice.set_long(false);
            last = Some((batch.version.model.clone(), started.elapsed()));
        }
    }

    fn run_batch(&mut self, batch: &Batch) {
        let span = info_span!("batch", model = %batch.version.model, version = batch.version.number, rows = batch.rows());
        for slice in &batch.slices {
            telemetry::link(&span, &slice.work.span);
        }
        let _entered = span.enter();
        let started = Instant::now();
        for slice in &batch.slices {
            slice.work.begun();
            self.metrics.batch_wait(
                &batch.version.model,
                started.saturating_duration_since(slice.work.queued),
            );
        }
        self.run_slices(&batch.version, &batch.slices);
        if !self.given_up {
            self.metrics.batch(
                &batch.version.model,
                batch.rows(),
                started.elapsed(),
                batch.close,
            );
        }
    }

    /// Runs those of `slices` that somebody waits for together; if that fails, each half by itself.
    fn run_slices(&mut self, version: &Arc<Version>, slices: &[Slice]) {
        let waited_for = slices.iter().filter(|slice| !slice.work.is_abandoned());
        let slices: Vec<Slice> = waited_for.cloned().collect();
        if slices.is_empty() {
            return;
        }
        let started = Instant::now();
        match self.forward(version, &slices) {
            Ok(Some((outputs, device))) => hand_out(&slices, &outputs, started, &device),
            Ok(None) => self.given_up = true,
            Err(error) => match halves(&slices) {
                Some((first, second)) if error.is_permanent() => {
                    self.run_slices(version, &first);
                    if !self.given_up {
                        self.run_slices(version, &second);
                    }
                }
                _ => {
                    for slice in slices {
                        slice.work.fail(error.to_job_error());
                    }
                }
            },
        }
    }

    /// `None` if the rows have been answered for meanwhile.
    fn forward(
        &mut self,
        version: &Arc<Version>,
        slices: &[Slice],
    ) -> Result<Option<Outputs>, Failed> {
        let inputs = stack_inputs(version, slices).map_err(Failed::Run)?;
        let (thread, board) = (self.thread, self.board.clone());
        let session = self.session(version)?;
        board.begin(thread, version, slices);
        let begun = Instant::now();
        // An overdue run has failed all its work, so that this ends it too.
        let wanted = || !slices.iter().all(|slice| slice.work.is_abandoned());
        let outcome = catch_unwind(AssertUnwindSafe(|| session.run_while(inputs, &wanted)));
        let took = begun.elapsed();
        if !board.end(thread) {
            warn!(model = %version.model, version = version.number, "a forward pass came back after its time was over, its result is dropped");
            return Ok(None);
        }
        let outputs = match outcome {
            Ok(Ok(outputs)) => outputs,
            Ok(Err(error @ RunError::Stopped)) => {
                debug!(model = %version.model, version = version.number, ?took, "a forward pass was stopped, nobody waits for it any more");
                return Err(Failed::Run(error));
            }
            Ok(Err(error)) => {
                self.forget(version);
                self.metrics.engine_failure(EngineFailure::Error);
                return Err(Failed::Run(error));
            }
            Err(panic) => {
                self.forget(version);
                self.metrics.engine_failure(EngineFailure::Panic);
                let message = panic_message(panic.as_ref());
                warn!(model = %version.model, version = version.number, message, "the model panicked, its session was replaced");
                return Err(Failed::Panic(message));
            }
        };
        let rows = slices
            .iter()
            .map(|slice| slice.work.row_count(&slice.units));
        version.pace.record(rows.sum(), took, begun + took);
        let device = Arc::from(session.device_class());
        let fallbacks = session.fallbacks();
        if fallbacks > 0 {
            self.metrics.gpu_fallbacks(&version.model, fallbacks);
        }
        let outputs = version
            .outputs
            .iter()
            .zip(&outputs)
            .map(|(spec, output)| to_wire(spec, output))
            .collect();
        Ok(Some((outputs, device)))
    }

    fn session(&mut self, version: &Arc<Version>) -> Result<&mut Box<dyn Session>, Failed> {
        let key = Arc::as_ptr(version).addr();
        // A version that was unloaded may leave its address to another.
        self.sessions
            .retain(|_, (version, _)| version.strong_count() > 0);
        match self.sessions.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(&mut entry.into_mut().1),
            std::collections::hash_map::Entry::Vacant(place) => {
                let session = version.engine.session().map_err(Failed::Run)?;
                Ok(&mut place.insert((Arc::downgrade(version), session)).1)
            }
        }
    }

    fn forget(&mut self, version: &Arc<Version>) {
        self.sessions.remove(&Arc::as_ptr(version).addr());
    }
}

/// Those of all rows, and the numeric class of the run.
type Outputs = (Vec<Tensor>, Arc<str>);

/// Why a forward pass gave no outputs.
enum Failed {
    Run(RunError),
    Panic(String),
}

impl Failed {
    /// Whether it would fail again, so that it is worth finding out which rows are to blame.
    fn is_permanent(&self) -> bool {
        match self {
            Failed::Run(RunError::Input(_) | RunError::Model(_)) | Failed::Panic(_) => true,
            Failed::Run(RunError::Device(_) | RunError::Stopped) => false,
        }
    }

    fn to_job_error(&self) -> JobError {
        match self {
            Failed::Run(error @ RunError::Input(_)) => JobError::Input(error.to_string()),
            Failed::Run(error @ RunError::Model(_)) => JobError::Model(error.to_string()),
            Failed::Run(error @ RunError::Device(_)) => JobError::Device(error.to_string()),
            // Nobody hears of it.
            Failed::Run(RunError::Stopped) => JobError::Stopping,
            Failed::Panic(message) => panicked(message),
        }
    }
}

fn panicked(message: &str) -> JobError {
    JobError::Model(format!("the model panicked on this input: {message}"))
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
