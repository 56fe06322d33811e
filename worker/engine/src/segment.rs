//! Dense parts of a model as one operator each, which runs on a graphics card or here.
//!
//! ```text
//! lower       what an operator of the graph is in the words of the card
//! partition   which operators belong together: connected, and convex
//! build       a segment made of them, in the place of them
//! op          the operator: values go up, all steps run, results come down; or the same on the CPU
//! on_cpu      the same operators on the CPU
//! check       does each step on the card give what it gives on the CPU, within its bound? bounds
//! tune        which of the two is faster, by number of rows, measured when the model is loaded
//! used        what the segments of a run did with the card
//! ```
//!
//! What holds everywhere here:
//! - Each segment keeps its operators on the CPU. Whatever goes wrong on the card, the caller sees a result.
//! - A card that fails the check, or is not faster by 15 %, is not used. A software adapter is used
//!   only where it was forced.
//! - Segments are cut out only where there is a card, so that the CPU path loses nothing without one.

mod bounds;
mod build;
mod check;
mod lower;
mod on_cpu;
mod op;
mod partition;
mod tune;
mod used;

use tract_onnx::prelude::{TractResult, TypedModel};

use crate::gpu::{Gpu, Weights};
use crate::model::SegmentReport;

pub(crate) use used::{CardUse, take_use};

/// How a model uses the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CardSettings {
    /// How weights of dense layers are kept there. Smaller ones are read faster and are less exact.
    pub weights: Weights,
    /// Whether equal rows have equal bits in batches of any size: kernels that add up alike, and all runs either
    /// on the card or on the CPU. Only a failure of the card still moves a batch to the CPU.
    pub deterministic: bool,
}

/// Cuts the dense segments out of `model` for `gpu`; all of them run on the CPU until [`settle`].
pub(crate) fn cut(model: &mut TypedModel, gpu: &Gpu, settings: CardSettings) -> TractResult<()> {
    for segment in partition::segments(model)? {
        build::replace(model, &segment, gpu, settings)?;
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::gpu::GpuPolicy;
    use crate::load::{LoadLimits, load_file};

    /// Software cards are measured nowhere else, since `auto` does not take them and `force` does not ask.
    #[test]
    fn measuring_times_both_sides_at_each_number_of_rows() {
        let gpu = Gpu::open(GpuPolicy::Force, None).expect("Mesa's software Vulkan");
        let limits = LoadLimits {
            gpu,
            ..LoadLimits::default()
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/mlp.onnx");
        let model = load_file(&path, &limits).expect("it loads");
        let mut segments = model
            .graph()
            .nodes()
            .iter()
            .filter_map(op::DenseSegment::of);
        let segment = segments.next().expect("the model is dense");
        let routes = tune::measure(segment.segment(), Duration::from_millis(100));
        let told = routes.expect("both sides run").to_string();
        for rows in [
            "1 rows: ",
            "4 rows: ",
            "16 rows: ",
            "64 rows: ",
            "256 rows: ",
        ] {
            assert!(told.contains(rows), "{told}");
        }
        assert_eq!(told.matches("(CPU ").count(), 5, "{told}");
    }
}
