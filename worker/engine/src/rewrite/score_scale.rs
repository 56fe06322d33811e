//! The scale of attention, where a model multiplies queries and keys by its square root each.
//!
//! Exporters write it so for the sake of 16 bits, in which products overflow. In `f32` the scores may as well be
//! multiplied, which the softmax after them does on the way.

use std::ops::RangeInclusive;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::math::{Add, Mul, mul};
use tract_onnx::tract_core::ops::nn::Softmax;

/// Factors of scores in use are one over the root of a width, or the root of that. Others might take the scores out of
/// the range of `f32` where scaled queries and keys leave them in it.
const USUAL: RangeInclusive<f32> = 1e-3..=1.0;

/// Multiplies scores by the factors of queries and keys, instead of these, if a softmax comes next.
pub(super) fn rule(
    _: &(),
    model: &TypedModel,
    node: &TypedNode,
    name: &str,
    product: &EinSum,
) -> TractResult<Option<TypedModelPatch>> {
    let plain = product.q_params.is_none() && product.operating_dt == f32::datum_type();
    let &[left, right] = &node.inputs[..] else {
        return Ok(None);
    };
    if !plain || !leads_to_softmax(model, node)? {
        return Ok(None);
    }
    let scaled = [scaled(model, left)?, scaled(model, right)?];
    if scaled.iter().all(Option::is_none) {
        return Ok(None);
    }
    let factors = scaled.iter().flatten().map(|(_, factor)| *factor);
    let factor = factors.product::<f32>();
    if !USUAL.contains(&factor) {
        return Ok(None);
    }
    let without = |scaled: Option<(OutletId, f32)>, own| scaled.map_or(own, |(value, _)| value);
    let mut patch = TypedModelPatch::new(name);
    let values = [without(scaled[0], left), without(scaled[1], right)];
    let taps = patch.taps(model, &values)?;
    let scores = patch.wire_node(&node.name, product.clone(), &taps)?[0];
    let ones = vec![1; node.outputs[0].fact.rank()];
    let factor = patch.add_const(format!("{name}.factor"), tensor0(factor).into_shape(&ones)?)?;
    let scores = patch.wire_node(format!("{name}.scaled"), mul(), &[scores, factor])?;
    patch.shunt_outside(model, node.id.into(), scores[0])?;
    Ok(Some(patch))
}

/// Whether all that becomes of the scores is a softmax, of them alone or with a mask.
fn leads_to_softmax(model: &TypedModel, node: &TypedNode) -> TractResult<bool> {
    let mut node = node;
    while let Some(next) = model.single_succ(node.id)? {
        if model.outputs.contains(&node.id.into()) {
            return Ok(false);
        }
        if next.op_is::<Softmax>() {
            return Ok(true);
        }
        let mask_or_scale = |op: &TypedBinOp| op.0.is::<Add>() || op.0.is::<Mul>();
        if !next.op_as::<TypedBinOp>().is_some_and(mask_or_scale) {
            return Ok(false);
        }
        node = next;
    }
    Ok(false)
}

/// The value, and the number it is multiplied by, if `outlet` is such a product.
fn scaled(model: &TypedModel, outlet: OutletId) -> TractResult<Option<(OutletId, f32)>> {
    let node = model.node(outlet.node);
    if !node
        .op_as::<TypedBinOp>()
        .is_some_and(|op| op.0.is::<Mul>())
    {
        return Ok(None);
    }
    for (value, factor) in [(0, 1), (1, 0)] {
        let (value, factor) = (node.inputs[value], node.inputs[factor]);
        let Some(factor) = &model.outlet_fact(factor)?.konst else {
            continue;
        };
        let own = model.outlet_fact(value)?;
        let keeps = own.without_value() == node.outputs[0].fact.without_value();
        let is_number = factor.len() == 1 && factor.datum_type() == f32::datum_type();
        if is_number && factor.is_plain_ram() && keeps && own.konst.is_none() {
            let factor = factor.try_as_plain_ram()?.as_slice::<f32>()?[0];
            if USUAL.contains(&factor) {
                return Ok(Some((value, factor)));
            }
        }
    }
    Ok(None)
}
