//! Rows of jobs on their way into a forward pass and out of it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use inferq_engine::RunError;
use inferq_schemas::tensor::{Tensor, TensorSpec};

use crate::batch::Slice;
use crate::models::Version;
use crate::work::{Part, Rows};

/// Copies each row once, into the tensors that the model reads.
pub(super) fn stack_inputs(
    version: &Version,
    slices: &[Slice],
) -> Result<Vec<inferq_engine::Tensor>, RunError> {
    let stack = |input: usize| {
        let first = slices.first().map(|slice| &slice.work.inputs[input]);
        let mut shape = first.map(|tensor| tensor.shape.clone()).unwrap_or_default();
        let rows: Vec<Vec<Bytes>> = slices
            .iter()
            .map(|slice| match &slice.work.rows {
                Rows::Whole => vec![slice.work.inputs[input].data.clone()],
                Rows::Some(indices) => {
                    chosen(&slice.work.inputs[input], &indices[slice.units.clone()])
                }
            })
            .collect();
        let batched = slices.iter().all(|slice| slice.work.rows != Rows::Whole);
        if let (true, Some(first)) = (batched, shape.first_mut()) {
            *first = slices.iter().map(|slice| slice.units.len()).sum();
        }
        let parts: Vec<&[u8]> = rows.iter().flatten().map(|row| &row[..]).collect();
        inferq_engine::Tensor::stack(version.engine.inputs()[input].element, &shape, &parts)
    };
    let stacked: Result<Vec<_>, _> = (0..version.inputs.len()).map(stack).collect();
    stacked.map_err(|error| RunError::Input(error.into()))
}

/// The rows `indices` of `tensor`; all of them in order is the data itself.
fn chosen(tensor: &Tensor, indices: &[usize]) -> Vec<Bytes> {
    let all_in_order = indices.len() == tensor.rows()
        && indices
            .iter()
            .enumerate()
            .all(|(place, index)| place == *index);
    if all_in_order {
        return vec![tensor.data.clone()];
    }
    let rows = tensor.split_rows();
    indices
        .iter()
        .filter_map(|index| rows.get(*index).cloned())
        .collect()
}

pub(super) fn to_wire(spec: &TensorSpec, output: &inferq_engine::Tensor) -> Tensor {
    let data = match output.bytes() {
        Cow::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    Tensor {
        name: spec.name.clone(),
        datatype: spec.datatype,
        shape: output.shape().to_vec(),
        data,
    }
}

/// Gives every work its part of `outputs`.
pub(super) fn hand_out(slices: &[Slice], outputs: &[Tensor], started: Instant, device: &Arc<str>) {
    let compute = started.elapsed();
    let batch_rows = slices
        .iter()
        .map(|slice| slice.work.row_count(&slice.units))
        .sum();
    let part = |outputs| Part {
        outputs,
        compute,
        batch_rows,
        started,
        device: Arc::clone(device),
    };
    if let [only] = slices {
        only.work
            .deliver(only.units.start, only.units.len(), part(outputs.to_vec()));
        return;
    }
    let mut rest: Vec<std::vec::IntoIter<Bytes>> = outputs
        .iter()
        .map(|output| output.split_rows().into_iter())
        .collect();
    let mut cursors = vec![0; outputs.len()];
    for slice in slices {
        let units = slice.units.len();
        let pieces =
            outputs
                .iter()
                .zip(&mut rest)
                .zip(&mut cursors)
                .map(|((output, rest), cursor)| {
                    // Rows follow each other in the data, so a run of them is one slice of it.
                    let bytes: usize = rest.by_ref().take(units).map(|row| row.len()).sum();
                    let data = output.data.slice(*cursor..*cursor + bytes);
                    *cursor += bytes;
                    let mut shape = output.shape.clone();
                    if let Some(first) = shape.first_mut() {
                        *first = units;
                    }
                    Tensor {
                        name: output.name.clone(),
                        datatype: output.datatype,
                        shape,
                        data,
                    }
                });
        slice
            .work
            .deliver(slice.units.start, units, part(pieces.collect()));
    }
}

/// Two halves of `slices` by units, or `None` if there is only one.
pub(super) fn halves(slices: &[Slice]) -> Option<(Vec<Slice>, Vec<Slice>)> {
    let units: usize = slices.iter().map(|slice| slice.units.len()).sum();
    if units < 2 {
        return None;
    }
    let (mut first, mut second, mut left) = (Vec::new(), Vec::new(), units / 2);
    for slice in slices {
        let here = slice.units.len().min(left);
        left -= here;
        let cut = slice.units.start + here;
        if here > 0 {
            first.push(Slice {
                work: slice.work.clone(),
                units: slice.units.start..cut,
            });
        }
        if cut < slice.units.end {
            second.push(Slice {
                work: slice.work.clone(),
                units: cut..slice.units.end,
            });
        }
    }
    Some((first, second))
}
