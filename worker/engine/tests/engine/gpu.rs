//! The dense layer on whatever adapter there is, Mesa's software one included, against sums in `f64`.

use std::sync::OnceLock;

use inferq_engine::gpu::{
    Activation, Choice, Gpu, GpuError, GpuPolicy, Layer, Operation, Program, Source, Step, Tile,
    Weights,
};

/// One device for all tests: each new one compiles the shader again.
pub(crate) fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(open)
}

pub(crate) fn open() -> Gpu {
    match Gpu::open_with(GpuPolicy::Force, None, true) {
        Ok(Some(gpu)) => gpu,
        other => panic!(
            "these tests need a graphics card or Mesa's software Vulkan, which deploy/setup.sh installs \
             (Debian: mesa-vulkan-drivers): {other:?}"
        ),
    }
}

/// Repeatable numbers in -1 to 1.
pub(crate) fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (f64::from(state) / f64::from(u32::MAX) * 2.0 - 1.0) as f32
        })
        .collect()
}

const RELU: Option<Activation> = Some(Activation::Clip {
    low: 0.0,
    high: f32::INFINITY,
});

fn layer(inputs: usize, outputs: usize, activation: Option<Activation>) -> Layer {
    Layer {
        inputs,
        outputs,
        weights: numbers(inputs * outputs, 3),
        bias: numbers(outputs, 5),
        activation,
        kept_as: Weights::F32,
    }
}

/// A program of one layer.
fn upload(gpu: &Gpu, layer: &Layer) -> Program {
    alone(gpu, layer.clone()).expect("the layer fits any device")
}

fn alone(gpu: &Gpu, layer: Layer) -> Result<Program, GpuError> {
    Program::new(gpu, &[Source::Given], vec![linear(layer, &[0])], &[1])
}

fn linear(layer: Layer, inputs: &[usize]) -> Step {
    Step {
        operation: Operation::Linear(layer),
        inputs: inputs.to_vec(),
    }
}

fn run(program: &Program, layer: &Layer, rows: &[f32]) -> Result<Vec<f32>, GpuError> {
    run_by(Choice::Likely, program, layer, rows)
}

fn run_by(
    choice: Choice,
    program: &Program,
    layer: &Layer,
    rows: &[f32],
) -> Result<Vec<f32>, GpuError> {
    let count = rows.len() / layer.inputs;
    let shapes = [vec![count, layer.inputs], vec![count, layer.outputs]];
    Ok(program.run(&[rows], &shapes, choice)?.remove(0))
}

/// The exact value of one result and how far the kernel may be from it, whatever its weights have lost.
fn exact(layer: &Layer, row: &[f32], column: usize) -> (f64, f64) {
    let unit = 2f64.powi(-24);
    let weights = layer.weights[column..].iter().step_by(layer.outputs);
    let products = row.iter().zip(weights);
    let products: Vec<f64> = products
        .map(|(a, w)| f64::from(*a) * f64::from(*w))
        .collect();
    let bias = f64::from(layer.bias[column]);
    let mut value = products.iter().sum::<f64>() + bias;
    let magnitude: f64 = products.iter().map(|product| product.abs()).sum();
    let ulp = 2.0
        * unit
        * value
            .abs()
            .max(bias.abs())
            .max(f64::from(f32::MIN_POSITIVE));
    if let Some(Activation::Clip { low, high }) = layer.activation {
        value = value.clamp(low.into(), high.into());
    }
    let row_size: f64 = row.iter().map(|value| f64::from(value.abs())).sum();
    let lost = match layer.kept_as {
        Weights::F32 => 0.0,
        Weights::F16 => magnitude / 2048.0 + row_size / f64::from(1 << 25),
        Weights::Half => {
            let weights = layer.weights[column..].iter().step_by(layer.outputs);
            let both = row.iter().zip(weights.clone());
            let beyond: f64 = both
                .map(|(value, weight)| {
                    let over = (f64::from(value.abs()) - 65_504.0).max(0.0);
                    over * f64::from(weight.abs())
                })
                .sum();
            let weight_size: f64 = weights.map(|weight| f64::from(weight.abs())).sum();
            let small = (row_size + weight_size) / f64::from(1 << 25);
            2.001 * magnitude / 2048.0 + small + beyond
        }
        Weights::Int8 => {
            let weights = layer.weights[column..].iter().step_by(layer.outputs);
            let largest = weights.fold(0f32, |largest, weight| largest.max(weight.abs()));
            1.001 * row_size * f64::from(largest) / 254.0
        }
    };
    (
        value,
        (layer.inputs as f64).sqrt() * unit * magnitude + 4.0 * ulp + lost,
    )
}

fn assert_close(layer: &Layer, rows: &[f32], result: &[f32]) {
    let (k, n) = (layer.inputs, layer.outputs);
    assert_eq!(result.len(), rows.len() / k * n);
    for (row, result) in rows.chunks_exact(k).zip(result.chunks_exact(n)) {
        for (column, found) in result.iter().enumerate() {
            let (exact, allowed) = exact(layer, row, column);
            let error = (f64::from(*found) - exact).abs();
            assert!(
                error <= allowed,
                "k {k}, n {n}: {found} for {exact}, {error:e} > {allowed:e}"
            );
        }
    }
}

#[test]
fn odd_sizes_are_within_the_stated_bound() {
    let sizes = [
        (1, 1, 1),
        (1, 4, 32),
        (2, 3, 5),
        (3, 5, 7),
        (15, 31, 33),
        (16, 16, 32),
        (17, 18, 31),
        (33, 64, 10),
        (5, 67, 45),
        (40, 96, 96),
    ];
    for (m, k, n) in sizes {
        let narrow = Activation::Clip {
            low: -0.5,
            high: 0.25,
        };
        for activation in [None, RELU, Some(narrow)] {
            let layer = layer(k, n, activation);
            let rows = numbers(m * k, 7);
            let result = run(&upload(gpu(), &layer), &layer, &rows).expect("it runs");
            assert_close(&layer, &rows, &result);
        }
    }
}

#[test]
fn large_and_small_numbers_are_within_the_stated_bound() {
    let layer = layer(37, 11, None);
    let rows: Vec<f32> = numbers(3 * 37, 9)
        .into_iter()
        .enumerate()
        .map(|(i, x)| x * [1e4, 1.0, 1e-4, 0.0][i % 4])
        .collect();
    let result = run(&upload(gpu(), &layer), &layer, &rows).expect("it runs");
    assert_close(&layer, &rows, &result);
}

#[test]
fn every_tile_is_within_the_stated_bound_with_weights_of_every_kind() {
    let sizes = [
        (1, 3, 5),
        (4, 37, 33),
        (3, 70, 65),
        (65, 17, 66),
        (129, 20, 130),
        // Of which a split kernel makes three pieces.
        (21, 199, 35),
    ];
    for (m, k, n) in sizes {
        for kept_as in Weights::ALL {
            let layer = Layer {
                kept_as,
                ..layer(k, n, RELU)
            };
            let (program, rows) = (upload(gpu(), &layer), numbers(m * k, 19));
            let tiles = Tile::ALL.into_iter().filter(|tile| m <= tile.most_rows());
            for tile in tiles {
                let result = run_by(Choice::Only(tile), &program, &layer, &rows);
                assert_close(&layer, &rows, &result.expect("it runs"));
            }
        }
    }
}

/// Mesa's software adapter binds 128 MiB; where a card binds more, the matrix is one panel there.
#[test]
fn a_matrix_that_cannot_be_bound_at_once_comes_in_panels() {
    let (k, n) = (520, 70_003);
    let layer = layer(k, n, RELU);
    let steps = vec![linear(layer.clone(), &[0, 1])];
    let sources = [Source::Given, Source::Given];
    let program = Program::new(gpu(), &sources, steps, &[2]).expect("in panels it fits");
    let (rows, zeros) = (numbers(k, 23), vec![0.0; n]);
    let shapes = [vec![1, k], vec![1, n], vec![1, n]];
    for choice in [Choice::Likely, Choice::Alike, Choice::Only(Tile::Split)] {
        let result = program.run(&[&rows, &zeros], &shapes, choice);
        assert_close(&layer, &rows, &result.expect("it runs")[0]);
    }
}

#[test]
#[ignore = "needs a card that multiplies matrices of f16 by itself; Mesa 26's software adapter does"]
fn the_cards_own_products_of_matrices_are_within_the_stated_bound() {
    assert!(gpu().cooperates().is_some());
    let sizes = [
        (1, 1, 1),
        (16, 16, 64),
        (17, 15, 63),
        (64, 33, 65),
        (65, 130, 7),
        (130, 70, 129),
    ];
    for (m, k, n) in sizes {
        let layer = Layer {
            kept_as: Weights::Half,
            ..layer(k, n, None)
        };
        let program = upload(gpu(), &layer);
        let mut rows = numbers(m * k, 29);
        // Beyond what 16 bits can be, of either sign, and below.
        for (value, extreme) in rows.iter_mut().step_by(7).zip([1e6, -7e4, 1e-7, 0.0]) {
            *value = extreme;
        }
        let result = run_by(Choice::Only(Tile::Cooperative), &program, &layer, &rows);
        let result = result.expect("it runs");
        assert_close(&layer, &rows, &result);
        let exact = run_by(Choice::Only(Tile::Skinny), &program, &layer, &rows);
        assert_ne!(
            result,
            exact.expect("it runs"),
            "{m}, {k}, {n}: it was not used"
        );
        if m > 1 {
            rows[k / 2] = f32::INFINITY;
            let endless = run_by(Choice::Only(Tile::Cooperative), &program, &layer, &rows);
            let endless = endless.expect("it runs");
            assert!(endless[..n].iter().all(|value| !value.is_finite()));
            rows[k / 2] = f32::NAN;
            let spoiled = run_by(Choice::Only(Tile::Cooperative), &program, &layer, &rows);
            let spoiled = spoiled.expect("it runs");
            assert!(spoiled[..n].iter().all(|value| value.is_nan()));
            assert_eq!(spoiled[n..], result[n..], "the other rows");
        }
    }
}

#[test]
fn weights_that_lose_nothing_give_the_same_as_they_are() {
    let plain = Layer {
        weights: numbers(12 * 10, 3)
            .iter()
            .map(|weight| weight.signum())
            .collect(),
        ..layer(12, 10, None)
    };
    let rows = numbers(5 * 12, 19);
    let expected = run(&upload(gpu(), &plain), &plain, &rows).expect("it runs");
    for kept_as in [Weights::F16, Weights::Half, Weights::Int8] {
        let layer = Layer {
            kept_as,
            ..plain.clone()
        };
        let found = run(&upload(gpu(), &layer), &layer, &rows).expect("it runs");
        assert_eq!(found, expected, "{kept_as:?}");
    }
}

#[test]
fn a_row_has_the_same_bits_in_a_batch_of_any_size() {
    let layer = layer(29, 70, RELU);
    let on_gpu = upload(gpu(), &layer);
    let rows = numbers(130 * 29, 11);
    let bits = |choice, rows: &[f32]| -> Vec<u32> {
        let result = run_by(choice, &on_gpu, &layer, rows).expect("it runs");
        result.iter().map(|value| value.to_bits()).collect()
    };
    let all = bits(Choice::Alike, &rows);
    let tiles = [Tile::Skinny, Tile::Tile64, Tile::Tile128].map(Choice::Only);
    for size in [1, 2, 3, 16, 17, 65, 130] {
        let start = 130 - size;
        for choice in tiles.into_iter().chain([Choice::Alike]) {
            let part = bits(choice, &rows[start * 29..]);
            assert!(part[..] == all[start * 70..], "{size} rows, {choice:?}");
        }
    }
    // A gemv adds up otherwise, but alike for up to four rows.
    let four = bits(Choice::Only(Tile::Gemv), &rows[..4 * 29]);
    let one = bits(Choice::Only(Tile::Gemv), &rows[3 * 29..4 * 29]);
    assert!(one[..] == four[3 * 70..]);
}

#[test]
fn a_not_a_number_row_spoils_only_itself_and_survives_relu() {
    let layer = layer(8, 8, RELU);
    let mut rows = numbers(5 * 8, 13);
    rows[2 * 8 + 3] = f32::NAN;
    let result = run(&upload(gpu(), &layer), &layer, &rows).expect("it runs");
    for (row, result) in result.chunks_exact(8).enumerate() {
        assert!(
            result.iter().all(|value| value.is_nan() == (row == 2)),
            "row {row}: {result:?}"
        );
    }
}

#[test]
fn steps_feed_each_other_and_several_values_come_down() {
    let (first, second) = (layer(7, 5, RELU), layer(5, 5, None));
    let steps = vec![linear(first.clone(), &[0]), linear(second.clone(), &[2, 1])];
    let sources = [Source::Given, Source::Given];
    let program = Program::new(gpu(), &sources, steps, &[3, 2]).expect("it fits");
    for m in [1, 18] {
        let (rows, more) = (numbers(m * 7, 21), numbers(m * 5, 23));
        let shapes = [vec![m, 7], vec![m, 5], vec![m, 5], vec![m, 5]];
        let results = program
            .run(&[&rows, &more], &shapes, Choice::Likely)
            .expect("it runs");
        assert_close(&first, &rows, &results[1]);
        let without: Vec<f32> = results[0]
            .iter()
            .zip(&more)
            .map(|(sum, more)| sum - more)
            .collect();
        let expected = run(&upload(gpu(), &second), &second, &results[1]).expect("it runs");
        for (got, expected) in without.iter().zip(expected) {
            assert!((got - expected).abs() <= 2e-6, "{got} {expected}");
        }
    }
}

#[test]
fn threads_share_a_layer() {
    let layer = layer(21, 19, None);
    let on_gpu = upload(gpu(), &layer);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (layer, on_gpu) = (&layer, &on_gpu);
            scope.spawn(move || {
                for round in 0..5 {
                    let m = 1 + (3 * thread + round) % 9;
                    let rows = numbers(m * 21, (100 * thread + round) as u32);
                    assert_close(layer, &rows, &run(on_gpu, layer, &rows).expect("it runs"));
                }
            });
        }
    });
}

#[test]
fn wrong_sizes_are_refused_before_anything_is_sent() {
    let mut short = layer(3, 4, None);
    short.weights.pop();
    let error = alone(gpu(), short).expect_err("12");
    assert_eq!(
        error.to_string(),
        "the weight matrix has 11 values, its shape takes 12"
    );
    let error = alone(gpu(), layer(0, 4, None)).expect_err("no input");
    assert_eq!(error, GpuError::Empty("the weight matrix"));
    let layer = layer(3, 4, None);
    let program = upload(gpu(), &layer);
    let wrong = |shapes: [Vec<usize>; 2], values: usize| {
        program
            .run(&[&vec![0.0; values]], &shapes, Choice::Likely)
            .expect_err("it does not fit")
    };
    let shape = |what, got, expected| GpuError::Shape {
        what,
        got,
        expected,
    };
    assert_eq!(wrong([vec![2, 3], vec![2, 4]], 7), shape("the batch", 7, 6));
    let told = wrong([vec![2, 2], vec![1, 4]], 4);
    assert_eq!(told, shape("the rows of a layer", 4, 3));
    let told = wrong([vec![2, 3], vec![2, 5]], 6);
    assert_eq!(told, shape("the result of a layer", 10, 8));
    let many = 65_536 * 16;
    let error = wrong([vec![many, 3], vec![many, 4]], many * 3);
    assert!(
        matches!(
            error,
            GpuError::Limit {
                what: "the number of rows",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(run(&program, &layer, &[]), Ok(vec![]));
    let missing = Program::new(gpu(), &[Source::Given], vec![], &[1]);
    assert_eq!(missing.err(), Some(GpuError::Empty("an output")));
}

#[test]
fn a_lost_device_is_an_error_and_a_new_one_works() {
    let lost = open();
    let layer = layer(6, 6, None);
    let on_gpu = upload(&lost, &layer);
    let rows = numbers(6, 17);
    run(&on_gpu, &layer, &rows).expect("it runs");
    assert_eq!(lost.fault(), None);
    lost.destroy();
    assert!(matches!(
        run(&on_gpu, &layer, &rows),
        Err(GpuError::Lost(_))
    ));
    assert!(matches!(lost.fault(), Some(GpuError::Lost(_))));
    let again = run(&upload(&open(), &layer), &layer, &rows);
    assert_close(&layer, &rows, &again.expect("it runs"));
}
