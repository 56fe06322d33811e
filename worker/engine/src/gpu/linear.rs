//! The dense layer on a graphics card: weights stay there, rows go up, results come down.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use inferq_shaders::{LINEAR, linear};
use wgpu::BufferUsages;

use super::device::{Gpu, Opened};
use super::error::GpuError;
use super::pipeline::{Pipeline, Workspace, pipeline};

/// Longest wait for one batch. A healthy device answers in milliseconds; software adapters compile for up to a second first.
const PATIENCE: Duration = Duration::from_secs(30);

/// What happens to each sum before it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// Negative values become 0; a NaN stays one.
    Relu,
}

impl Activation {
    fn code(self) -> u32 {
        match self {
            Activation::None => linear::NO_ACTIVATION,
            Activation::Relu => linear::RELU,
        }
    }
}

/// A dense layer whose weights are in the device's memory: `activation(rows · weights + bias)`, `f32`.
///
/// Threads may share it. Each call waits for its own result; calls overlap on the host, the
/// device takes them one after the other.
///
/// Within `sqrt(k) * 2^-24 * sum|row||weight|` of the exact sum, plus 4 units in the last place
/// for bias and activation. A row's bits do not depend on the rows beside it. Numbers below the
/// normal range may be taken as 0.
///
/// Shader: `shaders/linear.wgsl`.
pub struct Linear {
    gpu: Arc<Opened>,
    inputs: usize,
    outputs: usize,
    activation: Activation,
    weights: wgpu::Buffer,
    bias: wgpu::Buffer,
    idle: Mutex<Vec<Workspace>>,
}

impl Linear {
    /// Uploads a layer: `weights` is `[inputs, outputs]` row-major, `bias` is `[outputs]`.
    ///
    /// # Errors
    /// [`GpuError::Shape`] and [`GpuError::Limit`] if the data does not fit the sizes or the device,
    /// [`GpuError::OutOfMemory`], [`GpuError::Lost`] and [`GpuError::Fault`] by the device.
    pub fn new(
        gpu: &Gpu,
        [inputs, outputs]: [usize; 2],
        weights: &[f32],
        bias: &[f32],
        activation: Activation,
    ) -> Result<Self, GpuError> {
        check_values("the weight matrix", weights, inputs.saturating_mul(outputs))?;
        check_values("the bias", bias, outputs)?;
        if weights.is_empty() {
            return Err(GpuError::Empty("the weight matrix"));
        }
        let gpu = Arc::clone(gpu.opened());
        let bytes = buffer_bytes("the weight matrix", inputs, outputs, &gpu)?;
        let groups = outputs.div_ceil(linear::TILE_COLUMNS as usize);
        check_groups(
            "the number of columns",
            groups,
            outputs,
            linear::TILE_COLUMNS,
            &gpu,
        )?;
        let buffer = |device: &wgpu::Device, bytes| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("inferq weights"),
                size: bytes,
                usage: BufferUsages::STORAGE | BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        };
        pipeline(&gpu)?;
        let (weights, bias) = gpu.created(|device| {
            let on_device = buffer(device, bytes);
            gpu.queue.write_buffer(
                &on_device,
                0,
                &padded(weights, outputs, padded_size(inputs)),
            );
            let bias_on_device = buffer(device, 4 * padded_size(outputs) as u64);
            gpu.queue
                .write_buffer(&bias_on_device, 0, &padded(bias, outputs, 1));
            (on_device, bias_on_device)
        })?;
        Ok(Linear {
            gpu,
            inputs,
            outputs,
            activation,
            weights,
            bias,
            idle: Mutex::default(),
        })
    }

    /// Runs the layer over `rows`, which is `[row_count, inputs]` row-major; gives `[row_count, outputs]`.
    ///
    /// # Errors
    /// [`GpuError::Shape`] and [`GpuError::Limit`] before anything is sent; all else means that this
    /// batch has no result and has to be computed elsewhere.
    pub fn run(&self, rows: &[f32], row_count: usize) -> Result<Vec<f32>, GpuError> {
        check_values("the batch", rows, row_count.saturating_mul(self.inputs))?;
        if row_count == 0 {
            return Ok(vec![]);
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
        let bytes = (4 * row_count * padded_size(self.outputs)) as u64;

        let (report, reported) = mpsc::channel();
        let submission = self.gpu.created(|device| {
            self.gpu.queue.write_buffer(
                &workspace.upload,
                0,
                &padded(rows, self.inputs, row_count),
            );
            let mut commands =
                device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            {
                let mut pass = commands.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                pass.set_pipeline(&pipeline.pipeline);
                pass.set_bind_group(0, &workspace.bindings, &[]);
                pass.set_immediates(0, &self.immediates(row_count));
                let columns = self.outputs.div_ceil(linear::TILE_COLUMNS as usize);
                pass.dispatch_workgroups(columns as u32, groups as u32, 1);
            }
            commands.copy_buffer_to_buffer(
                &workspace.result,
                0,
                &workspace.download,
                0,
                Some(bytes),
            );
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
            Ok(_) => reported.recv_timeout(PATIENCE).ok(),
            Err(_) => reported.try_recv().ok(),
        };
        match (outcome, waited) {
            (Some(Ok(())), Ok(_)) => {
                let result = self.read(&workspace, bytes);
                workspace.download.unmap();
                self.idle().push(workspace);
                result
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

    fn immediates(&self, row_count: usize) -> [u8; LINEAR.immediate_bytes as usize] {
        // The limits checked before keep all of these far below 2^32.
        let fields = [
            row_count as u32,
            (padded_size(self.inputs) / 4) as u32,
            (padded_size(self.outputs) / 4) as u32,
            self.activation.code(),
        ];
        let mut bytes = [0; LINEAR.immediate_bytes as usize];
        for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }

    fn read(&self, workspace: &Workspace, bytes: u64) -> Result<Vec<f32>, GpuError> {
        let mapped = workspace
            .download
            .slice(..bytes)
            .get_mapped_range()
            .map_err(|error| GpuError::Fault(error.to_string()))?;
        let rows = mapped.chunks_exact(4 * padded_size(self.outputs));
        let values = rows.flat_map(|row| row[..4 * self.outputs].chunks_exact(4));
        Ok(values
            .map(|value| f32::from_ne_bytes([value[0], value[1], value[2], value[3]]))
            .collect())
    }

    /// A workspace of the next power of two, from the idle ones where there is one.
    fn workspace(&self, pipeline: &Pipeline, row_count: usize) -> Result<Workspace, GpuError> {
        let rows = row_count.next_power_of_two();
        let mut idle = self.idle();
        if let Some(at) = idle.iter().position(|workspace| workspace.rows == rows) {
            return Ok(idle.swap_remove(at));
        }
        drop(idle);
        let up = buffer_bytes("the batch", rows, self.inputs, &self.gpu)?;
        let down = buffer_bytes("the result", rows, self.outputs, &self.gpu)?;
        self.gpu.created(|device| {
            let buffer = |bytes, usage| {
                device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("inferq workspace"),
                    size: bytes,
                    usage,
                    mapped_at_creation: false,
                })
            };
            let upload = buffer(up, BufferUsages::STORAGE | BufferUsages::COPY_DST);
            let result = buffer(down, BufferUsages::STORAGE | BufferUsages::COPY_SRC);
            let download = buffer(down, BufferUsages::MAP_READ | BufferUsages::COPY_DST);
            let buffers = [&upload, &self.weights, &self.bias, &result];
            let entries: Vec<_> = (0..)
                .zip(buffers)
                .map(|(binding, buffer)| wgpu::BindGroupEntry {
                    binding,
                    resource: buffer.as_entire_binding(),
                })
                .collect();
            let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("inferq linear"),
                layout: &pipeline.layout,
                entries: &entries,
            });
            Workspace {
                rows,
                upload,
                result,
                download,
                bindings,
            }
        })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Workspace>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Linear([{}, {}], {:?})",
            self.inputs, self.outputs, self.activation
        )
    }
}

fn check_values(what: &'static str, values: &[f32], expected: usize) -> Result<(), GpuError> {
    let got = values.len();
    if got == expected {
        return Ok(());
    }
    Err(GpuError::Shape {
        what,
        got,
        expected,
    })
}

fn check_groups(
    what: &'static str,
    groups: usize,
    got: usize,
    per_group: u32,
    gpu: &Opened,
) -> Result<(), GpuError> {
    let limit = gpu.device.limits().max_compute_workgroups_per_dimension;
    if groups as u64 <= u64::from(limit) {
        return Ok(());
    }
    Err(GpuError::Limit {
        what,
        got: got as u64,
        limit: u64::from(limit) * u64::from(per_group),
    })
}

/// Bytes of a padded matrix, if the device can bind that many at once.
fn buffer_bytes(
    what: &'static str,
    rows: usize,
    columns: usize,
    gpu: &Opened,
) -> Result<u64, GpuError> {
    let limits = gpu.device.limits();
    let limit = limits
        .max_storage_buffer_binding_size
        .min(limits.max_buffer_size);
    let got = (padded_size(rows) as u64)
        .saturating_mul(padded_size(columns) as u64)
        .saturating_mul(4);
    if got <= limit {
        Ok(got)
    } else {
        Err(GpuError::Limit { what, got, limit })
    }
}

/// Sizes on the device are multiples of four, as the shader reads four values at a time.
fn padded_size(size: usize) -> usize {
    size.next_multiple_of(4)
}

/// A matrix as bytes: rows filled up with zeros to a multiple of four columns, and rows of zeros up to `rows`.
fn padded(values: &[f32], columns: usize, rows: usize) -> Vec<u8> {
    let row_bytes = 4 * padded_size(columns);
    let mut bytes = vec![0; row_bytes * rows];
    for (row, values) in bytes
        .chunks_exact_mut(row_bytes)
        .zip(values.chunks_exact(columns))
    {
        for (place, value) in row.chunks_exact_mut(4).zip(values) {
            place.copy_from_slice(&value.to_ne_bytes());
        }
    }
    bytes
}
