//! Numbers of a model in the device's memory, one copy of each whoever uses them.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use inferq_shaders::Tile;
use tract_onnx::prelude::f16;
use wgpu::BufferUsages;

use super::device::Opened;
use super::error::GpuError;
use super::layout::{check_size, most_bytes, padded, padded_size, value_bytes};
use super::operation::{Layer, Norm, Operation, Weights};
use crate::resident;

/// The buffers that a step brings with it, in the order of its bindings; of a dense layer those of these columns.
pub(super) fn constants(
    operation: &Operation,
    columns: &Range<usize>,
    gpu: &Opened,
) -> Result<Vec<Arc<wgpu::Buffer>>, GpuError> {
    match operation {
        Operation::Linear(layer) => layer_constants(layer, columns, gpu),
        Operation::Norm(norm) => norm_constants(norm, gpu),
        Operation::Product(_)
        | Operation::Softmax { .. }
        | Operation::Elementwise { .. }
        | Operation::View
        | Operation::Part(_) => Ok(vec![]),
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

/// Columns of the weights that can be bound, and launched, at once.
pub(super) fn panels(layer: &Layer, gpu: &Opened) -> Vec<Range<usize>> {
    let limits = gpu.device.limits();
    let bytes = most_bytes(&limits).min(gpu.largest_panel());
    let of_quad = 4 * words(layer.kept_as, 4) as u64 * layer.inputs.max(1) as u64;
    let [_, narrowest] = Tile::Gemv.size();
    let groups = u64::from(limits.max_compute_workgroups_per_dimension) * u64::from(narrowest);
    // One that is too large all the same is told when it is uploaded.
    let most = (4 * (bytes / of_quad)).clamp(4, groups - groups % 4) as usize;
    let starts = (0..layer.outputs.max(1)).step_by(most);
    starts
        .map(|start| start..layer.outputs.min(start + most))
        .collect()
}

/// Words of a row of weights.
fn words(kept_as: Weights, columns: usize) -> usize {
    match kept_as {
        Weights::F32 => padded_size(columns),
        Weights::F16 | Weights::Half => padded_size(columns) / 2,
        Weights::Int8 => padded_size(columns) / 4,
    }
}

/// Weights and bias; after the bias, for weights in bytes, the largest of each column.
fn layer_constants(
    layer: &Layer,
    columns: &Range<usize>,
    gpu: &Opened,
) -> Result<Vec<Arc<wgpu::Buffer>>, GpuError> {
    let Layer {
        inputs,
        outputs,
        weights,
        bias,
        kept_as,
        ..
    } = layer;
    let expected = inputs.saturating_mul(*outputs);
    check_size("the weight matrix", weights.len(), expected)?;
    check_size("the bias", bias.len(), *outputs)?;
    if weights.is_empty() {
        return Err(GpuError::Empty("the weight matrix"));
    }
    let weights: Cow<'_, [f32]> = if columns.len() == *outputs {
        Cow::Borrowed(weights)
    } else {
        let rows = weights.chunks_exact(*outputs);
        rows.flat_map(|row| &row[columns.clone()])
            .copied()
            .collect()
    };
    let mut bias = bias[columns.clone()].to_vec();
    if *kept_as == Weights::Int8 {
        bias.extend(largest_of_columns(&weights, columns.len()));
    }
    let count = inputs.saturating_mul(words(*kept_as, columns.len()));
    let bytes = value_bytes("the weight matrix", count, gpu)?;
    let layout = format!("matrix {kept_as:?} {inputs} {}", columns.len());
    let digest = resident::digest(&layout, &[&weights]);
    let content = || packed(&weights, columns.len(), *kept_as);
    Ok(vec![
        resident(digest, bytes, content, gpu)?,
        numbers(&bias, gpu)?,
    ])
}

/// Rows of weights as their shader reads them: filled up with zeros to a multiple of four.
fn packed(weights: &[f32], columns: usize, kept_as: Weights) -> Vec<u8> {
    let length = padded_size(columns);
    match kept_as {
        Weights::F32 => padded(weights, columns, length),
        Weights::F16 | Weights::Half => {
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
                usage: BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            gpu.queue.write_buffer(&buffer, 0, &content());
            // The queue keeps its copy until something is submitted.
            gpu.queue.submit([]);
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
