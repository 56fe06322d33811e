//! Steps in a row on a graphics card: constants stay there, values go up once, results come down once.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::card::Gpu;
use super::device::Opened;
use super::dispatch::count;
use super::error::GpuError;
use super::layout::check_size;
use super::operation::{Choice, Operation};
use super::part::Part;
use super::slots::{Place, Use, assign};
use super::step::Prepared;
use super::upload;
use super::workspace::Pool;

/// Longest wait for one batch. A healthy device answers in milliseconds; software adapters compile for up to a
/// second first. Well below the 60 s that a worker gives a whole run.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest that another thread takes to deliver the report of a submission that has ended.
const DELIVERY: Duration = Duration::from_secs(1);

/// One of the first values of a program.
#[derive(Debug, Clone)]
pub enum Source {
    /// It comes with each run.
    Given,
    /// It is always the same.
    Constant(Vec<f32>),
}

/// One operation of a program and what it works on: values by their number.
///
/// The sources of the program are the first values; each step makes the next one.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is done.
    pub operation: Operation,
    /// The values it works on, as the operation names them.
    pub inputs: Vec<usize>,
}

/// Steps that run on a device without coming back in between.
///
/// Threads may share it. Each call waits for its own result; calls overlap on the host, the
/// device takes them one after the other.
///
/// Each step is within the bound that its shader states. A row's bits do not depend on the rows
/// beside it. Numbers below the normal range may be taken as 0.
pub struct Program {
    pub(super) gpu: Arc<Opened>,
    sources: Vec<bool>,
    pub(super) steps: Arc<[Prepared]>,
    pub(super) outputs: Vec<usize>,
    /// What each value is a part of.
    pub(super) parts: Arc<[Option<Part>]>,
    pub(super) places: Vec<Place>,
    pub(super) slots: usize,
    pub(super) constants: Arc<[Arc<wgpu::Buffer>]>,
    pool: Pool,
}

impl Program {
    /// Uploads what the steps bring with them, one after the other. `outputs` names the values that come down.
    ///
    /// # Errors
    /// [`GpuError::Shape`], [`GpuError::Empty`] and [`GpuError::Limit`] if the data does not fit the sizes or
    /// the device, [`GpuError::OutOfMemory`], [`GpuError::Lost`] and [`GpuError::Fault`] by the device.
    pub fn new(
        gpu: &Gpu,
        sources: &[Source],
        steps: impl IntoIterator<Item = Step>,
        outputs: &[usize],
    ) -> Result<Self, GpuError> {
        let gpu = gpu.opened();
        let mut constants = Vec::new();
        for source in sources {
            if let Source::Constant(values) = source {
                constants.push(upload::numbers(values, &gpu)?);
            }
        }
        let mut prepared = Vec::new();
        let mut parts = vec![None; sources.len()];
        for step in steps {
            let result = parts.len();
            if step.inputs.is_empty() || step.inputs.iter().any(|input| *input >= result) {
                return Err(GpuError::Empty("what a step works on"));
            }
            prepared.extend(Prepared::all(&step, result, &parts, &gpu)?);
            parts.push(Part::made_by(&step, &parts)?);
        }
        if outputs.is_empty() || outputs.iter().any(|output| *output >= parts.len()) {
            return Err(GpuError::Empty("an output"));
        }
        if let Some(kept) = gpu.kept() {
            kept.save();
        }
        let constant = |source: &Source| matches!(source, Source::Constant(_));
        let sources = sources.iter().map(constant).collect();
        Ok(Self::placed(
            gpu,
            sources,
            prepared.into(),
            parts.into(),
            constants.into(),
            outputs,
        ))
    }

    fn placed(
        gpu: Arc<Opened>,
        sources: Vec<bool>,
        steps: Arc<[Prepared]>,
        parts: Arc<[Option<Part>]>,
        constants: Arc<[Arc<wgpu::Buffer>]>,
        outputs: &[usize],
    ) -> Self {
        // Panels of one layer make one value.
        let mut uses: Vec<Use<'_>> = Vec::with_capacity(steps.len());
        for step in steps.iter() {
            if step.result == sources.len() + uses.len() {
                uses.push(Use {
                    inputs: &step.inputs,
                    view: step.is_view(),
                });
            }
        }
        let (places, slots) = assign(&sources, &uses, outputs);
        Program {
            gpu,
            sources,
            steps,
            outputs: outputs.to_vec(),
            parts,
            places,
            slots,
            constants,
            pool: Pool::default(),
        }
    }

    /// Whether it is on the device that is open on `gpu` now.
    pub(crate) fn is_on(&self, gpu: &Gpu) -> bool {
        Arc::ptr_eq(&self.gpu, &gpu.opened())
    }

    /// The same steps, of which other values come down. What is on the device is shared.
    pub(crate) fn watching(&self, outputs: &[usize]) -> Self {
        Self::placed(
            Arc::clone(&self.gpu),
            self.sources.clone(),
            Arc::clone(&self.steps),
            Arc::clone(&self.parts),
            Arc::clone(&self.constants),
            outputs,
        )
    }

    /// Runs all steps. `inputs` are the given sources, row-major; `shapes` has one for each value, sources first;
    /// `choice` says on which kernels dense layers run.
    ///
    /// # Errors
    /// [`GpuError::Shape`] and [`GpuError::Limit`] before anything is sent; all else means that this
    /// batch has no result and has to be computed elsewhere.
    pub fn run(
        &self,
        inputs: &[&[f32]],
        shapes: &[Vec<usize>],
        choice: Choice,
    ) -> Result<Vec<Vec<f32>>, GpuError> {
        let given: Vec<usize> = (0..self.sources.len())
            .filter(|source| !self.sources[*source])
            .collect();
        check_size("the list of inputs", inputs.len(), given.len())?;
        check_size("the list of shapes", shapes.len(), self.places.len())?;
        for (value, input) in given.iter().zip(inputs) {
            check_size("the batch", input.len(), count(&shapes[*value]))?;
        }
        let mut needs = self.needs(&given, shapes)?;
        let launches = self.launches(shapes, choice)?;
        needs.sums = self.sums(&launches)?;
        let workspace = self.pool.take(
            &needs,
            &self.steps,
            &self.places,
            &self.constants,
            &self.gpu,
        )?;
        let (report, reported) = mpsc::channel();
        let submission = self.write(&workspace, inputs).and_then(|()| {
            self.gpu.created(|device| {
                let mut commands =
                    device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                self.record(&mut commands, &workspace, &given, &launches, shapes);
                let mappings = [
                    // All of it: the next batch may be larger.
                    (
                        &workspace.upload,
                        wgpu::MapMode::Write,
                        workspace.upload.size(),
                    ),
                    (&workspace.download, wgpu::MapMode::Read, needs.download),
                ];
                for (buffer, mode, bytes) in mappings {
                    let report = report.clone();
                    commands.map_buffer_on_submit(buffer, mode, 0..bytes, move |outcome| {
                        // Nobody listens any more after a timeout.
                        let _ = report.send(outcome);
                    });
                }
                self.gpu.queue.submit([commands.finish()])
            })
        });
        // Without it the reports end when nobody is left who could send one.
        drop(report);
        let waited = submission.and_then(|submission| {
            let wait = wgpu::PollType::Wait {
                submission_index: Some(submission),
                timeout: Some(PATIENCE),
            };
            self.gpu.device.poll(wait).map_err(|error| match error {
                wgpu::PollError::Timeout => GpuError::Timeout(PATIENCE),
                other => GpuError::Fault(other.to_string()),
            })
        });
        // Only these two reports mean that there is a result; all before them succeeds on a lost device too.
        // Another thread's poll may be the one that delivers them, a moment after ours has returned.
        let next = || match &waited {
            Ok(_) => reported.recv_timeout(DELIVERY).ok(),
            Err(_) => reported.try_recv().ok(),
        };
        let outcome = match (next(), next()) {
            (Some(one), Some(other)) => Some(one.and(other)),
            _ => None,
        };
        #[cfg(test)]
        let outcome = outcome.map(|outcome| outcome.and_then(|()| self.gpu.injected.map()));
        match (outcome, waited) {
            (Some(Ok(())), Ok(_)) => {
                let results = self.read(&workspace, needs.download, shapes);
                workspace.download.unmap();
                self.pool.give_back(workspace);
                results
            }
            (Some(Err(error)), _) => {
                self.gpu.check()?;
                Err(GpuError::Fault(format!(
                    "the result cannot be read: {error}"
                )))
            }
            (_, waited) => {
                self.gpu.set_aside(workspace, reported);
                self.gpu.check()?;
                waited?;
                Err(GpuError::Fault(
                    "the read-back was never reported".to_owned(),
                ))
            }
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Program({} steps, {} slots)",
            self.steps.len(),
            self.slots
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Activation, GpuPolicy, Layer, Weights};

    fn numbers(count: usize) -> Vec<f32> {
        (0..count)
            .map(|at| ((at * 37 % 101) as f32 - 50.0) / 25.0)
            .collect()
    }

    #[test]
    fn panels_of_weights_make_the_same_result_as_all_of_them_at_once() {
        let gpu = Gpu::open(GpuPolicy::Force, None).expect("Mesa's software Vulkan");
        let gpu = gpu.expect("it is forced");
        let (m, k, n) = (5, 9, 43);
        for kept_as in Weights::ALL {
            let results = [0, 9 * 4 * 4, 9 * 4 * 16].map(|largest_panel| {
                gpu.limit_panels(largest_panel);
                let layer = Layer {
                    inputs: k,
                    outputs: n,
                    weights: numbers(k * n),
                    bias: numbers(n),
                    activation: Some(Activation::Gelu),
                    kept_as,
                };
                let step = Step {
                    operation: Operation::Linear(layer),
                    inputs: vec![0, 1],
                };
                let sources = [Source::Given, Source::Given];
                let program = Program::new(&gpu, &sources, [step], &[2]).expect("it fits");
                let panels = program.steps.len();
                let shapes = [vec![m, k], vec![m, n], vec![m, n]];
                let (rows, residual) = (numbers(m * k), numbers(m * n));
                let result = program.run(&[&rows, &residual], &shapes, Choice::Alike);
                (panels, result.expect("it runs").remove(0))
            });
            assert_eq!(results[0].0, 1);
            assert!(results[1].0 > 1, "{kept_as:?}");
            assert!(
                results.iter().all(|(_, result)| *result == results[0].1),
                "{kept_as:?}"
            );
        }
    }
}
