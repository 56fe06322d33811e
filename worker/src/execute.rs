//! Runs batches on dedicated threads: a forward pass blocks, and must block nobody else.
//!
//! Each thread keeps one session per version. After an error or a panic the session is dropped, as
//! its state may be spoilt. A failing batch is halved until the guilty rows fail alone.

use std::borrow::Cow;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use inferq_engine::{RunError, Session};
use inferq_schemas::subjects::ModelName;
use inferq_schemas::tensor::Tensor;
use tokio::sync::{mpsc, oneshot};
use tracing::{info_span, warn};

use crate::batch::{Batch, Idle, Slice};
use crate::disposition::JobError;
use crate::metrics::{EngineFailure, Metrics};
use crate::models::Version;
use crate::telemetry;
use crate::work::{Part, Rows};

/// Starts `threads` executors; each ends when nobody hands out batches any more.
///
/// # Errors
/// If the operating system refuses a thread.
pub fn start(
    threads: usize,
    idle: &mpsc::Sender<Idle>,
    metrics: &Metrics,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    (0..threads)
        .map(|index| {
            let (idle, metrics) = (idle.clone(), metrics.clone());
            let executor = Executor {
                sessions: HashMap::new(),
                metrics,
            };
            std::thread::Builder::new()
                .name(format!("executor-{index}"))
                .spawn(move || executor.run(&idle))
        })
        .collect()
}

struct Executor {
    sessions: HashMap<usize, (Weak<Version>, Box<dyn Session>)>,
    metrics: Metrics,
}

impl Executor {
    fn run(mut self, idle: &mpsc::Sender<Idle>) {
        let mut last: Option<(ModelName, Duration)> = None;
        loop {
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
            // The model's own panics are caught closer to it; one of ours must not cost the thread.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.run_batch(&batch))) {
                let message = panic_message(panic.as_ref());
                warn!(model = %batch.version.model, version = batch.version.number, message, "a batch panicked outside of its model");
                self.metrics.engine_failure(EngineFailure::Panic);
                self.sessions.clear();
                let failed = Failed::Panic(message);
                for slice in &batch.slices {
                    slice.work.fail(failed.to_job_error());
                }
            }
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
            self.metrics.batch_wait(
                &batch.version.model,
                started.saturating_duration_since(slice.work.queued),
            );
        }
        self.run_slices(&batch.version, &batch.slices);
        self.metrics.batch(
            &batch.version.model,
            batch.rows(),
            started.elapsed(),
            batch.close,
        );
    }

    /// Runs `slices` together; if that fails, each half by itself.
    fn run_slices(&mut self, version: &Arc<Version>, slices: &[Slice]) {
        let started = Instant::now();
        match self.forward(version, slices) {
            Ok((outputs, device)) => hand_out(slices, &outputs, started, &device),
            Err(error) => match halves(slices) {
                Some((first, second)) if error.is_permanent() => {
                    self.run_slices(version, &first);
                    self.run_slices(version, &second);
                }
                _ => {
                    for slice in slices {
                        slice.work.fail(error.to_job_error());
                    }
                }
            },
        }
    }

    /// The outputs of all rows, and the numeric class of the run.
    fn forward(
        &mut self,
        version: &Arc<Version>,
        slices: &[Slice],
    ) -> Result<(Vec<Tensor>, Arc<str>), Failed> {
        let inputs = stack_inputs(version, slices)?;
        let session = self.session(version)?;
        let outcome = catch_unwind(AssertUnwindSafe(|| session.run(inputs)));
        let outputs = match outcome {
            Ok(Ok(outputs)) => outputs,
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
        Ok((outputs, device))
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
            Failed::Run(RunError::Device(_)) => false,
        }
    }

    fn to_job_error(&self) -> JobError {
        match self {
            Failed::Run(error @ RunError::Input(_)) => JobError::Input(error.to_string()),
            Failed::Run(error @ RunError::Model(_)) => JobError::Model(error.to_string()),
            Failed::Run(error @ RunError::Device(_)) => JobError::Device(error.to_string()),
            Failed::Panic(message) => {
                JobError::Model(format!("the model panicked on this input: {message}"))
            }
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// Copies each row once, into the tensors that the model reads.
fn stack_inputs(version: &Version, slices: &[Slice]) -> Result<Vec<inferq_engine::Tensor>, Failed> {
    let stack = |input: usize| {
        let first = slices.first().map(|slice| &slice.work.inputs[input]);
        let mut shape = first.map(|tensor| tensor.shape.clone()).unwrap_or_default();
        let rows: Vec<Vec<Bytes>> = slices
            .iter()
            .map(|slice| match &slice.work.rows {
                Rows::Whole => vec![slice.work.inputs[input].data.clone()],
                Rows::Some(indices) => {
                    chosen(&slice.work.inputs[input], &indices[slice.units.clone()])
                }
            })
            .collect();
        let batched = slices.iter().all(|slice| slice.work.rows != Rows::Whole);
        if let (true, Some(first)) = (batched, shape.first_mut()) {
            *first = slices.iter().map(|slice| slice.units.len()).sum();
        }
        let parts: Vec<&[u8]> = rows.iter().flatten().map(|row| &row[..]).collect();
        inferq_engine::Tensor::stack(version.engine.inputs()[input].element, &shape, &parts)
    };
    let stacked: Result<Vec<_>, _> = (0..version.inputs.len()).map(stack).collect();
    stacked.map_err(|error| Failed::Run(RunError::Input(error.into())))
}

/// The rows `indices` of `tensor`; all of them in order is the data itself.
fn chosen(tensor: &Tensor, indices: &[usize]) -> Vec<Bytes> {
    let all_in_order = indices.len() == tensor.rows()
        && indices
            .iter()
            .enumerate()
            .all(|(place, index)| place == *index);
    if all_in_order {
        return vec![tensor.data.clone()];
    }
    let rows = tensor.split_rows();
    indices
        .iter()
        .filter_map(|index| rows.get(*index).cloned())
        .collect()
}

fn to_wire(spec: &inferq_schemas::tensor::TensorSpec, output: &inferq_engine::Tensor) -> Tensor {
    let data = match output.bytes() {
        Cow::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    Tensor {
        name: spec.name.clone(),
        datatype: spec.datatype,
        shape: output.shape().to_vec(),
        data,
    }
}

/// Gives every work its part of `outputs`.
fn hand_out(slices: &[Slice], outputs: &[Tensor], started: Instant, device: &Arc<str>) {
    let compute = started.elapsed();
    let batch_rows = slices
        .iter()
        .map(|slice| slice.work.row_count(&slice.units))
        .sum();
    let part = |outputs| Part {
        outputs,
        compute,
        batch_rows,
        started,
        device: Arc::clone(device),
    };
    if let [only] = slices {
        only.work
            .deliver(only.units.start, only.units.len(), part(outputs.to_vec()));
        return;
    }
    let mut rest: Vec<std::vec::IntoIter<Bytes>> = outputs
        .iter()
        .map(|output| output.split_rows().into_iter())
        .collect();
    let mut cursors = vec![0; outputs.len()];
    for slice in slices {
        let units = slice.units.len();
        let pieces =
            outputs
                .iter()
                .zip(&mut rest)
                .zip(&mut cursors)
                .map(|((output, rest), cursor)| {
                    // Rows follow each other in the data, so a run of them is one slice of it.
                    let bytes: usize = rest.by_ref().take(units).map(|row| row.len()).sum();
                    let data = output.data.slice(*cursor..*cursor + bytes);
                    *cursor += bytes;
                    let mut shape = output.shape.clone();
                    if let Some(first) = shape.first_mut() {
                        *first = units;
                    }
                    Tensor {
                        name: output.name.clone(),
                        datatype: output.datatype,
                        shape,
                        data,
                    }
                });
        slice
            .work
            .deliver(slice.units.start, units, part(pieces.collect()));
    }
}

/// Two halves of `slices` by units, or `None` if there is only one.
fn halves(slices: &[Slice]) -> Option<(Vec<Slice>, Vec<Slice>)> {
    let units: usize = slices.iter().map(|slice| slice.units.len()).sum();
    if units < 2 {
        return None;
    }
    let (mut first, mut second, mut left) = (Vec::new(), Vec::new(), units / 2);
    for slice in slices {
        let here = slice.units.len().min(left);
        left -= here;
        let cut = slice.units.start + here;
        if here > 0 {
            first.push(Slice {
                work: slice.work.clone(),
                units: slice.units.start..cut,
            });
        }
        if cut < slice.units.end {
            second.push(Slice {
                work: slice.work.clone(),
                units: cut..slice.units.end,
            });
        }
    }
    Some((first, second))
}
