//! How matrices lie in the device's memory, and whether they fit there.

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

/// Bytes of a padded matrix, if the device can bind that many at once.
pub(super) fn buffer_bytes(
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

/// Bytes of a value's rows on the device.
pub(super) fn value_bytes(rows: usize, columns: usize) -> u64 {
    4 * rows as u64 * padded_size(columns) as u64
}

/// Sizes on the device are multiples of four, as the shader reads four values at a time.
pub(super) fn padded_size(size: usize) -> usize {
    size.next_multiple_of(4)
}

/// A matrix as bytes: rows filled up with zeros to a multiple of four columns, and rows of zeros up to `rows`.
pub(super) fn padded(values: &[f32], columns: usize, rows: usize) -> Vec<u8> {
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
