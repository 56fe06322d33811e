//! Numbers of a model in the device's memory, one copy of each whoever uses them.

use std::sync::Arc;

use wgpu::BufferUsages;

use super::device::Opened;
use super::error::GpuError;
use super::layout::{check_size, matrix_bytes, padded, padded_size, value_bytes};
use super::operation::{Layer, Norm, Operation};
use crate::resident;

/// The buffers that a step brings with it, in the order of its bindings.
pub(super) fn constants(
    operation: &Operation,
    gpu: &Opened,
) -> Result<Vec<Arc<wgpu::Buffer>>, GpuError> {
    match operation {
        Operation::Linear(layer) => Ok(vec![matrix(layer, gpu)?, bias(layer, gpu)?]),
        Operation::Norm(norm) => norm_constants(norm, gpu),
        Operation::Product(_)
        | Operation::Softmax { .. }
        | Operation::Elementwise { .. }
        | Operation::View => Ok(vec![]),
    }
}

/// Scale and shift, or one in the other's place where there is but one.
fn norm_constants(norm: &Norm, gpu: &Opened) -> Result<Vec<Arc<wgpu::Buffer>>, GpuError> {
    for values in [&norm.scale, &norm.shift].into_iter().flatten() {
        check_size("what a norm multiplies or adds", values.len(), norm.columns)?;
    }
    if norm.columns == 0 {
        return Err(GpuError::Empty("the row of a norm"));
    }
    let present = [&norm.scale, &norm.shift].map(|values| values.as_deref());
    let any = present[0].or(present[1]).unwrap_or(&[0.0]);
    let buffers = present.map(|values| numbers(values.unwrap_or(any), gpu));
    buffers.into_iter().collect()
}

fn bias(layer: &Layer, gpu: &Opened) -> Result<Arc<wgpu::Buffer>, GpuError> {
    check_size("the bias", layer.bias.len(), layer.outputs)?;
    numbers(&layer.bias, gpu)
}

fn matrix(layer: &Layer, gpu: &Opened) -> Result<Arc<wgpu::Buffer>, GpuError> {
    let Layer {
        inputs,
        outputs,
        weights,
        ..
    } = layer;
    let expected = inputs.saturating_mul(*outputs);
    check_size("the weight matrix", weights.len(), expected)?;
    if weights.is_empty() {
        return Err(GpuError::Empty("the weight matrix"));
    }
    let bytes = matrix_bytes("the weight matrix", *inputs, *outputs, gpu)?;
    let digest = resident::digest(&format!("matrix {inputs} {outputs}"), &[weights]);
    let content = || padded(weights, *outputs, padded_size(*outputs));
    resident(digest, bytes, content, gpu)
}

/// Numbers one after the other.
pub(super) fn numbers(values: &[f32], gpu: &Opened) -> Result<Arc<wgpu::Buffer>, GpuError> {
    let bytes = value_bytes("a constant", values.len(), gpu)?;
    let digest = resident::digest("numbers", &[values]);
    let content = || padded(values, values.len(), values.len());
    resident(digest, bytes, content, gpu)
}

fn resident(
    digest: resident::Digest,
    bytes: u64,
    content: impl FnOnce() -> Vec<u8>,
    gpu: &Opened,
) -> Result<Arc<wgpu::Buffer>, GpuError> {
    gpu.resident.shared(digest, || {
        gpu.created(|device| {
            let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("inferq constants"),
                size: bytes,
                usage: BufferUsages::STORAGE | BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            gpu.queue.write_buffer(&buffer, 0, &content());
            buffer
        })
    })
}
