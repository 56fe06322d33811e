//! How numbers lie in the device's memory, and whether they fit there.

use super::device::Opened;
use super::error::GpuError;

pub(super) fn check_size(what: &'static str, got: usize, expected: usize) -> Result<(), GpuError> {
    if got == expected {
        return Ok(());
    }
    Err(GpuError::Shape {
        what,
        got,
        expected,
    })
}

pub(super) fn check_groups(
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

/// Most bytes that can be bound at once, in whole numbers: drivers say 2^31 - 1.
pub(super) fn most_bytes(limits: &wgpu::Limits) -> u64 {
    let most = limits
        .max_storage_buffer_binding_size
        .min(limits.max_buffer_size);
    most - most % 4
}

/// Bytes of so many numbers, if the device can bind that many at once. No buffer is empty.
pub(super) fn value_bytes(what: &'static str, count: usize, gpu: &Opened) -> Result<u64, GpuError> {
    let limit = most_bytes(&gpu.device.limits());
    let got = (count.max(1) as u64).saturating_mul(4);
    if got <= limit {
        Ok(got)
    } else {
        Err(GpuError::Limit { what, got, limit })
    }
}

/// Rows of weights are multiples of four long, as the shader reads four values at a time.
pub(super) fn padded_size(size: usize) -> usize {
    size.next_multiple_of(4)
}

/// Rows of `columns` values as bytes, each filled up with zeros to `length` values.
pub(super) fn padded(values: &[f32], columns: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; 4 * length * (values.len() / columns.max(1))];
    let rows = bytes.chunks_exact_mut(4 * length.max(1));
    for (row, values) in rows.zip(values.chunks_exact(columns.max(1))) {
        for (place, value) in row.chunks_exact_mut(4).zip(values) {
            place.copy_from_slice(&value.to_ne_bytes());
        }
    }
    bytes
}
