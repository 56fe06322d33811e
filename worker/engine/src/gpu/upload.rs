//! Numbers of a model in the device's memory, one copy of each whoever uses them.

use std::sync::Arc;

use tract_onnx::prelude::f16;
use wgpu::BufferUsages;

use super::device::Opened;
use super::error::GpuError;
use super::layout::{check_size, padded, padded_size, value_bytes};
use super::operation::{Layer, Norm, Operation, Weights};
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

/// The bias, and after it, for weights in bytes, the largest of each column.
fn bias(layer: &Layer, gpu: &Opened) -> Result<Arc<wgpu::Buffer>, GpuError> {
    check_size("the bias", layer.bias.len(), layer.outputs)?;
    match layer.kept_as {
        Weights::F32 | Weights::F16 => numbers(&layer.bias, gpu),
        Weights::Int8 => {
            let mut values = layer.bias.clone();
            values.extend(largest_of_columns(&layer.weights, layer.outputs));
            numbers(&values, gpu)
        }
    }
}

fn matrix(layer: &Layer, gpu: &Opened) -> Result<Arc<wgpu::Buffer>, GpuError> {
    let Layer {
        inputs,
        outputs,
        weights,
        kept_as,
        ..
    } = layer;
    let expected = inputs.saturating_mul(*outputs);
    check_size("the weight matrix", weights.len(), expected)?;
    if weights.is_empty() {
        return Err(GpuError::Empty("the weight matrix"));
    }
    let words = match kept_as {
        Weights::F32 => padded_size(*outputs),
        Weights::F16 => padded_size(*outputs) / 2,
        Weights::Int8 => padded_size(*outputs) / 4,
    };
    let bytes = value_bytes("the weight matrix", inputs.saturating_mul(words), gpu)?;
    let layout = format!("matrix {kept_as:?} {inputs} {outputs}");
    let digest = resident::digest(&layout, &[weights]);
    resident(digest, bytes, || packed(weights, *outputs, *kept_as), gpu)
}

/// Rows of weights as their shader reads them: filled up with zeros to a multiple of four.
fn packed(weights: &[f32], columns: usize, kept_as: Weights) -> Vec<u8> {
    let length = padded_size(columns);
    match kept_as {
        Weights::F32 => padded(weights, columns, length),
        Weights::F16 => {
            let mut bytes = Vec::with_capacity(weights.len() / columns * length * 2);
            for row in weights.chunks_exact(columns) {
                let halves = row.iter().map(|weight| f16::from_f32(*weight).to_bits());
                let filled = halves.chain(std::iter::repeat(0)).take(length);
                bytes.extend(filled.flat_map(u16::to_le_bytes));
            }
            bytes
        }
        Weights::Int8 => {
            let largest = largest_of_columns(weights, columns);
            let mut bytes = Vec::with_capacity(weights.len() / columns * length);
            for row in weights.chunks_exact(columns) {
                let steps = row.iter().zip(&largest).map(|(weight, largest)| {
                    let step = if *largest > 0.0 {
                        weight / largest * 127.0
                    } else {
                        0.0
                    };
                    // What is no number becomes 0 here; the check at load finds it.
                    (step.round() as i8).cast_unsigned()
                });
                bytes.extend(steps.chain(std::iter::repeat(0)).take(length));
            }
            bytes
        }
    }
}

/// The largest size of a weight, by column.
fn largest_of_columns(weights: &[f32], columns: usize) -> Vec<f32> {
    let mut largest = vec![0f32; columns];
    for row in weights.chunks_exact(columns) {
        for (largest, weight) in largest.iter_mut().zip(row) {
            *largest = largest.max(weight.abs());
        }
    }
    largest
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_packed_in_rows_of_whole_quads() {
        let weights = [1.0, -0.5, 0.25, 0.0, 2.0, -2.0];
        let halves = packed(&weights, 3, Weights::F16);
        let expected: [u16; 8] = [0x3c00, 0xb800, 0x3400, 0, 0, 0x4000, 0xc000, 0];
        assert_eq!(halves, expected.map(u16::to_le_bytes).concat());
        // The largest of the columns are 1, 2 and 2.
        let bytes = packed(&weights, 3, Weights::Int8);
        let bytes: Vec<i8> = bytes.into_iter().map(u8::cast_signed).collect();
        assert_eq!(bytes, [127, -32, 16, 0, 0, 127, -127, 0]);
    }
}
