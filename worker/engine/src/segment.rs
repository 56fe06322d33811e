//! Dense parts of a model as one operator each, which runs on a graphics card or here.
//!
//! ```text
//! partition   which dense layers of the graph belong together: connected, and convex
//! op          the operator: rows go up, all layers run, results come down; or the same layers on the CPU
//! check       is what the card gives within the bound of what the CPU gives?
//! tune        which of the two is faster, by number of rows, measured when the model is loaded
//! ```
//!
//! What holds everywhere here:
//! - Each segment keeps its layers on the CPU. Whatever goes wrong on the card, the caller sees a result.
//! - A card that fails the check, or is not faster by 15 %, is not used. A software adapter is used
//!   only where it was forced.
//! - Segments are cut out only where there is a card, so that the CPU path loses nothing without one.

mod check;
mod op;
mod partition;
mod tune;

use tract_onnx::prelude::{TractResult, TypedModel};

use crate::gpu::Gpu;
use crate::model::SegmentReport;

pub(crate) use op::{CardUse, take_use};

/// Cuts the dense segments out of `model` for `gpu`; all of them run on the CPU until [`settle`].
pub(crate) fn cut(model: &mut TypedModel, gpu: &Gpu) -> TractResult<()> {
    for segment in partition::segments(model)? {
        op::replace(model, &segment, gpu)?;
    }
    model.prop_consts()?;
    model.compact()
}

/// Checks each segment of a compiled model on the card and decides where it runs.
pub(crate) fn settle(model: &TypedModel) {
    let segments: Vec<_> = model
        .nodes()
        .iter()
        .filter_map(op::DenseSegment::of)
        .collect();
    let budget = tune::BUDGET / u32::try_from(segments.len().max(1)).unwrap_or(u32::MAX);
    for segment in segments {
        segment.settle(budget);
    }
}

/// What became of each segment of a compiled model.
pub(crate) fn reports(model: &TypedModel) -> Vec<SegmentReport> {
    let segments = model.nodes().iter().filter_map(op::DenseSegment::of);
    segments.map(op::DenseSegment::report).collect()
}
