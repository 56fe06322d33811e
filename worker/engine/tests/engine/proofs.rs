//! Which models may have their rows merged, and what the others are told.

use inferq_engine::{BatchProof, Model};

use crate::cases::model;

#[track_caller]
fn assert_refused(name: &str, tensor: &str, because: &str) {
    match model(name).batch_proof() {
        BatchProof::Refused {
            tensor: found,
            reason,
        } => {
            assert_eq!(found, tensor, "{name}: {reason}");
            assert!(reason.contains(because), "{name}: {reason}");
        }
        BatchProof::Proven => panic!("{name} must not be batched"),
    }
}

#[test]
fn models_whose_rows_are_independent_are_proven() {
    let names = [
        "double",
        "dropout",
        "half",
        "image",
        "layer_norm",
        "logic",
        "lookup",
        "mlp",
        "mlp_open",
        "mlp_opset13",
        "softmax_channels",
        "text",
        "tokens",
        "two_inputs",
        "weights_outside",
    ];
    for name in names {
        assert_eq!(*model(name).batch_proof(), BatchProof::Proven, "{name}");
    }
}

#[test]
fn a_softmax_over_the_batch_is_found_by_trial() {
    assert_refused("softmax_axis0", "y", "the answer for a row changes when");
}

#[test]
fn a_mean_over_the_batch_is_found_by_trial() {
    assert_refused("mean_axis0", "y", "the answer for a row changes when");
}

#[test]
fn a_fixed_batch_size_is_refused() {
    assert_refused("fixed_batch", "x", "its axis 0 is fixed: [4,8]");
}

#[test]
fn an_output_without_the_batch_is_refused() {
    assert_refused("sum_without_batch", "total", "it has no axis 0");
}

#[test]
fn a_batch_on_a_second_axis_is_refused() {
    assert_refused(
        "gram",
        "y",
        "`batch` is on an axis other than 0 too: [batch,batch]",
    );
}

#[test]
fn inputs_with_different_batches_are_refused() {
    assert_refused("two_batches", "right", "its axis 0 is fixed: [3,m]");
}

#[test]
fn random_numbers_are_refused_and_make_a_model_not_deterministic() {
    assert_refused(
        "noise",
        "y",
        "operator `RandomUniform` draws random numbers",
    );
    assert!(!model("noise").is_deterministic());
    assert!(model("mlp").is_deterministic());
}

#[test]
fn dropout_that_never_trains_is_deterministic() {
    assert!(model("dropout").is_deterministic());
}
