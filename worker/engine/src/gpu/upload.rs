//! A layer's weights on the device, and what its dispatch tells the shader.

use std::sync::Arc;

use inferq_shaders::{LINEAR, linear};
use wgpu::BufferUsages;

use super::device::Opened;
use super::error::GpuError;
use super::layout::{buffer_bytes, check_groups, check_size, padded, padded_size};
use super::program::{Layer, Step};
use crate::resident;

/// Weights and bias of a layer, in the device's memory.
pub(super) struct OnDevice {
    pub(super) weights: wgpu::Buffer,
    pub(super) bias: wgpu::Buffer,
}

/// A step whose weights are on the device.
pub(super) struct Uploaded {
    pub(super) weights: Arc<OnDevice>,
    pub(super) rows: usize,
    pub(super) residual: Option<usize>,
    pub(super) bounds: Option<(f32, f32)>,
}

impl Uploaded {
    pub(super) fn new(gpu: &Opened, step: &Step) -> Result<Self, GpuError> {
        let Layer {
            inputs,
            outputs,
            weights,
            bias,
            bounds,
        } = &step.layer;
        check_size(
            "the weight matrix",
            weights.len(),
            inputs.saturating_mul(*outputs),
        )?;
        check_size("the bias", bias.len(), *outputs)?;
        if weights.is_empty() {
            return Err(GpuError::Empty("the weight matrix"));
        }
        let bytes = buffer_bytes("the weight matrix", *inputs, *outputs, gpu)?;
        let groups = outputs.div_ceil(linear::TILE_COLUMNS as usize);
        check_groups(
            "the number of columns",
            groups,
            *outputs,
            linear::TILE_COLUMNS,
            gpu,
        )?;
        let digest = resident::digest(&format!("linear {inputs} {outputs}"), &[weights, bias]);
        let upload = || {
            gpu.created(|device| {
                let buffer = |bytes| {
                    device.create_buffer(&wgpu::BufferDescriptor {
                        label: Some("inferq weights"),
                        size: bytes,
                        usage: BufferUsages::STORAGE | BufferUsages::COPY_DST,
                        mapped_at_creation: false,
                    })
                };
                let on_device = OnDevice {
                    weights: buffer(bytes),
                    bias: buffer(4 * padded_size(*outputs) as u64),
                };
                let rows = padded_size(*inputs);
                let weights = padded(weights, *outputs, rows);
                gpu.queue.write_buffer(&on_device.weights, 0, &weights);
                let bias = padded(bias, *outputs, 1);
                gpu.queue.write_buffer(&on_device.bias, 0, &bias);
                on_device
            })
        };
        let weights = gpu.weights.shared(digest, upload)?;
        Ok(Uploaded {
            weights,
            rows: step.rows,
            residual: step.residual,
            bounds: *bounds,
        })
    }

    pub(super) fn immediates(
        &self,
        row_count: usize,
        inputs: usize,
        outputs: usize,
    ) -> [u8; LINEAR.immediate_bytes as usize] {
        let (low, high) = self.bounds.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        let part = |there: bool, part: u32| if there { part } else { 0 };
        let parts = part(self.residual.is_some(), linear::WITH_RESIDUAL)
            | part(low != f32::NEG_INFINITY, linear::WITH_LOW)
            | part(high != f32::INFINITY, linear::WITH_HIGH);
        // The limits checked before keep all of these far below 2^32.
        let fields = [
            row_count as u32,
            (padded_size(inputs) / 4) as u32,
            (padded_size(outputs) / 4) as u32,
            parts,
            low.to_bits(),
            high.to_bits(),
        ];
        let mut bytes = [0; LINEAR.immediate_bytes as usize];
        for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }
}
