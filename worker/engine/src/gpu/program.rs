//! Steps in a row on a graphics card: constants stay there, values go up once, results come down once.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use inferq_shaders::{ELEMENTWISE, Kernel, NORM, PRODUCT, SOFTMAX, Tile, linear};

use super::card::Gpu;
use super::device::Opened;
use super::dispatch::{Dispatch, count, dispatch};
use super::error::GpuError;
use super::layout::{check_size, value_bytes};
use super::operation::{Choice, Operation};
use super::pipeline::{Pipeline, pipeline};
use super::slots::{Place, Use, assign};
use super::upload;
use super::workspace::{Needs, Pool, Workspace};

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
    gpu: Arc<Opened>,
    sources: Vec<bool>,
    steps: Arc<[Prepared]>,
    outputs: Vec<usize>,
    places: Vec<Place>,
    slots: usize,
    constants: Arc<[Arc<wgpu::Buffer>]>,
    pool: Pool,
}

/// A step whose constants are on the device.
pub(super) struct Prepared {
    operation: Operation,
    inputs: Vec<usize>,
    result: usize,
    /// Nothing for a view; for a dense layer one for each tile, in their order.
    pipelines: Vec<Arc<Pipeline>>,
    constants: Vec<Arc<wgpu::Buffer>>,
}

impl Program {
    /// Uploads what the steps bring with them. `outputs` names the values that come down.
    ///
    /// # Errors
    /// [`GpuError::Shape`], [`GpuError::Empty`] and [`GpuError::Limit`] if the data does not fit the sizes or
    /// the device, [`GpuError::OutOfMemory`], [`GpuError::Lost`] and [`GpuError::Fault`] by the device.
    pub fn new(
        gpu: &Gpu,
        sources: &[Source],
        steps: Vec<Step>,
        outputs: &[usize],
    ) -> Result<Self, GpuError> {
        let gpu = gpu.opened();
        let mut constants = Vec::new();
        for source in sources {
            if let Source::Constant(values) = source {
                constants.push(upload::numbers(values, &gpu)?);
            }
        }
        let mut prepared = Vec::with_capacity(steps.len());
        for (number, step) in steps.into_iter().enumerate() {
            let result = sources.len() + number;
            if step.inputs.is_empty() || step.inputs.iter().any(|input| *input >= result) {
                return Err(GpuError::Empty("what a step works on"));
            }
            prepared.push(Prepared::new(step, result, &gpu)?);
        }
        let total = sources.len() + prepared.len();
        if outputs.is_empty() || outputs.iter().any(|output| *output >= total) {
            return Err(GpuError::Empty("an output"));
        }
        let constant = |source: &Source| matches!(source, Source::Constant(_));
        let sources = sources.iter().map(constant).collect();
        Ok(Self::placed(
            gpu,
            sources,
            prepared.into(),
            constants.into(),
            outputs,
        ))
    }

    fn placed(
        gpu: Arc<Opened>,
        sources: Vec<bool>,
        steps: Arc<[Prepared]>,
        constants: Arc<[Arc<wgpu::Buffer>]>,
        outputs: &[usize],
    ) -> Self {
        let uses: Vec<Use<'_>> = steps
            .iter()
            .map(|step| Use {
                inputs: &step.inputs,
                view: step.pipelines.is_empty(),
            })
            .collect();
        let (places, slots) = assign(&sources, &uses, outputs);
        Program {
            gpu,
            sources,
            steps,
            outputs: outputs.to_vec(),
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
        let (steps, constants) = (Arc::clone(&self.steps), Arc::clone(&self.constants));
        Self::placed(
            Arc::clone(&self.gpu),
            self.sources.clone(),
            steps,
            constants,
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
        let launches = self.launches(shapes, choice)?;
        let needs = self.needs(shapes)?;
        let workspace = self.pool.take(
            &needs,
            &self.steps,
            &self.places,
            &self.constants,
            &self.gpu,
        )?;
        let (report, reported) = mpsc::channel();
        let submission = self.gpu.created(|device| {
            for (value, input) in given.iter().zip(inputs) {
                if let Place::Slot(slot) = self.places[*value] {
                    let bytes: Vec<u8> = input.iter().flat_map(|x| x.to_ne_bytes()).collect();
                    self.gpu
                        .queue
                        .write_buffer(&workspace.slots[slot], 0, &bytes);
                }
            }
            let mut commands =
                device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            self.record(&mut commands, &workspace, &launches, shapes);
            commands.map_buffer_on_submit(
                &workspace.download,
                wgpu::MapMode::Read,
                0..needs.download,
                move |outcome| {
                    // Nobody listens any more after a timeout.
                    let _ = report.send(outcome);
                },
            );
            self.gpu.queue.submit([commands.finish()])
        });
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
        // Only this report means that there is a result; all before it succeeds on a lost device too.
        // Another thread's poll may be the one that delivers it, a moment after ours has returned.
        let outcome = match &waited {
            Ok(_) => reported.recv_timeout(DELIVERY).ok(),
            Err(_) => reported.try_recv().ok(),
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
                self.gpu.set_aside(workspace);
                self.gpu.check()?;
                waited?;
                Err(GpuError::Fault(
                    "the read-back was never reported".to_owned(),
                ))
            }
        }
    }

    fn launches(
        &self,
        shapes: &[Vec<usize>],
        choice: Choice,
    ) -> Result<Vec<Option<Dispatch>>, GpuError> {
        let launches = self.steps.iter().map(|step| {
            let inputs = step.inputs.iter().map(|input| &shapes[*input][..]);
            let inputs: Vec<&[usize]> = inputs.collect();
            let result = &shapes[step.result];
            dispatch(&step.operation, &inputs, result, choice, &self.gpu)
        });
        launches.collect()
    }

    fn needs(&self, shapes: &[Vec<usize>]) -> Result<Needs, GpuError> {
        let mut slots = vec![4; self.slots];
        for (place, shape) in self.places.iter().zip(shapes) {
            if let Place::Slot(slot) = place {
                let bytes = value_bytes("the batch", count(shape), &self.gpu)?;
                slots[*slot] = bytes.max(slots[*slot]);
            }
        }
        let outputs = self.outputs.iter().map(|output| count(&shapes[*output]));
        let download = value_bytes("the result", outputs.sum(), &self.gpu)?;
        Ok(Needs { slots, download })
    }

    /// One pass with a dispatch per step, and the copies of what comes down.
    fn record(
        &self,
        commands: &mut wgpu::CommandEncoder,
        workspace: &Workspace,
        launches: &[Option<Dispatch>],
        shapes: &[Vec<usize>],
    ) {
        {
            let mut pass = commands.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for ((step, launch), bindings) in
                self.steps.iter().zip(launches).zip(&workspace.bindings)
            {
                let Some(launch) = launch else {
                    continue;
                };
                let place = launch.tile.map_or(0, |tile| tile as usize);
                let Some(pipeline) = step.pipelines.get(place) else {
                    continue;
                };
                pass.set_pipeline(&pipeline.pipeline);
                pass.set_bind_group(0, bindings, &[]);
                pass.set_immediates(0, &launch.immediates());
                let [x, y, z] = launch.groups;
                pass.dispatch_workgroups(x, y, z);
            }
        }
        let mut start = 0;
        for output in &self.outputs {
            let source = match self.places[*output] {
                Place::Slot(slot) => &workspace.slots[slot],
                Place::Constant(number) => &*self.constants[number],
            };
            let bytes = 4 * count(&shapes[*output]) as u64;
            commands.copy_buffer_to_buffer(source, 0, &workspace.download, start, Some(bytes));
            start += bytes;
        }
    }

    fn read(
        &self,
        workspace: &Workspace,
        bytes: u64,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Vec<f32>>, GpuError> {
        let mapped = workspace
            .download
            .slice(..bytes)
            .get_mapped_range()
            .map_err(|error| GpuError::Fault(error.to_string()))?;
        let mut rest = &mapped[..];
        let results = self.outputs.iter().map(|output| {
            let (own, after) = rest.split_at(4 * count(&shapes[*output]));
            rest = after;
            let values = own.chunks_exact(4);
            let values =
                values.map(|value| f32::from_ne_bytes([value[0], value[1], value[2], value[3]]));
            values.collect()
        });
        Ok(results.collect())
    }
}

impl Prepared {
    fn new(step: Step, result: usize, gpu: &Opened) -> Result<Self, GpuError> {
        let kernels: Vec<&Kernel> = match &step.operation {
            Operation::Linear(layer) => {
                let tiles = Tile::ALL.into_iter();
                tiles.map(|tile| linear(tile, layer.kept_as)).collect()
            }
            Operation::Product(_) => vec![&PRODUCT],
            Operation::Softmax { .. } => vec![&SOFTMAX],
            Operation::Norm(_) => vec![&NORM],
            Operation::Elementwise { .. } => vec![&ELEMENTWISE],
            Operation::View => vec![],
        };
        let constants = upload::constants(&step.operation, gpu)?;
        Ok(Prepared {
            pipelines: kernels
                .into_iter()
                .map(|kernel| pipeline(kernel, gpu))
                .collect::<Result<_, _>>()?,
            constants,
            operation: step.operation.without_numbers(),
            inputs: step.inputs,
            result,
        })
    }

    /// How buffers are bound; nothing for a view. Kernels of one operation bind alike.
    pub(super) fn layout(&self) -> Option<&wgpu::BindGroupLayout> {
        self.pipelines.first().map(|pipeline| &pipeline.layout)
    }

    /// What the kernel binds, in order. What is not there has something else in its place, which it does not read.
    pub(super) fn buffers<'a>(
        &'a self,
        at: impl Fn(usize) -> &'a wgpu::Buffer,
    ) -> Vec<&'a wgpu::Buffer> {
        let first = at(self.inputs[0]);
        let second = self.inputs.get(1).map(|input| at(*input));
        let result = at(self.result);
        let mut buffers = vec![first];
        match &self.operation {
            Operation::Linear(_) => {
                buffers.extend(self.constants.iter().map(|buffer| &**buffer));
                buffers.push(second.unwrap_or(first));
            }
            Operation::Norm(_) => buffers.extend(self.constants.iter().map(|buffer| &**buffer)),
            Operation::Product(_)
            | Operation::Softmax { .. }
            | Operation::Elementwise { .. }
            | Operation::View => buffers.push(second.unwrap_or(first)),
        }
        buffers.push(result);
        buffers
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
