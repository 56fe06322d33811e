//! How far a step on the card may be from the same step on the CPU.
//!
//! Both may be off, on opposite sides: about twice the bounds that `shaders/*.wgsl` state, with what tract's own
//! functions add.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::change_axes::AxisOp;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::math::{Max, Min};
use tract_onnx::tract_core::ops::nn::LeakyRelu;

use super::on_cpu::Chain;
use crate::cpu::dense::Dense;
use crate::cpu::elements;
use crate::cpu::norm::Norm;
use crate::cpu::softmax::Softmax;
use crate::gpu::Weights;

const UNIT: f64 = 1.0 / (1 << 24) as f64;
/// The largest number of 16 bits.
const LARGEST_HALF: f64 = 65_504.0;
/// Numbers below it may be taken as 0.
const LEAST: f64 = f32::MIN_POSITIVE as f64;

/// For each element of the result. `inputs` are what the step is given, `made` what each of its operators gives;
/// `kept_as` is how the card keeps the weights of dense layers.
pub(super) fn of(
    chain: &Chain,
    inputs: &[&Tensor],
    made: &[Tensor],
    symbols: &SymbolValues,
    kept_as: Weights,
) -> TractResult<Vec<f64>> {
    let operator = &chain.operators[0];
    let mut bounds = if let Some(dense) = operator.downcast_ref::<Dense>() {
        linear(dense, inputs, &made[0], kept_as)?
    } else if let Some(product) = operator.downcast_ref::<EinSum>() {
        of_product(product, inputs, &made[0], symbols)?
    } else if let Some(softmax) = operator.downcast_ref::<Softmax>() {
        of_softmax(softmax, inputs, &made[0])?
    } else if let Some(norm) = operator.downcast_ref::<Norm>() {
        of_norm(norm, inputs[0])?
    } else if operator.is::<AxisOp>() {
        vec![0.0; made[0].len()]
    } else if let Some(function) = operator.downcast_ref::<ElementWiseOp>() {
        through(function, &vec![0.0; made[0].len()], inputs[0])?
    } else {
        sums(inputs, &made[0])?
    };
    for (function, before) in chain.operators[1..].iter().zip(made) {
        if let Some(function) = function.downcast_ref::<ElementWiseOp>() {
            bounds = through(function, &bounds, before)?;
        }
    }
    Ok(bounds)
}

/// Whether the last operator may make a number of a NaN here, which it does not on the card.
pub(super) fn may_lose_nan(chain: &Chain) -> bool {
    chain.operators.last().is_some_and(|last| {
        let binary = last.downcast_ref::<TypedBinOp>();
        let bounds = binary.is_some_and(|op| op.0.is::<Max>() || op.0.is::<Min>());
        bounds || last.is::<ElementWiseOp>()
    })
}

fn ulp(value: f64) -> f64 {
    2.0 * UNIT * value.abs().max(LEAST)
}

fn wide(tensor: &Tensor) -> TractResult<Vec<f64>> {
    Ok(elements::<f32>(tensor)?
        .iter()
        .map(|value| f64::from(*value))
        .collect())
}

/// Sums of products: `sqrt(k) * 2^-24 * sum|row||weight|`, 4 ulp of all that is added, and what the weights lose.
fn linear(
    dense: &Dense,
    inputs: &[&Tensor],
    made: &Tensor,
    kept_as: Weights,
) -> TractResult<Vec<f64>> {
    let (k, n) = (dense.weights().k(), dense.weights().n());
    let (weights, bias) = (dense.weights().unpacked(), dense.bias());
    let rows = wide(inputs[0])?;
    let residual = inputs.get(1).map(|residual| wide(residual)).transpose()?;
    let mut largest_weights = vec![0.0f64; n];
    for row in weights.chunks_exact(n) {
        for (largest, weight) in largest_weights.iter_mut().zip(row) {
            *largest = largest.max(f64::from(weight.abs()));
        }
    }
    let mut bounds = wide(made)?;
    let mut weight_sizes = vec![0.0f64; n];
    for row in weights.chunks_exact(n) {
        for (size, weight) in weight_sizes.iter_mut().zip(row) {
            *size += f64::from(weight.abs());
        }
    }
    let (mut sizes, mut beyond) = (vec![0.0; n], vec![0.0; n]);
    for (row, (values, bounds)) in rows
        .chunks_exact(k)
        .zip(bounds.chunks_exact_mut(n))
        .enumerate()
    {
        sizes.fill(0.0);
        beyond.fill(0.0);
        for (value, weights) in values.iter().zip(weights.chunks_exact(n)) {
            // What is infinite stays so.
            let over = match value.is_finite() {
                true => (value.abs() - LARGEST_HALF).max(0.0),
                false => 0.0,
            };
            for ((size, beyond), weight) in sizes.iter_mut().zip(&mut beyond).zip(weights) {
                *size += (value * f64::from(*weight)).abs();
                *beyond += over * f64::from(weight.abs());
            }
        }
        let row_size: f64 = values.iter().map(|value| value.abs()).sum();
        for (column, bound) in bounds.iter_mut().enumerate() {
            let added = residual
                .as_ref()
                .map_or(0.0, |residual| residual[row * n + column].abs());
            let largest = sizes[column].max(f64::from(bias[column]).abs()).max(added);
            let lost = match kept_as {
                Weights::F32 => 0.0,
                // Below the normal halves a weight is within 2^-25.
                Weights::F16 => sizes[column] / 2048.0 + row_size / f64::from(1 << 25),
                // The same for the rows, and what of them is too large: the bound of the card's own products.
                Weights::Half => {
                    let small = row_size + weight_sizes[column];
                    2.001 * sizes[column] / 2048.0 + small / f64::from(1 << 25) + beyond[column]
                }
                Weights::Int8 => 1.001 * row_size * largest_weights[column] / 254.0,
            };
            *bound = sum_bound(k, sizes[column]) + 8.0 * ulp(largest) + lost;
        }
    }
    Ok(bounds)
}

fn sum_bound(k: usize, size: f64) -> f64 {
    2.0 * (k as f64).sqrt() * UNIT * size + k as f64 * LEAST
}

/// The size of the sums is the product of the sizes.
fn of_product(
    product: &EinSum,
    inputs: &[&Tensor],
    made: &Tensor,
    symbols: &SymbolValues,
) -> TractResult<Vec<f64>> {
    let sizes = inputs.iter().map(|input| {
        let sizes: Vec<f32> = elements::<f32>(input)?
            .iter()
            .map(|value| value.abs())
            .collect();
        Ok(Tensor::from_shape(input.shape(), &sizes)?.into_tvalue())
    });
    let chain = Chain {
        operators: vec![Box::new(product.clone())],
        inputs: vec![],
    };
    let sizes = chain.apply(sizes.collect::<TractResult<TVec<_>>>()?, symbols)?;
    let summed = product
        .axes
        .iter_all_axes()
        .find(|axis| axis.outputs[0].is_empty());
    let k = summed.map_or(1, |axis| inputs[0].shape()[axis.inputs[0][0]]);
    ensure!(sizes[0].shape() == made.shape(), "a product has one shape");
    let sizes = wide(&sizes[0])?;
    Ok(sizes
        .iter()
        .map(|size| sum_bound(k, *size) + ulp(*size))
        .collect())
}

/// A relative error of the exponentials, as large as the error of what is raised to.
fn of_softmax(softmax: &Softmax, inputs: &[&Tensor], made: &Tensor) -> TractResult<Vec<f64>> {
    let scale = softmax
        .over_last_axis(made.rank())
        .context("along the last axis")?;
    let columns = made.shape().last().copied().unwrap_or(1).max(1);
    let scores = wide(inputs[0])?;
    let mask = match inputs.get(1) {
        Some(mask) => Some(wide(&mask.broadcast_to_shape(made.shape())?)?),
        None => None,
    };
    let mut bounds = wide(made)?;
    for (row, bounds) in bounds.chunks_exact_mut(columns).enumerate() {
        let at = |column: usize| {
            let place = row * columns + column;
            let score = scores[place] * f64::from(scale);
            let mask = mask.as_ref().map_or(0.0, |mask| mask[place]);
            (score + mask, score.abs() + mask.abs())
        };
        let largest = (0..columns)
            .map(|column| at(column).0)
            .fold(f64::NEG_INFINITY, f64::max);
        // What is far below the largest counts for nothing, however large it is.
        let sizes = (0..columns)
            .map(at)
            .filter(|(score, _)| *score > largest - 100.0);
        let size = sizes.map(|(_, size)| size).fold(0.0, f64::max);
        let relative = UNIT * (32.0 + columns as f64 / 8.0 + 8.0 * size);
        bounds
            .iter_mut()
            .for_each(|bound| *bound = *bound * relative + 1e-35);
    }
    Ok(bounds)
}

/// See `shaders/norm.wgsl`.
fn of_norm(norm: &Norm, rows: &Tensor) -> TractResult<Vec<f64>> {
    let mut bounds = wide(rows)?;
    let part = |values: &Option<Arc<[f32]>>, column: usize, without: f64| {
        values
            .as_ref()
            .map_or(without, |values| f64::from(values[column]))
    };
    for row in bounds.chunks_exact_mut(norm.columns) {
        let length = norm.columns as f64;
        let mean = if norm.centered {
            row.iter().sum::<f64>() / length
        } else {
            0.0
        };
        let squares = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / length;
        let root = (squares + f64::from(norm.epsilon)).sqrt();
        let largest = row
            .iter()
            .fold(0.0, |largest: f64, value| largest.max(value.abs()));
        for (column, value) in row.iter_mut().enumerate() {
            let scale = part(&norm.scale, column, 1.0);
            let result = (*value - mean) / root * scale;
            let size = result.abs() * (1.0 + largest / root) + scale.abs() * (1.0 + largest / root);
            let shift = part(&norm.shift, column, 0.0);
            *value =
                2.0 * UNIT * (8.0 + length.sqrt()) * size + 2.0 * ulp(result + shift) + ulp(shift);
        }
    }
    Ok(bounds)
}

/// What an error of `bounds` before a function is after it, and the function's own.
fn through(function: &ElementWiseOp, bounds: &[f64], before: &Tensor) -> TractResult<Vec<f64>> {
    // Steeper than 1.5 is none of them, but for a leaky relu that is no longer one.
    let leaky = function.0.downcast_ref::<LeakyRelu>();
    let steepest = leaky.map_or(1.5, |leaky| f64::from(leaky.alpha).abs().max(1.5));
    // tract's are polynomials that are within some 1e-6.
    let own = |value: f64| {
        if leaky.is_some() {
            2.0 * ulp(value * steepest)
        } else {
            4e-6 * value.abs().max(1.0)
        }
    };
    let before = wide(before)?;
    let both = bounds.iter().zip(before);
    Ok(both
        .map(|(bound, value)| steepest * bound + own(value))
        .collect())
}

/// Sums, differences, products and bounds of two values: a few ulp of the largest of the three.
fn sums(inputs: &[&Tensor], made: &Tensor) -> TractResult<Vec<f64>> {
    let mut bounds: Vec<f64> = wide(made)?.into_iter().map(f64::abs).collect();
    for input in inputs {
        let input = wide(&input.broadcast_to_shape(made.shape())?)?;
        for (bound, value) in bounds.iter_mut().zip(input) {
            *bound = bound.max(value.abs());
        }
    }
    Ok(bounds
        .into_iter()
        .map(|largest| 2.0 * ulp(largest))
        .collect())
}
