//! Dense layers of the same rows that become one: queries, keys and values of attention.
//!
//! Their columns stand beside each other in one product, which reads the rows once and keeps more of a card busy.
//! What each layer gives is then some columns of wider rows, and products alone read such; so layers are put
//! together only where nothing else reads them.

use std::collections::HashSet;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::change_axes::AxisOp;

use super::lower;
use crate::cpu::dense::Dense;
use crate::gpu::Operation;

/// A group has at most so many times as many columns as its rows: as wide as the widest layer of a usual encoder. What
/// all layers of a decoder make of the same encoded rows would be wider than a card can bind.
const MOST_COLUMNS: usize = 4;

/// The layers among `nodes` that become one, at least two each, in the order of evaluation.
pub(super) fn groups(
    model: &TypedModel,
    nodes: &[usize],
    inside: &HashSet<usize>,
) -> TractResult<Vec<Vec<usize>>> {
    let mut groups: Vec<Vec<usize>> = vec![];
    for id in nodes {
        let node = model.node(*id);
        let Some(dense) = node.op_as::<Dense>() else {
            continue;
        };
        let rows = node.outputs[0].fact.rank() - dense.columns().len();
        // A residual or a bound of its own is not that of the others.
        let alone = node.inputs.len() > 1 || dense.bounds().is_some();
        if alone || !only_products_read(model, *id, rows, inside)? {
            continue;
        }
        let same = |group: &&mut Vec<usize>| {
            let first = model.node(group[0]);
            let inner = first.op_as::<Dense>().map(Dense::inner);
            let layers = group.iter().chain([id]);
            let layers = layers.filter_map(|id| model.node(*id).op_as::<Dense>());
            let columns: usize = layers.map(|layer| layer.weights().n()).sum();
            first.inputs == node.inputs
                && inner == Some(dense.inner())
                && columns <= MOST_COLUMNS * dense.weights().k()
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(*id),
            None => groups.push(vec![*id]),
        }
    }
    groups.retain(|group| group.len() > 1);
    Ok(groups)
}

/// Whether nothing but products of the segment needs what `node` gives, or views of it that leave its first `rows` axes
/// as they are.
fn only_products_read(
    model: &TypedModel,
    node: usize,
    rows: usize,
    inside: &HashSet<usize>,
) -> TractResult<bool> {
    let output = &model.node(node).outputs[0];
    if output.successors.is_empty() || model.outputs.contains(&node.into()) {
        return Ok(false);
    }
    for reader in &output.successors {
        let reader = model.node(reader.node);
        if !inside.contains(&reader.id) {
            return Ok(false);
        }
        let may = match reader.op_as::<AxisOp>() {
            Some(AxisOp::Add(axis) | AxisOp::Rm(axis) | AxisOp::Reshape(axis, ..)) => {
                *axis >= rows && only_products_read(model, reader.id, rows, inside)?
            }
            Some(AxisOp::Move(..)) => false,
            None => {
                let lowered = lower::lower(model, reader)?;
                lowered.is_some_and(|is| matches!(is.operation, Operation::Product(_)))
            }
        };
        if !may {
            return Ok(false);
        }
    }
    Ok(true)
}
