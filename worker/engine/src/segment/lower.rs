//! What a node of the graph is in the words of the card.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::change_axes::AxisOp;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::math::{Add, Max, Min, Mul, Sub, Tanh};
use tract_onnx::tract_core::ops::nn::{
    GeluApproximate, GeluExact, HardSwish, LeakyRelu, Sigmoid, Silu,
};

use crate::cpu::dense::Dense;
use crate::cpu::norm::Norm;
use crate::cpu::softmax::Softmax;
use crate::gpu::{self, Activation, Axes, Combine, Layer, Operation, Pairs, Weights};

/// Most axes of what is spread over something else.
const MOST_AXES: usize = 4;

/// One node for the card.
pub(super) struct Lowered {
    pub(super) operation: Operation,
    /// What it works on, in the order of the operation.
    pub(super) inputs: TVec<OutletId>,
}

/// Whether the card can do what `node` does.
pub(super) fn is_supported(model: &TypedModel, node: &TypedNode) -> TractResult<bool> {
    let plain =
        |fact: &TypedFact| fact.datum_type == f32::datum_type() && fact.exotic_fact.is_none();
    let [output] = &node.outputs[..] else {
        return Ok(false);
    };
    let inputs = model.node_input_facts(node.id)?;
    if !plain(&output.fact) || !inputs.iter().all(|fact| plain(fact)) {
        return Ok(false);
    }
    Ok(lower(model, node)?.is_some())
}

/// `None` if the card cannot do it. All values of the node are `f32`. What the node brings with it is left out: see
/// [`with_numbers`].
pub(super) fn lower(model: &TypedModel, node: &TypedNode) -> TractResult<Option<Lowered>> {
    let as_they_are = |operation| {
        Some(Lowered {
            operation,
            inputs: node.inputs.iter().copied().collect(),
        })
    };
    let rank = node.outputs[0].fact.rank();
    if let Some(dense) = node.op_as::<Dense>() {
        let bounds = dense.bounds();
        return Ok(as_they_are(Operation::Linear(Layer {
            inputs: dense.weights().k(),
            outputs: dense.weights().n(),
            activation: bounds.map(|(low, high)| Activation::Clip { low, high }),
            ..Layer::default()
        })));
    }
    if let Some(softmax) = node.op_as::<Softmax>() {
        let scale = softmax.over_last_axis(rank);
        let few_axes = node.inputs.len() == 1 || rank <= MOST_AXES;
        let scale = scale.filter(|_| few_axes);
        return Ok(scale.and_then(|scale| as_they_are(Operation::Softmax { scale })));
    }
    if let Some(norm) = node.op_as::<Norm>() {
        return Ok(as_they_are(Operation::Norm(gpu::Norm {
            columns: norm.columns,
            centered: norm.centered,
            epsilon: norm.epsilon,
            ..gpu::Norm::default()
        })));
    }
    if let Some(op) = node.op_as::<ElementWiseOp>() {
        return Ok(activation(op).and_then(|activation| {
            as_they_are(Operation::Elementwise {
                combine: None,
                activation: Some(activation),
            })
        }));
    }
    if let Some(op) = node.op_as::<TypedBinOp>() {
        return binary(model, node, op);
    }
    if let Some(op) = node.op_as::<AxisOp>() {
        let keeps_order = match op {
            AxisOp::Add(_) | AxisOp::Rm(_) | AxisOp::Reshape(..) => true,
            AxisOp::Move(..) => false,
        };
        return Ok(keeps_order.then(|| as_they_are(Operation::View)).flatten());
    }
    if let Some(op) = node.op_as::<EinSum>() {
        let plain =
            op.q_params.is_none() && op.operating_dt == f32::datum_type() && node.inputs.len() == 2;
        if !plain {
            return Ok(None);
        }
        let shapes = model.node_input_facts(node.id)?;
        let is_one = |input: usize, axis: usize| shapes[input].shape[axis].is_one();
        let sizes_agree =
            op.axes
                .iter_all_axes()
                .all(|axis| match (&axis.inputs[0][..], &axis.inputs[1][..]) {
                    (&[left], &[right]) => {
                        shapes[0].shape[left] == shapes[1].shape[right]
                            || is_one(0, left)
                            || is_one(1, right)
                    }
                    _ => true,
                });
        let pairs = pairs(&op.axes, is_one).filter(|_| sizes_agree);
        return Ok(pairs.and_then(|pairs| as_they_are(Operation::Product(pairs))));
    }
    Ok(None)
}

/// `operation` with the numbers that the operators of which it was made bring with them.
pub(super) fn with_numbers(
    operation: &Operation,
    operators: &[Box<dyn TypedOp>],
    kept_as: Weights,
) -> Operation {
    match (operation, operators[0].downcast_ref::<Norm>()) {
        (Operation::Linear(layer), _) => {
            let layers = operators.iter();
            let layers = layers.filter_map(|operator| operator.downcast_ref::<Dense>());
            let layers: Vec<&Dense> = layers.collect();
            Operation::Linear(Layer {
                weights: side_by_side(&layers),
                bias: layers.iter().flat_map(|layer| layer.bias()).collect(),
                kept_as,
                ..layer.clone()
            })
        }
        (Operation::Norm(norm), Some(own)) => {
            let numbers =
                |values: &Option<Arc<[f32]>>| values.as_ref().map(|values| values.to_vec());
            Operation::Norm(gpu::Norm {
                scale: numbers(&own.scale),
                shift: numbers(&own.shift),
                ..norm.clone()
            })
        }
        (other, _) => other.clone(),
    }
}

/// Weights of layers that read the same rows, `[inputs, columns of all]`.
fn side_by_side(layers: &[&Dense]) -> Vec<f32> {
    if let [only] = layers {
        return only.weights().unpacked();
    }
    let unpacked = layers.iter().map(|layer| layer.weights());
    let unpacked: Vec<_> = unpacked.map(|own| (own.unpacked(), own.n())).collect();
    let inputs = layers.first().map_or(0, |layer| layer.weights().k());
    let rows = (0..inputs).flat_map(|row| {
        let own = unpacked.iter();
        own.flat_map(move |(weights, columns)| &weights[row * columns..][..*columns])
    });
    rows.copied().collect()
}

/// The function of each element, if the card has it.
pub(super) fn activation(op: &ElementWiseOp) -> Option<Activation> {
    let function = &op.0;
    if op.1.is_some() {
        return None;
    }
    if let Some(leaky) = function.downcast_ref::<LeakyRelu>() {
        return Some(Activation::LeakyRelu { slope: leaky.alpha });
    }
    if let Some(gelu) = function.downcast_ref::<GeluApproximate>() {
        return (!gelu.fast_impl).then_some(Activation::GeluTanh);
    }
    let found = [
        (function.is::<GeluExact>(), Activation::Gelu),
        (function.is::<Sigmoid>(), Activation::Sigmoid),
        (function.is::<Tanh>(), Activation::Tanh),
        (function.is::<Silu>(), Activation::Silu),
        (function.is::<HardSwish>(), Activation::HardSwish),
    ];
    let found = found.into_iter().find(|(is, _)| *is);
    found.map(|(_, activation)| activation)
}

fn binary(model: &TypedModel, node: &TypedNode, op: &TypedBinOp) -> TractResult<Option<Lowered>> {
    let output = &node.outputs[0].fact.shape;
    if op.1.is_some() || output.rank() > MOST_AXES {
        return Ok(None);
    }
    for (left, right) in [(0, 1), (1, 0)] {
        let (left, right) = (node.inputs[left], node.inputs[right]);
        if model.outlet_fact(left)?.shape != *output {
            continue;
        }
        if let Some(activation) = bound(model, op, right)? {
            return Ok(Some(Lowered {
                operation: Operation::Elementwise {
                    combine: None,
                    activation: Some(activation),
                },
                inputs: tvec!(left),
            }));
        }
        let combine = if op.0.is::<Add>() {
            Combine::Add
        } else if op.0.is::<Mul>() {
            Combine::Multiply
        } else if op.0.is::<Sub>() && left == node.inputs[0] {
            Combine::Subtract
        } else if op.0.is::<Sub>() {
            Combine::SubtractFrom
        } else {
            return Ok(None);
        };
        // What spreads must be known to do so: a size that may or may not be 1 is not.
        let own = &model.outlet_fact(right)?.shape;
        let spreads = own.rank() == output.rank()
            && own
                .iter()
                .zip(output.iter())
                .all(|(own, all)| own == all || own.is_one());
        if !spreads {
            continue;
        }
        return Ok(Some(Lowered {
            operation: Operation::Elementwise {
                combine: Some(combine),
                activation: None,
            },
            inputs: tvec!(left, right),
        }));
    }
    Ok(None)
}

/// The bound that `op` sets with a single constant.
fn bound(
    model: &TypedModel,
    op: &TypedBinOp,
    constant: OutletId,
) -> TractResult<Option<Activation>> {
    let Some(constant) = &model.outlet_fact(constant)?.konst else {
        return Ok(None);
    };
    if constant.len() != 1 {
        return Ok(None);
    }
    let value = constant.try_as_plain_ram()?.as_slice::<f32>()?[0];
    let (low, high) = (f32::NEG_INFINITY, f32::INFINITY);
    if op.0.is::<Max>() && !value.is_nan() {
        return Ok(Some(Activation::Clip { low: value, high }));
    }
    if op.0.is::<Min>() && !value.is_nan() {
        return Ok(Some(Activation::Clip { low, high: value }));
    }
    Ok(None)
}

/// The roles of the axes in a product of two values; `None` if it is more than that. `is_one` says whether an axis of
/// an input has size 1: beside a larger one on the other side it stands still.
fn pairs(axes: &AxesMapping, is_one: impl Fn(usize, usize) -> bool) -> Option<Pairs> {
    let mut pairs = Pairs::default();
    let mut batch: TVec<[Option<usize>; 3]> = tvec!();
    let (mut rows, mut columns): (TVec<[usize; 2]>, TVec<[usize; 2]>) = (tvec!(), tvec!());
    let mut summed = false;
    for axis in axes.iter_all_axes() {
        match (
            &axis.inputs[0][..],
            &axis.inputs[1][..],
            &axis.outputs[0][..],
        ) {
            // One that is spread over the other would be multiplied, not summed.
            (&[left], &[right], &[]) if !summed && is_one(0, left) == is_one(1, right) => {
                summed = true;
                (pairs.left.column, pairs.right.row) = (Some(left), Some(right));
            }
            (&[left], &[right], &[result]) => {
                let both_one = is_one(0, left) && is_one(1, right);
                let place = |input, axis| (both_one || !is_one(input, axis)).then_some(axis);
                batch.push([place(0, left), place(1, right), Some(result)]);
            }
            (&[left], &[], &[result]) => rows.push([left, result]),
            (&[], &[right], &[result]) => columns.push([right, result]),
            _ => return None,
        }
    }
    // Of several axes that one side alone has, the last is that of the matrix; the others are pairs, for
    // which the other side stands still.
    rows.sort_unstable_by_key(|[_, result]| *result);
    columns.sort_unstable_by_key(|[_, result]| *result);
    if let Some([left, result]) = rows.pop() {
        (pairs.left.row, pairs.result.row) = (Some(left), Some(result));
    }
    if let Some([right, result]) = columns.pop() {
        (pairs.right.column, pairs.result.column) = (Some(right), Some(result));
    }
    batch.extend(
        rows.iter()
            .map(|[left, result]| [Some(*left), None, Some(*result)]),
    );
    batch.extend(
        columns
            .iter()
            .map(|[right, result]| [None, Some(*right), Some(*result)]),
    );
    let places = |axes: &mut Axes, outer: Option<usize>, inner: Option<usize>| {
        (axes.outer, axes.inner) = (outer, inner);
    };
    let none = [None; 3];
    let (outer, inner) = match &batch[..] {
        [] => (none, none),
        [inner] => (none, *inner),
        [outer, inner] => (*outer, *inner),
        _ => return None,
    };
    places(&mut pairs.left, outer[0], inner[0]);
    places(&mut pairs.right, outer[1], inner[1]);
    places(&mut pairs.result, outer[2], inner[2]);
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs_of(expression: &str) -> Option<Pairs> {
        pairs(&expression.parse::<AxesMapping>().expect("axes"), |_, _| {
            false
        })
    }

    #[test]
    fn attention_in_both_directions_is_a_product_of_pairs() {
        let axes = |outer, inner, row, column| Axes {
            outer: Some(outer),
            inner: Some(inner),
            row: Some(row),
            column: Some(column),
        };
        let scores = pairs_of("ambk,anbk->abmn").expect("a product");
        assert_eq!(scores.left, axes(0, 2, 1, 3));
        // The rows of the right side are what is summed over.
        assert_eq!(scores.right, axes(0, 2, 3, 1));
        assert_eq!(scores.result, axes(0, 1, 2, 3));
        let mixed = pairs_of("abmk,akbn->ambn").expect("a product");
        assert_eq!(mixed.left, axes(0, 1, 2, 3));
        assert_eq!(mixed.right, axes(0, 2, 1, 3));
        assert_eq!(mixed.result, axes(0, 2, 1, 3));
    }

    #[test]
    fn what_one_side_alone_has_more_of_is_a_pair_too() {
        let spread = pairs_of("abmk,kn->abmn").expect("a product");
        assert_eq!(spread.left.inner, Some(1));
        assert_eq!(spread.right.inner, None);
        assert_eq!(pairs_of("mk,kn->mn").expect("a product").result.outer, None);
    }

    #[test]
    fn one_head_of_keys_for_all_heads_of_queries_stands_still() {
        let axes = "abmk,abkn->abmn".parse::<AxesMapping>().expect("axes");
        let one_head = |input: usize, axis: usize| (input, axis) == (1, 1);
        let shared = pairs(&axes, one_head).expect("a product");
        assert_eq!((shared.left.inner, shared.right.inner), (Some(1), None));
        assert_eq!(shared.right.outer, Some(0));
        let sum_over_one = |input: usize, axis: usize| (input, axis) == (1, 2);
        assert_eq!(pairs(&axes, sum_over_one), None);
    }

    #[test]
    fn sums_over_one_side_and_repeated_axes_are_no_products() {
        assert_eq!(pairs_of("mkj,kn->mn"), None);
        assert_eq!(pairs_of("mjk,njk->mn"), None);
        assert_eq!(pairs_of("abcmk,abckn->abcmn"), None);
    }
}
