//! Sum along the last axis whose rows do not depend on where they lie in memory.

use tract_linalg::multithread::par_chunks_mut;
use tract_linalg::reduce::Reduce as ReduceKernel;
use tract_linalg::routines::Func;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer};

use super::{aligned_row, rows_stay_aligned};

/// Replaces a sum of `f32` or `f16` over the last axis, unless its rows stay aligned anyway.
///
/// Sums of other types, and over other axes, add up in an order of their own that does not look at addresses.
pub(super) fn rule(
    _: &(),
    model: &TypedModel,
    node: &TypedNode,
    _name: &str,
    reduce: &Reduce,
) -> TractResult<Option<TypedModelPatch>> {
    let fact = model.outlet_fact(node.inputs[0])?;
    let over_last = fact.rank() > 0 && *reduce.axes == [fact.rank() - 1];
    if reduce.reducer != Reducer::Sum
        || !over_last
        || !matches!(fact.datum_type, DatumType::F32 | DatumType::F16)
        || rows_stay_aligned(&fact.shape[fact.rank() - 1], fact.datum_type)
    {
        return Ok(None);
    }
    TypedModelPatch::replace_single_op(model, node, &node.inputs, RowSum).map(Some)
}

/// Sum over the last axis, `f32` or `f16`, which stays as an axis of size 1.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RowSum;

impl Op for RowSum {
    fn name(&self) -> StaticName {
        "RowSum".into()
    }

    op_as_typed_op!();
}

impl TypedOp for RowSum {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.to_tvec();
        if let Some(last) = shape.last_mut() {
            *last = 1.to_dim();
        }
        Ok(tvec!(inputs[0].datum_type.fact(shape)))
    }

    as_op!();
}

impl EvalOp for RowSum {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let output = match input.datum_type() {
            DatumType::F32 => sums(&input, &*Func::ReduceSum.reduce_f32()?)?,
            DatumType::F16 => sums(&input, &*Func::ReduceSum.reduce_f16()?)?,
            other => bail!("RowSum over {other:?}"),
        };
        Ok(tvec!(output.into_tvalue()))
    }
}

fn sums<T>(input: &Tensor, kernel: &dyn ReduceKernel<T>) -> TractResult<Tensor>
where
    T: Datum + Copy + tract_num_traits::Zero,
{
    let mut shape = input.shape().to_vec();
    let length = shape
        .last_mut()
        .map_or(1, |last| std::mem::replace(last, 1));
    let mut sums = vec![T::zero(); shape.iter().product()];
    let values = input.to_plain_array_view::<T>()?;
    let values = values.as_standard_layout();
    if let Some(values) = values.as_slice()
        && !values.is_empty()
    {
        par_chunks_mut(&mut sums, 1, values.len(), |first, sums| {
            let mut row = aligned_row::<T>(length)?;
            let mut row = row.try_as_plain_ram_mut()?;
            let row = row.as_slice_mut::<T>()?;
            for (sum, values) in sums
                .iter_mut()
                .zip(values[first * length..].chunks_exact(length))
            {
                row.copy_from_slice(values);
                *sum = kernel.run(row)?;
            }
            Ok(())
        })?;
    }
    Tensor::from_shape(&shape, &sums)
}
