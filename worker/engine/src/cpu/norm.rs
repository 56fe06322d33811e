//! Layer norm and RMS norm, each as one operator.
//!
//! tract makes six of a layer norm, and each of them goes through all rows once more.

#![allow(
    unsafe_code,
    reason = "a row is read and written by registers, as many as it holds whole"
)]

use std::sync::Arc;

use tract_linalg::multithread::par_chunks_mut;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::model::Rewriter;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::math::{Add, Mul, Sub};
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer, RmsNorm};

use super::simd::{Isa, Kernel, Simd, dispatch, total};
use super::{bits, contiguous};

/// Replaces norms of `f32` over the last axis, then lets them absorb what is multiplied and added.
pub(crate) fn apply(model: &mut TypedModel) -> TractResult<()> {
    Rewriter::<()>::default()
        .with_rule_for("norm", replace)
        .with_rule_for("norm-tail", absorb)
        .rewrite(&(), model)
}

/// `(row - mean) / sqrt(mean of squares + epsilon) * scale + shift` over the last axis, `f32`, any shape.
///
/// Without `centered` the mean is not subtracted. Within `2^-24 * (8 + sqrt(columns))` of the largest number that
/// comes in between. A row's bits do not depend on the other rows; a row with a NaN is NaN throughout.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub(crate) columns: usize,
    pub(crate) centered: bool,
    pub(crate) epsilon: f32,
    pub(crate) scale: Option<Arc<[f32]>>,
    pub(crate) shift: Option<Arc<[f32]>>,
}

impl PartialEq for Norm {
    fn eq(&self, other: &Self) -> bool {
        let parts = |norm: &Self| {
            let shape = (norm.columns, norm.centered, norm.epsilon.to_bits());
            (
                shape,
                bits(norm.scale.as_deref()),
                bits(norm.shift.as_deref()),
            )
        };
        parts(self) == parts(other)
    }
}

impl Eq for Norm {}

impl Op for Norm {
    fn name(&self) -> StaticName {
        "RowNorm".into()
    }

    op_as_typed_op!();
}

impl TypedOp for Norm {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].without_value()))
    }

    as_op!();
}

impl EvalOp for Norm {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut output = contiguous::<f32>(args_1!(inputs))?;
        ensure!(
            output.shape().last() == Some(&self.columns),
            "rows of {:?} for a norm of {}",
            output.shape().last(),
            self.columns
        );
        let count = output.len();
        if count > 0 {
            let mut values = output.try_as_plain_ram_mut()?;
            let values = values.as_slice_mut::<f32>()?;
            par_chunks_mut(values, self.columns, count, |_, values| {
                dispatch(Isa::best(), Rows { values, norm: self });
                Ok(())
            })?;
        }
        Ok(tvec!(output.into_tvalue()))
    }
}

/// Whole rows, one after the other.
struct Rows<'a> {
    values: &'a mut [f32],
    norm: &'a Norm,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        for row in self.values.chunks_exact_mut(self.norm.columns) {
            normalize::<S>(row, self.norm);
        }
    }
}

#[inline(always)]
fn normalize<S: Simd>(row: &mut [f32], norm: &Norm) {
    let length = row.len() as f32;
    let (whole, rest) = row.split_at_mut(row.len() - row.len() % S::LANES);
    // SAFETY: `dispatch` runs this where the instructions exist, and chunks are whole registers.
    unsafe {
        if norm.centered {
            let mut sum = S::splat(0.0);
            for chunk in whole.chunks_exact(S::LANES) {
                sum = S::add(sum, S::load(chunk.as_ptr()));
            }
            let mean = (total::<S>(sum) + rest.iter().sum::<f32>()) / length;
            for chunk in whole.chunks_exact_mut(S::LANES) {
                let centered = S::add(S::load(chunk.as_ptr()), S::splat(-mean));
                S::store(chunk.as_mut_ptr(), centered);
            }
            rest.iter_mut().for_each(|value| *value -= mean);
        }
        let mut squares = S::splat(0.0);
        for chunk in whole.chunks_exact(S::LANES) {
            let value = S::load(chunk.as_ptr());
            squares = S::mul_add(value, value, squares);
        }
        let squares = total::<S>(squares) + rest.iter().map(|value| value * value).sum::<f32>();
        let factor = 1.0 / (squares / length + norm.epsilon).sqrt();
        for chunk in whole.chunks_exact_mut(S::LANES) {
            let value = S::mul(S::load(chunk.as_ptr()), S::splat(factor));
            S::store(chunk.as_mut_ptr(), value);
        }
        rest.iter_mut().for_each(|value| *value *= factor);
    }
    // Plain loops, which the compiler turns into registers by itself.
    if let Some(scale) = &norm.scale {
        row.iter_mut()
            .zip(&scale[..])
            .for_each(|(value, scale)| *value *= scale);
    }
    if let Some(shift) = &norm.shift {
        row.iter_mut()
            .zip(&shift[..])
            .for_each(|(value, shift)| *value += shift);
    }
}

/// An RMS norm, or a layer norm if what it is given is centered first.
fn replace(
    _: &(),
    model: &TypedModel,
    node: &TypedNode,
    _name: &str,
    op: &RmsNorm,
) -> TractResult<Option<TypedModelPatch>> {
    let fact = model.outlet_fact(node.inputs[0])?;
    let columns = fact.shape.last().and_then(|size| size.to_usize().ok());
    let Some(columns) = columns.filter(|columns| *columns > 0) else {
        return Ok(None);
    };
    if fact.datum_type != f32::datum_type() || op.axis + 1 != fact.rank() {
        return Ok(None);
    }
    let centered = centered(model, node.inputs[0], columns)?;
    let norm = Norm {
        columns,
        centered: centered.is_some(),
        epsilon: op.eps.cast_to_scalar::<f32>()?,
        scale: None,
        shift: None,
    };
    let rows = centered.unwrap_or(node.inputs[0]);
    TypedModelPatch::replace_single_op(model, node, &[rows], norm).map(Some)
}

/// The rows of which `outlet` is the difference to their mean, if it is one.
fn centered(model: &TypedModel, outlet: OutletId, columns: usize) -> TractResult<Option<OutletId>> {
    let difference = model.node(outlet.node);
    if !is_binary::<Sub>(difference) {
        return Ok(None);
    }
    let (rows, mean) = (difference.inputs[0], model.node(difference.inputs[1].node));
    if !is_binary::<Mul>(mean) {
        return Ok(None);
    }
    for (sum, factor) in [(0, 1), (1, 0)] {
        let sum = model.node(mean.inputs[sum].node);
        let Some(factor) = constant(model, mean.inputs[factor])? else {
            continue;
        };
        let Some(reduce) = sum.op_as::<Reduce>() else {
            continue;
        };
        let over_last = *reduce.axes == [model.outlet_fact(rows)?.rank() - 1];
        let is_sum = reduce.reducer == Reducer::Sum && over_last && sum.inputs[0] == rows;
        let is_part = factor.len() == 1 && (factor[0] * columns as f32 - 1.0).abs() < 1e-6;
        if is_sum && is_part {
            return Ok(Some(rows));
        }
    }
    Ok(None)
}

fn is_binary<O: tract_onnx::tract_core::ops::binary::BinMiniOp>(node: &TypedNode) -> bool {
    let op = node.op_as::<TypedBinOp>();
    op.is_some_and(|op| op.0.is::<O>())
}

/// The numbers of a constant.
fn constant(model: &TypedModel, outlet: OutletId) -> TractResult<Option<Vec<f32>>> {
    let Some(constant) = &model.outlet_fact(outlet)?.konst else {
        return Ok(None);
    };
    if constant.datum_type() != f32::datum_type() || !constant.is_plain_ram() {
        return Ok(None);
    }
    Ok(Some(
        constant.try_as_plain_ram()?.as_slice::<f32>()?.to_vec(),
    ))
}

/// The scale first, then the shift.
fn absorb(
    _: &(),
    model: &TypedModel,
    node: &TypedNode,
    _name: &str,
    op: &TypedBinOp,
) -> TractResult<Option<TypedModelPatch>> {
    for place in 0..2 {
        let before = model.node(node.inputs[place].node);
        let Some(norm) = before.op_as::<Norm>() else {
            continue;
        };
        let other = node.inputs[1 - place];
        let Some(values) = constant(model, other)? else {
            continue;
        };
        let along_last = model
            .outlet_fact(other)?
            .shape
            .last()
            .is_some_and(|size| *size == norm.columns.to_dim());
        let spreads = before.outputs[0].fact.shape != node.outputs[0].fact.shape;
        if values.len() != norm.columns
            || !along_last
            || spreads
            || norm.shift.is_some()
            || model.single_succ(before.id)?.is_none()
            || model.outputs.contains(&before.id.into())
        {
            continue;
        }
        let mut grown = norm.clone();
        if op.0.is::<Mul>() && norm.scale.is_none() {
            grown.scale = Some(values.into());
        } else if op.0.is::<Add>() {
            grown.shift = Some(values.into());
        } else {
            continue;
        }
        let mut patch = TypedModelPatch::new("norm-tail");
        let rows = patch.tap_model(model, before.inputs[0])?;
        let output = patch.wire_node(&node.name, grown, &[rows])?;
        patch.shunt_outside(model, node.id.into(), output[0])?;
        return Ok(Some(patch));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exact(row: &[f32], norm: &Norm) -> Vec<f64> {
        let length = row.len() as f64;
        let mean = row.iter().map(|value| f64::from(*value)).sum::<f64>() / length;
        let centered: Vec<f64> = row
            .iter()
            .map(|value| f64::from(*value) - if norm.centered { mean } else { 0.0 })
            .collect();
        let squares = centered.iter().map(|value| value * value).sum::<f64>() / length;
        let factor = 1.0 / (squares + f64::from(norm.epsilon)).sqrt();
        let part = |values: &Option<Arc<[f32]>>, column: usize, without: f64| {
            values
                .as_ref()
                .map_or(without, |values| f64::from(values[column]))
        };
        let values = centered.iter().enumerate();
        values
            .map(|(column, value)| {
                value * factor * part(&norm.scale, column, 1.0) + part(&norm.shift, column, 0.0)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn rows_of_any_length_are_within_the_bound_with_every_instruction(
            rows in 1usize..4,
            columns in 1usize..70,
            centered: bool,
            scaled: bool,
            shifted: bool,
            seed in 0u32..1_000,
        ) {
            let number = |at: usize| ((at as u32 * 7_919 + seed * 104_729) % 2_003) as f32 / 400.0 - 2.5;
            let values: Vec<f32> = (0..rows * columns).map(number).collect();
            let column = |start: usize| (0..columns).map(|at| number(start + at)).collect::<Arc<[f32]>>();
            let norm = Norm {
                columns,
                centered,
                epsilon: 1e-5,
                scale: scaled.then(|| column(5)),
                shift: shifted.then(|| column(11)),
            };
            for isa in Isa::available() {
                let mut found = values.clone();
                dispatch(isa, Rows { values: &mut found, norm: &norm });
                for (row, found) in values.chunks(columns).zip(found.chunks(columns)) {
                    for (found, exact) in found.iter().zip(exact(row, &norm)) {
                        let error = (f64::from(*found) - exact).abs();
                        // Nearly equal numbers in a row leave differences of a few ulp, which the root makes large.
                        prop_assert!(error <= 2e-5 * (1.0 + exact.abs()), "{isa:?}: {found} for {exact}");
                    }
                }
            }
        }
    }
}
