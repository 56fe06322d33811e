//! The dense layer as an operator of tract's graph, and the rules that make it.
//!
//! tract's own product picks its kernel before it knows how many rows come, packs them anew for each
//! product, and after products of three axes leaves the addition of the bias to another operator.

use std::sync::Arc;

use tract_linalg::multithread::par_chunks_mut;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::model::Rewriter;
use tract_onnx::tract_core::ops::einsum::EinSum;

use super::elements;
use super::gemm::{Epilogue, PackedWeights};
use super::tail::{HasTail, Tail, absorb};

/// Makes dense layers of products with constant weights, then lets them absorb what follows.
pub(crate) fn apply(model: &mut TypedModel) -> TractResult<()> {
    Rewriter::<()>::default()
        .with_rule_for("dense", product)
        .rewrite(&(), model)?;
    Rewriter::<()>::default()
        .with_rule_for("dense-tail", absorb::<Dense>)
        .rewrite(&(), model)
}

/// `clamp(rows · weights + bias + residual)` over the last axes of the first input, `f32`.
///
/// The last axes of the input, `inner`, are one axis of length `k` in memory; the output has `columns`
/// in their place. The residual, if there is one, is a second input shaped like the output.
#[derive(Debug, Clone)]
pub(crate) struct Dense {
    weights: Arc<PackedWeights>,
    /// Sizes of the axes of the rows that are summed over.
    inner: TVec<usize>,
    columns: TVec<usize>,
    tail: Tail,
}

impl PartialEq for Dense {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.weights, &other.weights)
            && (&self.inner, &self.columns) == (&other.inner, &other.columns)
            && self.tail == other.tail
    }
}

impl Eq for Dense {}

impl Op for Dense {
    fn name(&self) -> StaticName {
        "Dense".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let (k, n) = (self.weights.k(), self.weights.n());
        Ok(vec![format!(
            "{k} to {n}, clamp {:?}, residual {}",
            self.tail.clamp, self.tail.residual
        )])
    }

    op_as_typed_op!();
}

impl TypedOp for Dense {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let rows = inputs[0].rank() - self.inner.len();
        let mut shape: TVec<TDim> = inputs[0].shape.iter().take(rows).cloned().collect();
        shape.extend(self.columns.iter().map(|size| size.to_dim()));
        Ok(tvec!(f32::fact(shape)))
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let rows = inputs[0].rank() - self.inner.len();
        let rows: TDim = inputs[0].shape.iter().take(rows).product();
        let weights = self.weights.k() * self.weights.n();
        Ok(tvec!((Cost::FMA(f32::datum_type()), rows * weights)))
    }

    as_op!();
}

impl EvalOp for Dense {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let inputs: TVec<&Tensor> = inputs.iter().map(|input| &**input).collect();
        Ok(tvec!(self.apply(&inputs)?.into_tvalue()))
    }
}

impl Dense {
    /// The result for rows and, where the tail asks for it, a residual.
    pub(crate) fn apply(&self, inputs: &[&Tensor]) -> TractResult<Tensor> {
        let given = inputs[0].shape();
        let (leading, inner) = given.split_at(given.len().saturating_sub(self.inner.len()));
        ensure!(
            *inner == *self.inner,
            "rows of {inner:?} values, the weights take {:?}",
            self.inner
        );
        let mut shape: TVec<usize> = leading.into();
        shape.extend(self.columns.iter().copied());
        let (rows, residual) = (elements::<f32>(inputs[0])?, Tail::residual(inputs, &shape)?);
        let mut output = Tensor::zero::<f32>(&shape)?;
        let mut plain = output.try_as_plain_ram_mut()?;
        let result = plain.as_slice_mut::<f32>()?;
        let (k, n) = (self.weights.k(), self.weights.n());
        let m = result.len() / n.max(1);
        let multiply = |first: usize, result: &mut [f32]| {
            let count = result.len() / n;
            let epilogue = Epilogue {
                bias: self.tail.bias.as_deref(),
                residual: residual
                    .as_ref()
                    .map(|residual| &residual[first * n..][..result.len()]),
                clamp: self.tail.clamp,
            };
            self.weights
                .multiply(&rows[first * k..][..count * k], result, epilogue);
            Ok(())
        };
        if m > 0 && n > 0 {
            par_chunks_mut(result, n, m * n * k, multiply)?;
        }
        Ok(output)
    }
}

/// What a segment has to know to do the same on a card.
#[cfg(feature = "gpu")]
impl Dense {
    /// Sizes of the axes of the rows that are summed over.
    pub(crate) fn inner(&self) -> &[usize] {
        &self.inner
    }

    /// Sizes of the axes that the result has in their place.
    pub(crate) fn columns(&self) -> &[usize] {
        &self.columns
    }

    pub(crate) fn weights(&self) -> &PackedWeights {
        &self.weights
    }

    /// One value for each column.
    pub(crate) fn bias(&self) -> Vec<f32> {
        let bias = self.tail.bias.as_deref();
        bias.map_or_else(|| vec![0.0; self.weights.n()], <[f32]>::to_vec)
    }

    pub(crate) fn bounds(&self) -> Option<(f32, f32)> {
        self.tail.clamp
    }
}

/// A product of rows with constant weights, in any order of the axes that needs no copy of the rows.
fn product(
    _: &(),
    model: &TypedModel,
    node: &TypedNode,
    name: &str,
    op: &EinSum,
) -> TractResult<Option<TypedModelPatch>> {
    if op.q_params.is_some() || op.operating_dt != f32::datum_type() || node.inputs.len() != 2 {
        return Ok(None);
    }
    for constant in [1, 0] {
        let Some(weights) = model.outlet_fact(node.inputs[constant])?.konst.clone() else {
            continue;
        };
        let Some((order, contracted)) = weight_order(&op.axes, constant) else {
            continue;
        };
        if weights.datum_type() != f32::datum_type() || !weights.is_plain_ram() {
            continue;
        }
        let rows = node.inputs[1 - constant];
        let fact = model.outlet_fact(rows)?;
        let sizes: TVec<usize> = order[..contracted]
            .iter()
            .map(|axis| weights.shape()[*axis])
            .collect();
        // What the model leaves open is checked in each run; another number is tract's to judge.
        let inner = fact
            .shape
            .iter()
            .skip(fact.rank().saturating_sub(contracted));
        let mut fits = inner
            .zip(&sizes)
            .map(|(inner, size)| inner.as_i64().is_none_or(|inner| inner == *size as i64));
        if fact.datum_type != f32::datum_type() || weights.len() == 0 || !fits.all(|fits| fits) {
            continue;
        }
        let weights = weights.as_ref().clone().permute_axes(&order)?;
        let k: usize = weights.shape()[..contracted].iter().product();
        let columns: TVec<usize> = weights.shape()[contracted..].into();
        let n = columns.iter().product();
        let weights = weights.try_as_plain_ram()?;
        let dense = Dense {
            weights: PackedWeights::shared(weights.as_slice::<f32>()?, k, n),
            inner: sizes,
            columns,
            tail: Tail::default(),
        };
        let patch = TypedModelPatch::replace_single_op(model, node, &[rows], dense)?;
        return Ok(Some(patch.with_context(name.to_owned())));
    }
    Ok(None)
}

/// How the axes of the constant have to be ordered to be `[k.., n..]`, and how many of them are `k`.
///
/// `None` unless the other input is `[rows.., k..]` and the output `[rows.., n..]`.
fn weight_order(axes: &AxesMapping, constant: usize) -> Option<(Vec<usize>, usize)> {
    let other = 1 - constant;
    let (mut rows, mut inner, mut columns) = (vec![], vec![], vec![]);
    for axis in axes.iter_all_axes() {
        match (
            &axis.inputs[other][..],
            &axis.inputs[constant][..],
            &axis.outputs[0][..],
        ) {
            (&[from], &[], &[to]) => rows.push((from, to)),
            (&[from], &[weight], &[]) => inner.push((from, weight)),
            (&[], &[weight], &[to]) => columns.push((to, weight)),
            _ => return None,
        }
    }
    inner.sort_unstable();
    columns.sort_unstable();
    let in_place = rows
        .iter()
        .all(|(from, to)| from == to && *from < rows.len())
        && inner
            .iter()
            .enumerate()
            .all(|(at, (from, _))| *from == rows.len() + at)
        && columns
            .iter()
            .enumerate()
            .all(|(at, (to, _))| *to == rows.len() + at);
    if !in_place || inner.is_empty() || columns.is_empty() {
        return None;
    }
    let order = inner
        .iter()
        .chain(&columns)
        .map(|(_, weight)| *weight)
        .collect();
    Some((order, inner.len()))
}

impl HasTail for Dense {
    fn tail(&mut self) -> &mut Tail {
        &mut self.tail
    }

    fn weights(&mut self) -> &mut Arc<PackedWeights> {
        &mut self.weights
    }

    fn per_column(&self, constant: &Tensor, _rank: usize) -> TractResult<Option<Arc<[f32]>>> {
        let n = self.weights.n();
        let values = constant.try_as_plain_ram()?;
        let values = values.as_slice::<f32>()?;
        if let [value] = values {
            return Ok(Some(vec![*value; n].into()));
        }
        let own_axes = constant.rank().saturating_sub(self.columns.len());
        let per_column = values.len() == n && constant.shape()[own_axes..] == self.columns[..];
        Ok(per_column.then(|| values.into()))
    }
}
