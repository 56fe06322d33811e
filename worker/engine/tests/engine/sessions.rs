//! What a session owes its thread: recovery, independence of others, and the same bits for any batch.

use std::cell::Cell;

use inferq_engine::{Element, InputError, Model, RunError, Session, Tensor};

use crate::cases::{Stored, model, run_by_onnx_runtime};

fn f32_tensor(shape: &[usize]) -> Tensor {
    let elements: usize = shape.iter().product();
    let bytes: Vec<u8> = (0..elements)
        .flat_map(|i| (i as f32 * 0.25).to_le_bytes())
        .collect();
    Tensor::stack(Element::F32, shape, &[&bytes]).expect("the bytes fit")
}

fn i64_tensor(values: &[i64]) -> Tensor {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    Tensor::stack(Element::I64, &[values.len()], &[&bytes]).expect("the bytes fit")
}

fn input_error(session: &mut dyn Session, inputs: Vec<Tensor>) -> InputError {
    match session.run(inputs) {
        Err(RunError::Input(error)) => error,
        other => panic!("not an input error: {other:?}"),
    }
}

#[test]
fn a_run_that_fails_inside_the_model_does_not_spoil_the_next() {
    let model = model("lookup");
    let mut session = model.session().expect("a session");
    let good = session
        .run(vec![i64_tensor(&[1, 2, 0])])
        .expect("all three rows exist");
    for wrong in [99, i64::MAX, -99] {
        // tract may return or panic here; a caller on an executor thread catches both.
        let run = std::panic::AssertUnwindSafe(|| session.run(vec![i64_tensor(&[1, wrong])]));
        let failed = std::panic::catch_unwind(run);
        assert!(
            !matches!(failed, Ok(Ok(_))),
            "the table has three rows, {wrong} is not one"
        );
        let again = session
            .run(vec![i64_tensor(&[1, 2, 0])])
            .expect("the session is well again");
        assert_eq!(again[0].bytes(), good[0].bytes());
    }
}

#[test]
fn a_run_that_nobody_wants_any_more_stops_before_any_operator_and_does_not_spoil_the_next() {
    let model = model("encoder");
    let (inputs, _) = run_by_onnx_runtime("encoder");
    let inputs: Vec<Tensor> = inputs.iter().map(Stored::tensor).collect();
    let mut session = model.session().expect("a session");
    let (asked, most) = (Cell::new(0), Cell::new(usize::MAX));
    let wanted = || {
        asked.set(asked.get() + 1);
        asked.get() <= most.get()
    };
    let whole = session.run_while(inputs.clone(), &wanted).expect("wanted");
    let operators = asked.get();
    assert!(operators > 10, "{operators}");
    for stop in 0..operators {
        asked.set(0);
        most.set(stop);
        let stopped = session.run_while(inputs.clone(), &wanted);
        assert!(matches!(stopped, Err(RunError::Stopped)), "{stopped:?}");
        assert_eq!(asked.get(), stop + 1, "nothing runs after the no");
        let next = session.run(inputs.clone()).expect("it is well");
        for (next, whole) in next.iter().zip(&whole) {
            assert_eq!(next.bytes(), whole.bytes(), "after {stop} operators");
        }
    }
}

#[test]
fn a_shape_that_does_not_fit_is_named_and_does_not_spoil_the_next_run() {
    let model = model("mlp");
    let mut session = model.session().expect("a session");
    session.run(vec![f32_tensor(&[4, 8])]).expect("it fits");
    for shape in [&[5, 7][..], &[8], &[0, 8], &[1, 8, 1]] {
        let error = input_error(&mut *session, vec![f32_tensor(shape)]);
        let wanted = format!("input `x` has shape {shape:?}, the model takes [batch,8]");
        assert_eq!(error.to_string(), wanted);
        session
            .run(vec![f32_tensor(&[3, 8])])
            .expect("the session is well");
    }
}

#[test]
fn wrong_types_counts_and_batches_are_named() {
    let mlp = model("mlp");
    let mut session = mlp.session().expect("a session");
    let error = input_error(&mut *session, vec![]);
    assert_eq!(error.to_string(), "0 tensors for a model with 1 inputs");
    let error = input_error(&mut *session, vec![i64_tensor(&[1])]);
    assert_eq!(
        error.to_string(),
        "input `x` holds i64, the model takes f32"
    );

    let two = model("two_inputs");
    let mut session = two.session().expect("a session");
    let error = input_error(
        &mut *session,
        vec![f32_tensor(&[2, 3]), f32_tensor(&[4, 5])],
    );
    assert_eq!(
        error.to_string(),
        "input `right` makes `n` 4, another input made it 2"
    );
}

#[test]
fn a_row_has_the_same_bits_in_a_batch_of_any_size() {
    let model = model("mlp");
    let (inputs, _) = run_by_onnx_runtime("mlp");
    let mut session = model.session().expect("a session");
    let all = session
        .run(vec![inputs[0].tensor()])
        .expect("33 rows run")
        .remove(0);
    for size in 1..=33 {
        for start in [0, (33 - size) / 2, 33 - size] {
            let input = inputs[0].rows(start, start + size);
            let part = session.run(vec![input]).expect("a part runs").remove(0);
            let wanted = all.rows(start..start + size).expect("those rows are there");
            assert_eq!(part.bytes(), wanted, "{size} rows from {start} on");
        }
    }
}

#[test]
fn sessions_on_many_threads_agree() {
    let model = model("mlp");
    let (inputs, _) = run_by_onnx_runtime("mlp");
    let alone = model
        .session()
        .expect("a session")
        .run(vec![inputs[0].tensor()])
        .expect("it runs");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (model, input, alone) = (&model, &inputs[0], &alone[0]);
            scope.spawn(move || {
                let mut session = model.session().expect("a session");
                for round in 0..20 {
                    let size = 1 + (thread * 7 + round * 5) % 33;
                    let output = session.run(vec![input.rows(0, size)]).expect("it runs");
                    let wanted = alone.rows(0..size).expect("those rows are there");
                    assert_eq!(output[0].bytes(), wanted);
                }
            });
        }
    });
}

#[test]
fn a_session_outlives_its_model() {
    let mut session = {
        let model = model("mlp");
        model.session().expect("a session")
    };
    assert_eq!(
        session.run(vec![f32_tensor(&[2, 8])]).expect("it runs")[0].shape(),
        [2, 5]
    );
}
