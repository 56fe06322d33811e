//! Dense parts of a model as one operator each, which runs on a graphics card or here.
//!
//! ```text
//! lower       what an operator of the graph is in the words of the card
//! partition   which operators belong together: connected, and convex
//! beside      layers of the same rows as one
//! build       a segment made of them, in the place of them
//! op          the operator: values go up, all steps run, results come down; or the same on the CPU
//! on_card     the steps on the card, uploaded again when its device was lost
//! on_cpu      the same operators on the CPU
//! check       does each step on the card give what it gives on the CPU? bounds: within what; trial: on what
//! tune        which of the two is faster, by number of rows, measured when the model is loaded
//! remembered  the same from a folder, measured at an earlier load
//! used        what the segments of a run did with the card
//! ```
//!
//! What holds everywhere here:
//! - Each segment keeps its operators on the CPU. Whatever goes wrong on the card, the caller sees a result.
//! - A card that fails the check, or is not faster by 15 %, is not used. A software adapter is used
//!   only where it was forced.
//! - Segments are cut out only where there is a card, so that the CPU path loses nothing without one.

mod beside;
mod bounds;
mod build;
mod check;
mod lower;
mod on_card;
mod on_cpu;
mod op;
mod partition;
mod remembered;
mod trial;
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
        // As it is, it runs on the CPU.
        if let Err(error) = build::replace(model, &segment, gpu, settings) {
            tracing::warn!(error = %format!("{error:#}"), "a dense part stays on the CPU, it is nothing for the card");
        }
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

/// Whether a segment of a compiled model runs on the card, for some number of rows at least.
pub(crate) fn uses_card(model: &TypedModel) -> bool {
    let mut segments = model.nodes().iter().filter_map(op::DenseSegment::of);
    segments.any(op::DenseSegment::uses_card)
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
    use crate::model::{Model, Session};
    use crate::plan::OnnxModel;
    use crate::{Element, Tensor};

    fn mlp_on(gpu: &Gpu) -> OnnxModel {
        let limits = LoadLimits {
            gpu: Some(gpu.clone()),
            ..LoadLimits::default()
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/mlp.onnx");
        load_file(&path, &limits).expect("it loads")
    }

    fn open() -> Gpu {
        let gpu = Gpu::open(GpuPolicy::Force, None).expect("Mesa's software Vulkan");
        gpu.expect("it is forced")
    }

    fn run(session: &mut dyn Session, rows: usize) -> Vec<u8> {
        let bytes: Vec<u8> = (0..rows * 8)
            .flat_map(|at| (at as f32 / 100.0).to_le_bytes())
            .collect();
        let input = Tensor::stack(Element::F32, &[rows, 8], &[&bytes]).expect("rows of eight");
        let mut outputs = session.run(vec![input]).expect("whatever the card does");
        outputs.remove(0).bytes().into_owned()
    }

    /// A failure costs its batch nothing but the way over the CPU, and the next one is on the card again.
    fn is_survived(fail: impl Fn(&Gpu), rows: usize) {
        let gpu = open();
        let (model, on_cpu) = (mlp_on(&gpu), mlp_on_cpu());
        let mut session = model.session().expect("a session");
        run(&mut *session, 1);
        assert!(session.device_class().starts_with("gpu:"));
        fail(&gpu);
        let answer = run(&mut *session, rows);
        assert_eq!((session.device_class(), session.fallbacks()), ("cpu", 1));
        let mut session_on_cpu = on_cpu.session().expect("a session");
        assert!(
            answer == run(&mut *session_on_cpu, rows),
            "the CPU's own bits"
        );
        assert_eq!(gpu.failures(), 1);
        run(&mut *session, rows);
        assert!(session.device_class().starts_with("gpu:"));
    }

    fn segment_of(model: &OnnxModel) -> &op::DenseSegment {
        let nodes = model.graph().nodes().iter();
        let mut segments = nodes.filter_map(op::DenseSegment::of);
        segments.next().expect("the model is dense")
    }

    fn mlp_on_cpu() -> OnnxModel {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/mlp.onnx");
        load_file(&path, &LoadLimits::default()).expect("it loads")
    }

    #[test]
    fn a_result_that_cannot_be_read_is_calculated_on_the_cpu() {
        is_survived(Gpu::fail_next_map, 3);
    }

    #[test]
    fn a_batch_for_which_the_card_has_no_memory_is_calculated_on_the_cpu() {
        // Larger than what was there before, so that new buffers are needed.
        is_survived(Gpu::fail_next_allocation, 300);
    }

    #[test]
    fn after_three_failures_the_card_is_left_alone() {
        let gpu = open();
        let model = mlp_on(&gpu);
        let mut session = model.session().expect("a session");
        for _ in 0..3 {
            gpu.fail_next_map();
            run(&mut *session, 1);
            assert_eq!(session.fallbacks(), 1);
        }
        gpu.fail_next_map();
        run(&mut *session, 1);
        assert_eq!((session.device_class(), session.fallbacks()), ("cpu", 0));
        assert!(!gpu.usable());
    }

    /// Software cards are measured nowhere else, since `auto` does not take them and `force` does not ask.
    #[test]
    fn measuring_times_both_sides_at_each_number_of_rows() {
        let model = mlp_on(&open());
        let segment = segment_of(&model);
        let routes = segment.decided(Duration::from_millis(100));
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

    #[test]
    #[ignore = "needs a card that multiplies matrices of f16 by itself; Mesa 26's software adapter does"]
    fn the_cards_own_products_pass_the_check_of_a_model_that_may_use_them() {
        let gpu = Gpu::open_with(GpuPolicy::Force, None, true).expect("an adapter");
        let gpu = gpu.expect("it is forced");
        let own = |deterministic| {
            let limits = LoadLimits {
                gpu: Some(gpu.clone()),
                card: CardSettings {
                    weights: Weights::Half,
                    deterministic,
                },
                ..LoadLimits::default()
            };
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/mlp.onnx");
            let model = load_file(&path, &limits).expect("it loads");
            segment_of(&model)
                .own_product_is_right()
                .expect("all else is right")
        };
        assert_eq!([false, true].map(own), [true, false]);
    }

    #[test]
    fn what_was_measured_once_is_not_measured_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let gpu = open();
        gpu.remember_in(folder.path().join("choices"));
        let decided = |gpu: &Gpu| {
            let model = mlp_on(gpu);
            let segment = segment_of(&model);
            segment
                .decided(Duration::from_millis(50))
                .expect("both sides run")
        };
        let first = decided(&gpu);
        let again = open();
        again.remember_in(folder.path().join("choices"));
        // Times to the nanosecond do not come twice.
        assert_eq!(decided(&again), first);
        let files = std::fs::read_dir(folder.path().join("choices")).expect("it was made");
        let files = files.map(|file| file.expect("a file").path());
        let times = files.filter(|file| file.extension().is_some_and(|ending| ending == "json"));
        let files: Vec<_> = times.collect();
        let [file] = &files[..] else {
            panic!("{files:?}");
        };
        std::fs::write(file, "[]").expect("it is ours");
        assert_ne!(
            decided(&again),
            first,
            "what makes no sense is measured anew"
        );
    }
}
