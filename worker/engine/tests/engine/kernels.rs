//! Every kernel but the dense layer on whatever adapter there is, with odd sizes, against `f64`.

use inferq_engine::gpu::{
    Activation, Axes, Choice, Combine, GpuError, Layer, Norm, Operation, Pairs, Part, Program,
    Source, Step,
};

use crate::gpu::{gpu, numbers};

/// The result of one operation on values of these shapes.
fn run(operation: Operation, given: &[(&[f32], &[usize])], result: &[usize]) -> Vec<f32> {
    try_run(operation, given, result).expect("it runs")
}

fn try_run(
    operation: Operation,
    given: &[(&[f32], &[usize])],
    result: &[usize],
) -> Result<Vec<f32>, GpuError> {
    let sources = vec![Source::Given; given.len()];
    let step = Step {
        operation,
        inputs: (0..given.len()).collect(),
    };
    let program = Program::new(gpu(), &sources, vec![step], &[given.len()])?;
    let values: Vec<&[f32]> = given.iter().map(|(values, _)| *values).collect();
    let shapes = given.iter().map(|(_, shape)| shape.to_vec());
    let shapes: Vec<Vec<usize>> = shapes.chain([result.to_vec()]).collect();
    Ok(program.run(&values, &shapes, Choice::Likely)?.remove(0))
}

fn assert_within(found: &[f32], exact: &[f64], bound: impl Fn(usize) -> f64, case: &str) {
    assert_eq!(found.len(), exact.len(), "{case}");
    for (place, (found, exact)) in found.iter().zip(exact).enumerate() {
        let error = (f64::from(*found) - exact).abs();
        let allowed = bound(place);
        assert!(
            error <= allowed,
            "{case}: {found} for {exact} at {place}, {error:e} > {allowed:e}"
        );
    }
}

const UNIT: f64 = 1.0 / (1 << 24) as f64;

#[test]
fn products_of_interleaved_heads_are_within_the_stated_bound() {
    for (a, b, m, k, n) in [
        (1, 1, 1, 1, 1),
        (2, 3, 5, 7, 4),
        (1, 2, 33, 9, 35),
        (3, 1, 2, 16, 31),
    ] {
        let (left, right) = (numbers(a * m * b * k, 31), numbers(a * n * b * k, 37));
        // Heads lie within a row on both sides, and outside of the rows in the result: ambk, anbk, abmn.
        let pairs = Pairs {
            left: axes_of([0, 2, 1, 3]),
            right: axes_of([0, 2, 3, 1]),
            result: axes_of([0, 1, 2, 3]),
        };
        let given: [(&[f32], &[usize]); 2] = [(&left, &[a, m, b, k]), (&right, &[a, n, b, k])];
        let found = run(Operation::Product(pairs), &given, &[a, b, m, n]);
        let (mut exact, mut sizes) = (vec![], vec![]);
        for (a, b, row, column) in places([a, b, m, n]) {
            let terms = (0..k).map(|at| {
                let left = left[((a * m + row) * self::b(&given) + b) * k + at];
                let right = right[((a * n + column) * self::b(&given) + b) * k + at];
                f64::from(left) * f64::from(right)
            });
            let terms: Vec<f64> = terms.collect();
            exact.push(terms.iter().sum::<f64>());
            sizes.push(terms.iter().map(|term| term.abs()).sum::<f64>());
        }
        let bound = |place: usize| ((k as f64).sqrt() + 2.0) * UNIT * sizes[place];
        assert_within(&found, &exact, bound, &format!("{a} {b} {m} {k} {n}"));
    }
}

/// Heads of the left value.
fn b(given: &[(&[f32], &[usize]); 2]) -> usize {
    given[0].1[2]
}

fn places([a, b, m, n]: [usize; 4]) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..a * b * m * n).map(move |at| (at / (n * m * b), at / (n * m) % b, at / n % m, at % n))
}

#[test]
fn a_side_without_a_pair_axis_stands_still() {
    let pairs = Pairs {
        left: Axes {
            inner: Some(0),
            row: Some(1),
            column: Some(2),
            ..Axes::default()
        },
        right: Axes {
            row: Some(0),
            column: Some(1),
            ..Axes::default()
        },
        result: Axes {
            inner: Some(0),
            row: Some(1),
            column: Some(2),
            ..Axes::default()
        },
    };
    let (left, right) = ([1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 1.0, 1.0]);
    let given: [(&[f32], &[usize]); 2] = [(&left, &[2, 1, 2]), (&right, &[2, 2])];
    let found = run(Operation::Product(pairs), &given, &[2, 1, 2]);
    assert_eq!(found, [3.0, 2.0, 7.0, 4.0]);
    let wrong = try_run(Operation::Product(pairs), &given, &[1, 1, 2]);
    let told = wrong.expect_err("two pairs do not go into one").to_string();
    assert_eq!(
        told,
        "the pairs of a product has 2 values, its shape takes 1"
    );
}

#[test]
fn parts_of_wider_rows_are_multiplied_where_they_lie() {
    let (batch, tokens, heads, width) = (2, 5, 3, 4);
    // Queries with three heads, one number that is nobody's, keys with one head.
    let (queries, keys) = (heads * width, width);
    let of = queries + 1 + keys;
    let part = |first, columns| Operation::Part(Part { first, columns, of });
    let pairs = Pairs {
        left: axes_of([0, 2, 1, 3]),
        right: Axes {
            inner: None,
            ..axes_of([0, 0, 2, 1])
        },
        result: axes_of([0, 1, 2, 3]),
    };
    let all = numbers(batch * tokens * of, 59);
    let operations = [
        (part(0, queries), vec![0]),
        (part(queries + 1, keys), vec![0]),
        (Operation::View, vec![1]),
        (Operation::Product(pairs), vec![3, 2]),
    ];
    let steps = operations.map(|(operation, inputs)| Step { operation, inputs });
    let program = Program::new(gpu(), &[Source::Given], steps, &[1, 2, 4]);
    let shapes = [
        vec![batch, tokens, of],
        vec![batch, tokens, queries],
        vec![batch, tokens, keys],
        vec![batch, tokens, heads, width],
        vec![batch, heads, tokens, tokens],
    ];
    let found = program
        .and_then(|program| program.run(&[&all], &shapes, Choice::Likely))
        .expect("it runs");
    let alone = |first: usize, columns: usize| -> Vec<f32> {
        let rows = all.chunks_exact(of);
        rows.flat_map(|row| &row[first..][..columns])
            .copied()
            .collect()
    };
    let (left, right) = (alone(0, queries), alone(queries + 1, keys));
    let given: [(&[f32], &[usize]); 2] = [(&left, &shapes[3]), (&right, &shapes[2])];
    let product = run(Operation::Product(pairs), &given, &shapes[4]);
    assert_eq!(found, [left, right, product]);
}

fn axes_of([outer, inner, row, column]: [usize; 4]) -> Axes {
    Axes {
        outer: Some(outer),
        inner: Some(inner),
        row: Some(row),
        column: Some(column),
    }
}

#[test]
fn softmax_with_scale_and_spread_mask_is_within_the_stated_bound() {
    for (a, b, m, n) in [(1, 1, 1, 1), (2, 3, 5, 7), (1, 2, 3, 130)] {
        let scores: Vec<f32> = numbers(a * b * m * n, 41).iter().map(|x| 9.0 * x).collect();
        let mask: Vec<f32> = numbers(a * n, 43)
            .iter()
            .map(|x| if *x > 0.8 { -1e4 } else { *x })
            .collect();
        let scale = 0.35;
        let given: [(&[f32], &[usize]); 2] = [(&scores, &[a, b, m, n]), (&mask, &[a, 1, 1, n])];
        let found = run(Operation::Softmax { scale }, &given, &[a, b, m, n]);
        let mut exact = vec![];
        for (row, scores) in scores.chunks(n).enumerate() {
            let mask = &mask[row / (b * m) * n..][..n];
            let both = scores.iter().zip(mask);
            let values: Vec<f64> = both
                .map(|(score, mask)| f64::from(*score) * f64::from(scale) + f64::from(*mask))
                .collect();
            let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = values.iter().map(|value| (value - largest).exp()).sum();
            exact.extend(values.iter().map(|value| (value - largest).exp() / sum));
        }
        // Scores are at most 4.2 in size; masked ones come to nothing.
        let bound = |place: usize| exact[place] * UNIT * (32.0 + n as f64 / 8.0) + 1e-35;
        assert_within(&found, &exact, bound, &format!("{a} {b} {m} {n}"));
    }
}

#[test]
fn large_scores_do_not_overflow_and_a_nan_spoils_its_row_alone() {
    let scores = [1e4, -1e4, 1e4, f32::NAN, 0.0, 1.0, 0.0, 0.0, 0.0];
    let softmax = Operation::Softmax { scale: 1.0 };
    let found = run(softmax, &[(&scores, &[3, 3])], &[3, 3]);
    assert_eq!(found[..3], [0.5, 0.0, 0.5]);
    assert!(found[3..6].iter().all(|value| value.is_nan()), "{found:?}");
    assert!(
        found[6..]
            .iter()
            .all(|value| (value - 1.0 / 3.0).abs() < 1e-6)
    );
}

#[test]
fn norms_are_within_the_stated_bound() {
    for columns in [1, 3, 64, 100] {
        for (centered, scaled, shifted) in [
            (true, true, true),
            (false, true, false),
            (true, false, true),
            (false, false, false),
        ] {
            let norm = Norm {
                columns,
                centered,
                epsilon: 1e-3,
                scale: scaled.then(|| numbers(columns, 47)),
                shift: shifted.then(|| numbers(columns, 53)),
            };
            let rows = numbers(3 * columns, 59);
            let found = run(
                Operation::Norm(norm.clone()),
                &[(&rows, &[3, columns])],
                &[3, columns],
            );
            let mut exact = vec![];
            for row in rows.chunks(columns) {
                let length = columns as f64;
                let row: Vec<f64> = row.iter().map(|value| f64::from(*value)).collect();
                let mean = if centered {
                    row.iter().sum::<f64>() / length
                } else {
                    0.0
                };
                let squares = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / length;
                let root = (squares + f64::from(norm.epsilon)).sqrt();
                for (column, value) in row.iter().enumerate() {
                    let part = |values: &Option<Vec<f32>>, without: f64| {
                        values
                            .as_ref()
                            .map_or(without, |values| f64::from(values[column]))
                    };
                    exact.push(
                        (value - mean) / root * part(&norm.scale, 1.0) + part(&norm.shift, 0.0),
                    );
                }
            }
            // Rows are at most 1 in size, roots at least 0.03.
            let bound = |place: usize| {
                UNIT * (8.0 + (columns as f64).sqrt()) * (exact[place].abs() + 1.0 + 1.0 / 0.03)
            };
            assert_within(
                &found,
                &exact,
                bound,
                &format!("{columns} {centered} {scaled} {shifted}"),
            );
        }
    }
}

/// With its NaN, zeros and what is far outside.
fn arguments() -> Vec<f32> {
    let mut values: Vec<f32> = numbers(90, 61).iter().map(|value| 6.0 * value).collect();
    values.extend([
        0.0,
        -0.0,
        30.0,
        -30.0,
        1e4,
        -1e4,
        1e-20,
        f32::NAN,
        f32::INFINITY,
    ]);
    values
}

fn exact_activation(activation: Activation, x: f64) -> f64 {
    let sigmoid = 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Clip { low, high } => x.clamp(low.into(), high.into()),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Sigmoid => sigmoid,
        Activation::Tanh => x.tanh(),
        Activation::Silu => x * sigmoid,
        Activation::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Activation::LeakyRelu { slope } if x < 0.0 => x * f64::from(slope),
        Activation::LeakyRelu { .. } => x,
    }
}

/// By its series, which converges everywhere; beyond 6 it is 1 to the last bit of a double.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    2.0 / std::f64::consts::PI.sqrt() * sum
}

const ACTIVATIONS: [Activation; 8] = [
    Activation::Clip {
        low: -1.5,
        high: f32::INFINITY,
    },
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Silu,
    Activation::HardSwish,
    Activation::LeakyRelu { slope: 0.1 },
];

#[test]
fn activations_alone_and_after_a_layer_are_within_the_stated_bound_and_keep_a_nan() {
    let values = arguments();
    for activation in ACTIVATIONS {
        let alone = Operation::Elementwise {
            combine: None,
            activation: Some(activation),
        };
        // The layer changes nothing, so that both have to do the same.
        let layer = Operation::Linear(Layer {
            inputs: 1,
            outputs: 1,
            weights: vec![1.0],
            bias: vec![0.0],
            activation: Some(activation),
            ..Layer::default()
        });
        for operation in [alone, layer] {
            let shape = [values.len(), 1];
            let found = run(operation, &[(&values, &shape)], &shape);
            for (x, found) in values.iter().zip(found) {
                // Infinity times nothing is no number, for some of them.
                if !x.is_finite() {
                    assert!(
                        !x.is_nan() || found.is_nan(),
                        "{activation:?}: {found} for NaN"
                    );
                    continue;
                }
                let exact = exact_activation(activation, f64::from(*x));
                let allowed = 4e-7 * f64::from(x.abs()).max(1.0) + 8.0 * UNIT * exact.abs();
                let error = (f64::from(found) - exact).abs();
                assert!(
                    error <= allowed,
                    "{activation:?} of {x}: {found} for {exact}"
                );
            }
        }
    }
}

#[test]
fn what_is_combined_is_spread_over_the_axes_it_lacks() {
    let shape = [2, 3, 2, 5];
    let left = numbers(60, 67);
    let spreads: [[usize; 4]; 4] = [[2, 3, 2, 5], [1, 1, 1, 5], [2, 1, 2, 1], [1, 1, 1, 1]];
    for own in spreads {
        let right = numbers(own.iter().product(), 71);
        let of = |combine: Combine, a: f32, b: f32| match combine {
            Combine::Add => a + b,
            Combine::Subtract => a - b,
            Combine::SubtractFrom => b - a,
            Combine::Multiply => a * b,
        };
        let all = [
            Combine::Add,
            Combine::Subtract,
            Combine::SubtractFrom,
            Combine::Multiply,
        ];
        for combine in all {
            let operation = Operation::Elementwise {
                combine: Some(combine),
                activation: None,
            };
            let found = run(operation, &[(&left, &shape), (&right, &own)], &shape);
            for (place, (a, b, m, n)) in places(shape).enumerate() {
                let at = |index: usize, axis: usize| if own[axis] == 1 { 0 } else { index };
                let place_right =
                    ((at(a, 0) * own[1] + at(b, 1)) * own[2] + at(m, 2)) * own[3] + at(n, 3);
                let expected = of(combine, left[place], right[place_right]);
                assert_eq!(
                    found[place].to_bits(),
                    expected.to_bits(),
                    "{combine:?} {own:?} {place}"
                );
            }
        }
    }
}

#[test]
fn more_rows_than_one_axis_of_the_grid_takes_are_all_done() {
    let rows = 40_000;
    let values = numbers(2 * rows, 73);
    let softmax = run(
        Operation::Softmax { scale: 1.0 },
        &[(&values, &[rows, 2])],
        &[rows, 2],
    );
    for (row, found) in softmax.chunks(2).enumerate() {
        assert!(
            (found[0] + found[1] - 1.0).abs() < 1e-6,
            "row {row}: {found:?}"
        );
    }
}

#[test]
fn a_constant_and_a_view_are_values_like_others() {
    let combine = Operation::Elementwise {
        combine: Some(Combine::Add),
        activation: None,
    };
    let steps = vec![
        Step {
            operation: Operation::View,
            inputs: vec![0],
        },
        Step {
            operation: combine,
            inputs: vec![2, 1],
        },
        Step {
            operation: Operation::View,
            inputs: vec![3],
        },
    ];
    let sources = [Source::Given, Source::Constant(vec![10.0, 20.0, 30.0])];
    let program = Program::new(gpu(), &sources, steps, &[4, 2]).expect("it fits");
    let shapes = [vec![6], vec![3], vec![2, 3], vec![2, 3], vec![3, 2]];
    let results = program
        .run(&[&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], &shapes, Choice::Likely)
        .expect("it runs");
    assert_eq!(results[0], [11.0, 22.0, 33.0, 14.0, 25.0, 36.0]);
    assert_eq!(results[1], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}
