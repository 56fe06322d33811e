//! What an operator of ours does with its sums before it stores them: bias, residual, bounds.
//!
//! Each comes from an operator that follows in the graph; [`absorb`] takes them in one by one. A scale goes into the
//! weights.

use std::borrow::Cow;
use std::sync::Arc;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::math::{Add, Max, Min, Mul};

use super::gemm::PackedWeights;
use super::{bits, elements};

/// Factors between this and one over this go into weights. Beyond, those might leave the normal range of `f16`, as which
/// a card may keep them, where the sums of them would not leave that of `f32`.
const MOST_FACTOR: f32 = 64.0;

/// Done in this order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail {
    /// One value for each column or channel.
    pub(crate) bias: Option<Arc<[f32]>>,
    /// The operator has one more input, shaped like its output, which is added.
    pub(crate) residual: bool,
    /// Lower and upper bound; a NaN stays one.
    pub(crate) clamp: Option<(f32, f32)>,
}

/// Bit by bit, as tract asks of operators whether they are the same.
impl PartialEq for Tail {
    fn eq(&self, other: &Self) -> bool {
        let bits = |tail: &Self| {
            let clamp = tail
                .clamp
                .map(|(low, high)| (low.to_bits(), high.to_bits()));
            (bits(tail.bias.as_deref()), tail.residual, clamp)
        };
        bits(self) == bits(other)
    }
}

impl Eq for Tail {}

/// An operator with a [`Tail`].
pub(crate) trait HasTail: TypedOp + Clone {
    fn tail(&mut self) -> &mut Tail;

    /// `[k, n]`, one column for each value of a bias.
    fn weights(&mut self) -> &mut Arc<PackedWeights>;

    /// `constant`, which is spread over the output of `rank` axes, as one value for each column of the weights, if it
    /// is that.
    fn per_column(&self, constant: &Tensor, rank: usize) -> TractResult<Option<Arc<[f32]>>>;
}

impl Tail {
    pub(crate) fn with_bias(bias: Option<Arc<[f32]>>) -> Self {
        Tail {
            bias,
            ..Self::default()
        }
    }

    /// The elements of the residual among the inputs of an operator whose output has this shape.
    pub(crate) fn residual<'a>(
        inputs: &[&'a Tensor],
        shape: &[usize],
    ) -> TractResult<Option<Cow<'a, [f32]>>> {
        let Some(residual) = inputs.get(1) else {
            return Ok(None);
        };
        ensure!(residual.shape() == shape, "the residual has another shape");
        elements(residual).map(Some)
    }
}

/// Lets an operator `O` absorb `op`, which follows it, if it can.
pub(crate) fn absorb<O: HasTail>(
    _: &(),
    model: &TypedModel,
    node: &TypedNode,
    name: &str,
    op: &TypedBinOp,
) -> TractResult<Option<TypedModelPatch>> {
    for place in 0..2 {
        let before = model.node(node.inputs[place].node);
        let Some(grower) = before.op_as::<O>() else {
            continue;
        };
        // An operator that spreads our output over more rows or columns is no part of it.
        let spreads = before.outputs[0].fact.shape != node.outputs[0].fact.shape;
        if spreads
            || model.single_succ(before.id)?.is_none()
            || model.outputs.contains(&before.id.into())
        {
            continue;
        }
        let other = node.inputs[1 - place];
        let mut grown = grower.clone();
        let Some(residual) = grow(&mut grown, op, model, other, node)? else {
            continue;
        };
        let mut patch = TypedModelPatch::new(name);
        let inputs = before.inputs.iter().chain(&residual);
        let taps = inputs
            .map(|input| patch.tap_model(model, *input))
            .collect::<TractResult<TVec<_>>>()?;
        let output = patch.wire_node(&node.name, grown, &taps)?;
        patch.shunt_outside(model, node.id.into(), output[0])?;
        return Ok(Some(patch));
    }
    Ok(None)
}

/// `None` if `op` is not for the tail; else the input that the operator takes in addition, if any.
fn grow<O: HasTail>(
    grown: &mut O,
    op: &TypedBinOp,
    model: &TypedModel,
    other: OutletId,
    node: &TypedNode,
) -> TractResult<Option<Option<OutletId>>> {
    let fact = model.outlet_fact(other)?;
    let output = &node.outputs[0].fact;
    let constant = match &fact.konst {
        Some(constant) if constant.is_plain_ram() => Some(constant.cast_to::<f32>()?.into_owned()),
        Some(_) => return Ok(None),
        None => None,
    };
    if op.0.is::<Add>() {
        let tail = grown.tail();
        if tail.clamp.is_some() || tail.residual {
            return Ok(None);
        }
        return match constant {
            Some(constant) => {
                let Some(more) = grown.per_column(&constant, output.rank())? else {
                    return Ok(None);
                };
                let tail = grown.tail();
                tail.bias = Some(match tail.bias.take() {
                    Some(bias) => bias
                        .iter()
                        .zip(&*more)
                        .map(|(one, other)| one + other)
                        .collect(),
                    None => more,
                });
                Ok(Some(None))
            }
            None if fact.shape == output.shape && fact.datum_type == output.datum_type => {
                tail.residual = true;
                Ok(Some(Some(other)))
            }
            _ => Ok(None),
        };
    }
    if op.0.is::<Mul>() {
        let tail = grown.tail();
        let Some(constant) = constant.filter(|_| tail.clamp.is_none() && !tail.residual) else {
            return Ok(None);
        };
        let factors = grown.per_column(&constant, output.rank())?;
        let factors = factors.filter(|factors| factors.iter().all(goes_into_weights));
        let scaled = factors.is_some_and(|factors| scale(grown, &factors));
        return Ok(scaled.then_some(None));
    }
    let (is_max, is_min) = (op.0.is::<Max>(), op.0.is::<Min>());
    let bound = constant.filter(|constant| constant.len() == 1 && (is_max || is_min));
    let Some(bound) = bound else {
        return Ok(None);
    };
    let bound = bound.try_as_plain_ram()?.as_slice::<f32>()?[0];
    let (low, high) = grown
        .tail()
        .clamp
        .unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
    // A lower bound above the upper one would come first here and last there.
    if bound.is_nan() || (is_max && bound > high) || (is_min && bound < low) {
        return Ok(None);
    }
    let (low, high) = if is_max {
        (low.max(bound), high)
    } else {
        (low, high.min(bound))
    };
    grown.tail().clamp = Some((low, high));
    Ok(Some(None))
}

fn goes_into_weights(factor: &f32) -> bool {
    (1.0 / MOST_FACTOR..=MOST_FACTOR).contains(&factor.abs())
}

/// Multiplies all sums, and the bias they have so far; not if a weight would leave its range.
fn scale<O: HasTail>(grown: &mut O, factors: &[f32]) -> bool {
    let weights = grown.weights();
    let Some(scaled) = weights.scaled(factors) else {
        return false;
    };
    *weights = scaled;
    let tail = grown.tail();
    tail.bias = tail.bias.take().map(|bias| {
        let both = bias.iter().zip(factors);
        both.map(|(bias, factor)| bias * factor).collect()
    });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_that_might_spoil_weights_stay_outside() {
        let goes = [1.0, -0.125, 64.0, 1.0 / 64.0];
        assert!(goes.iter().all(goes_into_weights));
        let stays = [0.0, 65.0, 1e-6, f32::NAN, f32::INFINITY];
        assert!(!stays.iter().any(goes_into_weights));
        let scaled = |weight: f32, factor| {
            let weights = PackedWeights::shared(&[0.0, weight], 2, 1);
            weights.scaled(&[factor]).map(|scaled| scaled.unpacked())
        };
        assert_eq!(scaled(3.0, 2.0), Some(vec![0.0, 6.0]));
        assert_eq!(scaled(f32::MAX, 2.0), None);
        assert_eq!(scaled(f32::MIN_POSITIVE, 0.5), None);
    }
}
