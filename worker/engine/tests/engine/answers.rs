//! Same answers as ONNX Runtime, and specs that describe them.

use std::num::NonZeroUsize;

use inferq_engine::{Element, LoadLimits, Model, Tensor, TensorSpec, load_bytes, load_file};

use crate::cases::{floats, model, path, run_by_onnx_runtime};

pub(crate) const WITH_ANSWERS: [&str; 37] = [
    "double",
    "dropout",
    "encoder",
    "fixed_batch",
    "gates",
    "gram",
    "half",
    "image",
    "layer_norm",
    "logic",
    "lookup",
    "mean_axis0",
    "mlp",
    "mlp_open",
    "mlp_opset13",
    "normalized",
    "old_encoder",
    "open_width",
    "residual_block",
    "scaled_heads",
    "shared_head",
    "softmax_axis0",
    "softmax_channels",
    "spread",
    "sum_without_batch",
    "text",
    "tokens",
    "trees_average",
    "trees_binary",
    "trees_margin",
    "trees_max",
    "trees_min",
    "trees_modes",
    "trees_softmax",
    "trees_sum",
    "two_batches",
    "two_inputs",
];

/// Accumulation order differs between the two programs, so floats agree up to some units in the last place.
fn tolerance(element: Element) -> f64 {
    match element {
        Element::F16 => 2e-3,
        Element::F32 => 2e-6,
        _ => 1e-13,
    }
}

pub(crate) fn assert_answers(name: &str, model: &dyn Model) {
    let (inputs, expected) = run_by_onnx_runtime(name);
    let mut session = model.session().expect("a session");
    let tensors = inputs.iter().map(|input| input.tensor()).collect();
    let outputs = session
        .run(tensors)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(outputs.len(), expected.len(), "{name}");
    for (output, expected) in outputs.iter().zip(&expected) {
        let what = format!("{name}, output {}", expected.name);
        assert_eq!(
            (output.element(), output.shape()),
            (expected.element, &expected.shape[..]),
            "{what}"
        );
        if !expected.element.is_float() {
            assert_eq!(output.bytes(), expected.bytes, "{what}");
            continue;
        }
        let found = floats(output.element(), &output.bytes());
        for (found, wanted) in found
            .into_iter()
            .zip(floats(expected.element, &expected.bytes))
        {
            let allowed = tolerance(expected.element) * wanted.abs().max(1.0);
            assert!(
                (found - wanted).abs() <= allowed,
                "{what}: {found} instead of {wanted}"
            );
        }
    }
}

#[test]
fn every_model_answers_as_onnx_runtime_does() {
    for name in WITH_ANSWERS {
        assert_answers(name, &model(name));
    }
}

#[test]
fn several_threads_in_one_run_give_the_same_answers() {
    let limits = LoadLimits {
        threads_per_run: NonZeroUsize::new(2).expect("two is not zero"),
        ..LoadLimits::default()
    };
    let model = load_file(&path("mlp.onnx"), &limits).expect("it loads");
    assert_answers("mlp", &model);
    assert!(model.batch_proof().is_proven());
}

/// Enough rows that they are shared out, and a mask that differs from row to row.
#[test]
fn many_rows_have_the_same_bits_whoever_shares_them_out() {
    let (batch, sequence) = (64, 40);
    let numbers =
        (0..batch * sequence * 10).map(|place| (place * 7919 % 1000) as f32 / 250.0 - 2.0);
    let rows: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
    let mask = (0..batch * sequence).map(|place| i64::from(place % sequence <= place / sequence));
    let mask: Vec<u8> = mask.flat_map(i64::to_le_bytes).collect();
    let run = |threads: usize| {
        let limits = LoadLimits {
            threads_per_run: NonZeroUsize::new(threads).expect("not zero"),
            ..LoadLimits::default()
        };
        let model = load_file(&path("encoder.onnx"), &limits).expect("it loads");
        let rows = Tensor::stack(Element::F32, &[batch, sequence, 10], &[&rows]);
        let mask = Tensor::stack(Element::I64, &[batch, sequence], &[&mask]);
        let inputs = vec![rows.expect("it fits"), mask.expect("it fits")];
        let outputs = model.session().expect("a session").run(inputs);
        outputs.expect("it runs")[0].bytes().into_owned()
    };
    let alone = run(1);
    for threads in [2, 3] {
        assert!(run(threads) == alone, "{threads} threads");
    }
}

#[test]
fn a_width_that_the_model_leaves_open_is_checked_when_it_runs() {
    let model = model("open_width");
    let mut session = model.session().expect("a session");
    let mut of_width = |width: usize| {
        let bytes = vec![0; 2 * width * 4];
        let tensor = Tensor::stack(Element::F32, &[1, 2, width], &[&bytes]).expect("it fits");
        session.run(vec![tensor])
    };
    assert!(of_width(12).is_err() && of_width(3).is_err());
    assert!(of_width(6).is_ok());
}

#[test]
fn weights_in_a_file_beside_the_model_are_read() {
    assert_answers("weights_outside", &model("weights_outside"));
}

#[test]
fn bytes_load_as_well_as_a_file() {
    let bytes = std::fs::read(path("mlp.onnx")).expect("the file is there");
    assert_answers(
        "mlp",
        &load_bytes(&bytes, &LoadLimits::default()).expect("it loads"),
    );
}

#[test]
fn specs_name_inputs_and_outputs_and_leave_open_sizes_open() {
    let spec = |name: &str, element, shape: &[Option<usize>]| TensorSpec {
        name: name.to_owned(),
        element,
        shape: shape.to_vec(),
    };
    let mlp = model("mlp");
    assert_eq!(mlp.inputs(), [spec("x", Element::F32, &[None, Some(8)])]);
    assert_eq!(mlp.outputs(), [spec("y", Element::F32, &[None, Some(5)])]);
    let tokens = model("tokens");
    assert_eq!(tokens.inputs(), [spec("ids", Element::I64, &[None, None])]);
    let outputs = model("sum_without_batch");
    assert_eq!(
        outputs.outputs(),
        [
            spec("rows", Element::F32, &[None, Some(4)]),
            spec("total", Element::F32, &[])
        ]
    );
}

#[test]
fn an_open_size_that_a_weight_decides_is_known_after_loading() {
    // The file says [?,?]; the first weight has eight rows.
    assert_eq!(model("mlp_open").inputs()[0].shape, [None, Some(8)]);
}

#[test]
fn memory_counts_at_least_the_weights() {
    let weights = (8 * 13 + 13 + 13 * 5 + 5) * 4;
    let counted = model("mlp").memory_bytes();
    assert!(
        (weights..20 * weights).contains(&counted),
        "{counted} bytes"
    );
}

#[test]
fn the_cpu_names_its_numeric_class() {
    assert_eq!(
        model("mlp").session().expect("a session").device_class(),
        "cpu"
    );
}

#[test]
fn a_not_a_number_row_spoils_only_itself() {
    let model = model("mlp");
    let mut session = model.session().expect("a session");
    let row = |value: f32| {
        [value; 8]
            .into_iter()
            .flat_map(f32::to_le_bytes)
            .collect::<Vec<u8>>()
    };
    let (good, bad) = (row(0.5), row(f32::NAN));
    let input = Tensor::stack(Element::F32, &[3, 8], &[&good, &bad, &good]).expect("3 rows");
    let output = session.run(vec![input]).expect("it runs").remove(0);
    let output = floats(Element::F32, &output.bytes());
    assert!(
        output[..5]
            .iter()
            .chain(&output[10..])
            .all(|value| value.is_finite())
    );
    assert!(output[5..10].iter().all(|value| value.is_nan()));
}

/// What a run of a model is made of.
fn operators(name: &str) -> Vec<String> {
    let (inputs, _) = run_by_onnx_runtime(name);
    let inputs = inputs.iter().map(|input| input.tensor()).collect();
    let times = model(name).profile(inputs).expect("it runs");
    times.into_iter().map(|node| node.operator).collect()
}

#[test]
fn an_encoder_becomes_dense_layers_that_do_what_follows_them() {
    let operators = operators("encoder");
    let count = |operator| operators.iter().filter(|own| *own == operator).count();
    assert_eq!(count("Dense"), 6, "{operators:?}");
    assert_eq!((count("RowSoftmax"), count("RowNorm")), (1, 1));
    // No bias, residual, bound, scale or shift is left.
    assert_eq!(["Add", "Max", "Min"].map(count), [0; 3], "{operators:?}");
}

#[test]
fn factors_and_norms_of_a_batch_go_into_the_weights_before_them() {
    assert_eq!(operators("normalized"), ["Source", "Dense", "Dense"]);
}

#[test]
fn convolutions_do_what_follows_them() {
    let convolutions = ["Source", "ImageConv", "ImageConv", "ImageConv"];
    assert_eq!(operators("residual_block"), convolutions);
}
