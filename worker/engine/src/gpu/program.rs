//! Dense layers in a row on a graphics card: weights stay there, rows go up once, results come down once.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use inferq_shaders::linear;
use wgpu::BufferUsages;

use super::device::{Gpu, Opened};
use super::error::GpuError;
use super::layout::{buffer_bytes, check_groups, check_size, padded, padded_size, value_bytes};
use super::pipeline::{Pipeline, Workspace, pipeline};
use super::upload::{OnDevice, Uploaded};

/// Longest wait for one batch. A healthy device answers in milliseconds; software adapters compile for up to a
/// second first. Well below the 60 s that a worker gives a whole run.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest that another thread takes to deliver the report of a submission that has ended.
const DELIVERY: Duration = Duration::from_secs(1);

/// A dense layer: `bounded(rows · weights + bias + residual)`, `f32`.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// Columns of its rows.
    pub inputs: usize,
    /// Columns of its result.
    pub outputs: usize,
    /// `[inputs, outputs]`, row-major.
    pub weights: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
    /// Lower and upper bound; infinite where there is none. A NaN stays one.
    pub bounds: Option<(f32, f32)>,
}

/// One layer of a program and what it works on: values by their number.
///
/// The inputs of the program are the first values; each step makes the next one.
#[derive(Debug, Clone)]
pub struct Step {
    /// The layer.
    pub layer: Layer,
    /// The value that holds its rows.
    pub rows: usize,
    /// The value that is added, shaped like the result.
    pub residual: Option<usize>,
}

/// Steps that run on a device without coming back in between.
///
/// Threads may share it. Each call waits for its own result; calls overlap on the host, the
/// device takes them one after the other.
///
/// Each step is within `sqrt(k) * 2^-24 * sum|row||weight|` of the exact sum over what it was given,
/// plus 4 units in the last place for what comes after it. A row's bits do not depend on the rows
/// beside it. Numbers below the normal range may be taken as 0.
///
/// Shader: `shaders/linear.wgsl`.
pub struct Program {
    gpu: Arc<Opened>,
    /// Columns of each value.
    columns: Vec<usize>,
    inputs: usize,
    outputs: Vec<usize>,
    steps: Vec<Uploaded>,
    idle: Mutex<Vec<Workspace>>,
}

impl Program {
    /// Uploads the weights of `steps`. `inputs` are the columns of the program's inputs; `outputs` names the values that come down.
    ///
    /// # Errors
    /// [`GpuError::Shape`], [`GpuError::Empty`] and [`GpuError::Limit`] if the data does not fit the sizes or
    /// the device, [`GpuError::OutOfMemory`], [`GpuError::Lost`] and [`GpuError::Fault`] by the device.
    pub fn new(
        gpu: &Gpu,
        inputs: &[usize],
        steps: &[Step],
        outputs: &[usize],
    ) -> Result<Self, GpuError> {
        let gpu = Arc::clone(gpu.opened());
        pipeline(&gpu)?;
        let mut columns = inputs.to_vec();
        let mut uploaded = Vec::with_capacity(steps.len());
        for step in steps {
            let layer = &step.layer;
            let given = |value: usize| columns.get(value).copied().unwrap_or(0);
            check_size("the rows of a layer", given(step.rows), layer.inputs)?;
            if let Some(residual) = step.residual {
                check_size("the residual of a layer", given(residual), layer.outputs)?;
            }
            uploaded.push(Uploaded::new(&gpu, step)?);
            columns.push(layer.outputs);
        }
        for output in outputs {
            if *output >= columns.len() {
                return Err(GpuError::Empty("an output"));
            }
        }
        Ok(Program {
            gpu,
            columns,
            inputs: inputs.len(),
            outputs: outputs.to_vec(),
            steps: uploaded,
            idle: Mutex::default(),
        })
    }

    /// Runs all steps over `row_count` rows, each input `[row_count, columns]` row-major; gives the outputs alike.
    ///
    /// # Errors
    /// [`GpuError::Shape`] and [`GpuError::Limit`] before anything is sent; all else means that this
    /// batch has no result and has to be computed elsewhere.
    pub fn run(&self, inputs: &[&[f32]], row_count: usize) -> Result<Vec<Vec<f32>>, GpuError> {
        check_size("the list of inputs", inputs.len(), self.inputs)?;
        for (input, columns) in inputs.iter().zip(&self.columns) {
            check_size("the batch", input.len(), row_count.saturating_mul(*columns))?;
        }
        if row_count == 0 {
            return Ok(vec![vec![]; self.outputs.len()]);
        }
        let groups = row_count.div_ceil(linear::TILE_ROWS as usize);
        check_groups(
            "the number of rows",
            groups,
            row_count,
            linear::TILE_ROWS,
            &self.gpu,
        )?;
        let pipeline = pipeline(&self.gpu)?;
        let workspace = self.workspace(pipeline, row_count)?;
        let bytes = self.output_bytes(row_count);
        let (report, reported) = mpsc::channel();
        let submission = self.gpu.created(|device| {
            for ((input, columns), buffer) in
                inputs.iter().zip(&self.columns).zip(&workspace.values)
            {
                self.gpu
                    .queue
                    .write_buffer(buffer, 0, &padded(input, *columns, row_count));
            }
            let mut commands =
                device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            self.record(&mut commands, pipeline, &workspace, row_count);
            commands.map_buffer_on_submit(
                &workspace.download,
                wgpu::MapMode::Read,
                0..bytes,
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
        match (outcome, waited) {
            (Some(Ok(())), Ok(_)) => {
                let results = self.read(&workspace, row_count);
                workspace.download.unmap();
                self.idle().push(workspace);
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

    /// One pass with a dispatch per step, and the copies of what comes down.
    fn record(
        &self,
        commands: &mut wgpu::CommandEncoder,
        pipeline: &Pipeline,
        workspace: &Workspace,
        row_count: usize,
    ) {
        {
            let mut pass = commands.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline.pipeline);
            for (number, (step, bindings)) in self.steps.iter().zip(&workspace.bindings).enumerate()
            {
                let outputs = self.columns[self.inputs + number];
                pass.set_bind_group(0, bindings, &[]);
                pass.set_immediates(
                    0,
                    &step.immediates(row_count, self.columns[step.rows], outputs),
                );
                let columns = outputs.div_ceil(linear::TILE_COLUMNS as usize);
                let groups = row_count.div_ceil(linear::TILE_ROWS as usize);
                pass.dispatch_workgroups(columns as u32, groups as u32, 1);
            }
        }
        let mut start = 0;
        for output in &self.outputs {
            let bytes = value_bytes(row_count, self.columns[*output]);
            commands.copy_buffer_to_buffer(
                &workspace.values[*output],
                0,
                &workspace.download,
                start,
                Some(bytes),
            );
            start += bytes;
        }
    }

    fn output_bytes(&self, row_count: usize) -> u64 {
        let sizes = self.outputs.iter().map(|output| self.columns[*output]);
        sizes.map(|columns| value_bytes(row_count, columns)).sum()
    }

    fn read(&self, workspace: &Workspace, row_count: usize) -> Result<Vec<Vec<f32>>, GpuError> {
        let mapped = workspace
            .download
            .slice(..self.output_bytes(row_count))
            .get_mapped_range()
            .map_err(|error| GpuError::Fault(error.to_string()))?;
        let mut rest = &mapped[..];
        let mut results = Vec::with_capacity(self.outputs.len());
        for output in &self.outputs {
            let columns = self.columns[*output];
            let row_bytes = 4 * padded_size(columns);
            let (own, after) = rest.split_at(row_bytes * row_count);
            rest = after;
            let rows = own.chunks_exact(row_bytes);
            let values = rows.flat_map(|row| row[..4 * columns].chunks_exact(4));
            let values =
                values.map(|value| f32::from_ne_bytes([value[0], value[1], value[2], value[3]]));
            results.push(values.collect());
        }
        Ok(results)
    }

    /// A workspace of the next power of two, or as large as needed where that is too much; from the idle
    /// ones where there is one.
    fn workspace(&self, pipeline: &Pipeline, row_count: usize) -> Result<Workspace, GpuError> {
        let fits = |rows| {
            let sizes = self
                .columns
                .iter()
                .map(|columns| buffer_bytes("the batch", rows, *columns, &self.gpu));
            sizes.collect::<Result<Vec<u64>, _>>()
        };
        let (rows, sizes) = match fits(row_count.next_power_of_two()) {
            Ok(sizes) => (row_count.next_power_of_two(), sizes),
            Err(_) => (row_count, fits(row_count)?),
        };
        let mut idle = self.idle();
        if let Some(at) = idle.iter().position(|workspace| workspace.rows == rows) {
            return Ok(idle.swap_remove(at));
        }
        drop(idle);
        self.gpu.created(|device| {
            let buffer = |bytes, usage| {
                device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("inferq workspace"),
                    size: bytes,
                    usage,
                    mapped_at_creation: false,
                })
            };
            let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
            let values: Vec<_> = sizes.iter().map(|bytes| buffer(*bytes, usage)).collect();
            let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
            let download = buffer(self.output_bytes(rows), usage);
            let bindings = self.steps.iter().enumerate().map(|(number, step)| {
                let OnDevice { weights, bias } = &*step.weights;
                let residual = step.residual.map_or(bias, |value| &values[value]);
                let result = &values[self.inputs + number];
                let buffers = [&values[step.rows], weights, bias, residual, result];
                let entries: Vec<_> = (0..)
                    .zip(buffers)
                    .map(|(binding, buffer)| wgpu::BindGroupEntry {
                        binding,
                        resource: buffer.as_entire_binding(),
                    })
                    .collect();
                device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some("inferq linear"),
                    layout: &pipeline.layout,
                    entries: &entries,
                })
            });
            let bindings = bindings.collect();
            Workspace {
                rows,
                values,
                download,
                bindings,
            }
        })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Workspace>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Program({} steps, columns {:?})",
            self.steps.len(),
            self.columns
        )
    }
}
