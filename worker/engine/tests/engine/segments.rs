//! Whole models with their dense parts on whatever adapter there is, Mesa's software one included.

use std::time::{Duration, Instant};

use inferq_engine::gpu::{Gpu, Weights};
use inferq_engine::{BatchProof, CardSettings, LoadLimits, Model, OnnxModel, Tensor, load_file};

use crate::answers::{WITH_ANSWERS, assert_answers};
use crate::cases::{model, path, run_by_onnx_runtime};
use crate::gpu::{gpu, open};

fn on_card(name: &str, gpu: &Gpu) -> OnnxModel {
    on_card_with(name, gpu, CardSettings::default())
}

fn on_card_with(name: &str, gpu: &Gpu, card: CardSettings) -> OnnxModel {
    let limits = LoadLimits {
        gpu: Some(gpu.clone()),
        card,
        ..LoadLimits::default()
    };
    load_file(&path(&format!("{name}.onnx")), &limits)
        .unwrap_or_else(|error| panic!("{name}.onnx: {error}"))
}

fn inputs(name: &str) -> Vec<Tensor> {
    let (inputs, _) = run_by_onnx_runtime(name);
    inputs.iter().map(|input| input.tensor()).collect()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    let bytes = tensor.bytes();
    let values = bytes.chunks_exact(4);
    values
        .map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]]))
        .collect()
}

#[test]
fn every_model_gives_the_same_answers_with_its_dense_parts_on_the_card() {
    for name in WITH_ANSWERS {
        let on_card = on_card(name, gpu());
        assert_answers(name, &on_card);
        for segment in on_card.segments() {
            assert_eq!(segment.decision, "on the card, as it is forced", "{name}");
        }
        let proven = model(name).batch_proof().is_proven();
        assert_eq!(on_card.batch_proof().is_proven(), proven, "{name}");
    }
}

#[test]
fn layers_in_a_row_are_one_segment_and_the_run_says_where_it_was() {
    let mlp = on_card("mlp", gpu());
    let segments = mlp.segments();
    let [segment] = &segments[..] else {
        panic!("{segments:?}");
    };
    assert!(segment.layers.len() > 1, "{segment:?}");
    assert_eq!(segment.decision, "on the card, as it is forced");
    let mut session = mlp.session().expect("a session");
    session.run(inputs("mlp")).expect("it runs");
    let name = &gpu().info().name;
    assert_eq!(session.device_class(), format!("gpu:{name}"));
    assert_eq!(session.fallbacks(), 0);
    assert_eq!(*mlp.batch_proof(), BatchProof::Proven);
}

#[test]
fn an_encoder_is_one_segment() {
    for name in ["encoder", "old_encoder"] {
        let segments = on_card(name, gpu()).segments();
        let [segment] = &segments[..] else {
            panic!("{name}: {segments:#?}");
        };
        // Queries, keys and values are one.
        assert_eq!(segment.layers.len(), 4, "{name}: {segment:?}");
        let [inner, outer] = segment.layers[0];
        assert_eq!(outer, 3 * inner, "{name}: {segment:?}");
        assert_eq!(segment.decision, "on the card, as it is forced", "{name}");
    }
}

#[test]
fn layers_of_unlike_widths_are_one_and_the_scale_of_each_is_that_of_the_scores() {
    let segments = on_card("scaled_heads", gpu()).segments();
    let [segment] = &segments[..] else {
        panic!("{segments:#?}");
    };
    // Three heads of queries, one of keys and one of values.
    assert_eq!(segment.layers, [[12, 20], [12, 12]]);
    // The layers as one and what each gives, heads of the queries, scores, softmax, what it makes of the values, the
    // last layer: no scale.
    assert_eq!(segment.steps, 9, "{segment:?}");
}

#[test]
fn smaller_weights_on_the_card_stay_close_and_say_so_in_nothing_else() {
    let exact = model("mlp")
        .session()
        .expect("a session")
        .run(inputs("mlp"));
    let exact = floats(&exact.expect("it runs")[0]);
    let kinds = [
        (Weights::F16, 2e-3),
        (Weights::Half, 4e-3),
        (Weights::Int8, 3e-2),
    ];
    for (weights, allowed) in kinds {
        let card = CardSettings {
            weights,
            ..CardSettings::default()
        };
        let small = on_card_with("mlp", gpu(), card);
        assert_eq!(small.segments()[0].decision, "on the card, as it is forced");
        let found = small.session().expect("a session").run(inputs("mlp"));
        let found = floats(&found.expect("it runs")[0]);
        let largest = exact
            .iter()
            .zip(&found)
            .map(|(exact, found)| (exact - found).abs());
        let largest = largest.fold(0f32, f32::max);
        assert!(largest > 0.0 && largest < allowed, "{weights:?}: {largest}");
    }
}

#[test]
fn a_deterministic_model_gives_a_row_the_same_bits_in_a_batch_of_any_size() {
    let card = CardSettings {
        deterministic: true,
        ..CardSettings::default()
    };
    for name in ["mlp", "old_encoder", "gates"] {
        let model = on_card_with(name, gpu(), card);
        assert!(model.numeric_class().starts_with("gpu:"), "{name}");
        let mut session = model.session().expect("a session");
        let batch = inputs(name);
        let together = session.run(batch.clone()).expect("it runs");
        let rows = together[0].shape()[0];
        for row in 0..rows {
            let alone = batch.iter().map(|input| {
                let bytes = input.bytes();
                let length = bytes.len() / rows;
                let mut shape = input.shape().to_vec();
                shape[0] = 1;
                let own = &bytes[row * length..][..length];
                Tensor::stack(input.element(), &shape, &[own]).expect("a row of it")
            });
            let alone = session.run(alone.collect()).expect("it runs");
            assert!(session.device_class().starts_with("gpu:"), "{name}");
            let all = together[0].bytes();
            let length = all.len() / rows;
            assert_eq!(
                alone[0].bytes()[..],
                all[row * length..][..length],
                "{name}, row {row}"
            );
        }
    }
}

#[test]
fn a_lost_card_leaves_the_answers_of_the_cpu_until_it_is_open_again() {
    let lost = open();
    let on_card = on_card("mlp", &lost);
    let mut session = on_card.session().expect("a session");
    lost.destroy();
    let outputs = session.run(inputs("mlp")).expect("the CPU answers");
    let expected = model("mlp")
        .session()
        .expect("a session")
        .run(inputs("mlp"));
    let expected = expected.expect("it runs");
    assert_eq!(outputs[0].bytes(), expected[0].bytes(), "bit for bit");
    assert_eq!(session.device_class(), "cpu");
    // A new device, the weights on it and the check of them come in the background, while the CPU goes on.
    let patience = Instant::now() + Duration::from_secs(60);
    while session.device_class() == "cpu" {
        assert!(Instant::now() < patience, "{:?}", lost.fault());
        session.run(inputs("mlp")).expect("somebody answers");
    }
    assert_eq!(lost.fault(), None);
    assert!(lost.usable());
    assert_answers("mlp", &on_card);
}

#[test]
fn what_the_card_cannot_take_runs_on_the_cpu_and_is_counted() {
    let gpu = open();
    let on_card = on_card("mlp", &gpu);
    let mut session = on_card.session().expect("a session");
    let many = 65_536 * 16;
    let zeros = vec![0; many * 8 * 4];
    let input = &on_card.inputs()[0];
    let batch = || Tensor::stack(input.element, &[many, 8], &[&zeros]).expect("the shape fits");
    for _ in 0..3 {
        session.run(vec![batch()]).expect("the CPU answers");
        assert_eq!((session.device_class(), session.fallbacks()), ("cpu", 1));
    }
    // That a batch is too large says nothing about the card.
    assert!(gpu.usable() && gpu.failures() == 0);
    session.run(inputs("mlp")).expect("the card answers");
    assert!(session.device_class().starts_with("gpu:"));
}

#[test]
fn without_a_card_nothing_is_cut_out() {
    assert!(model("mlp").segments().is_empty());
}
