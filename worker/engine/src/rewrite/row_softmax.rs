//! Softmax whose rows do not depend on where they lie in memory.

use std::ops::Range;

use tract_linalg::multithread::par_chunks_mut;
use tract_linalg::routines::Func;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::nn::{Softmax, SoftmaxKind};

use super::{aligned_row, rows_stay_aligned};

/// Replaces a softmax of `f32` over neighbouring axes, unless its rows stay aligned anyway.
///
/// Softmax of other types adds up one by one, in order, and needs no help.
pub(super) fn rule(
    _: &(),
    model: &TypedModel,
    node: &TypedNode,
    _name: &str,
    softmax: &Softmax,
) -> TractResult<Option<TypedModelPatch>> {
    let fact = model.outlet_fact(node.inputs[0])?;
    let mut axes = softmax.axes.to_vec();
    axes.sort_unstable();
    let (Some(&first), Some(&last)) = (axes.first(), axes.last()) else {
        return Ok(None);
    };
    let length: TDim = fact.shape.iter().skip(first).take(axes.len()).product();
    let in_rows = last + 1 == fact.rank();
    if fact.datum_type != DatumType::F32
        || last + 1 - first != axes.len()
        || (in_rows && rows_stay_aligned(&length, fact.datum_type))
    {
        return Ok(None);
    }
    let op = RowSoftmax {
        axes: first..last + 1,
        kind: softmax.kind,
    };
    TypedModelPatch::replace_single_op(model, node, &node.inputs, op).map(Some)
}

/// Softmax or its logarithm over the axes `axes`, `f32`, any shape. The result has the input's shape.
///
/// The maximum is subtracted first, so nothing overflows. A row with a NaN is NaN throughout.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RowSoftmax {
    axes: Range<usize>,
    kind: SoftmaxKind,
}

impl Op for RowSoftmax {
    fn name(&self) -> StaticName {
        "RowSoftmax".into()
    }

    op_as_typed_op!();
}

impl TypedOp for RowSoftmax {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].without_value()))
    }

    fn axes_mapping(
        &self,
        inputs: &[&TypedFact],
        outputs: &[&TypedFact],
    ) -> TractResult<AxesMapping> {
        AxesMapping::natural(inputs, outputs)
    }

    as_op!();
}

impl EvalOp for RowSoftmax {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let mut output = if input.strides() == &*Tensor::natural_strides(input.shape()) {
            input.into_tensor()
        } else {
            input
                .to_plain_array_view::<f32>()?
                .as_standard_layout()
                .into_owned()
                .into_tensor()
        };
        let length: usize = output.shape()[self.axes.clone()].iter().product();
        // Elements of a row lie this far apart: 1 where the softmax is over the last axes.
        let step: usize = output.shape()[self.axes.end..].iter().product();
        let total = output.len();
        if total == 0 {
            return Ok(tvec!(output.into_tvalue()));
        }
        let mut values = output.try_as_plain_ram_mut()?;
        par_chunks_mut(
            values.as_slice_mut::<f32>()?,
            length * step,
            total,
            |_, chunk| {
                let mut row = aligned_row::<f32>(length)?;
                let mut row = row.try_as_plain_ram_mut()?;
                let row = row.as_slice_mut::<f32>()?;
                let kernels = Kernels::new()?;
                for block in chunk.chunks_mut(length * step) {
                    for start in 0..step {
                        for (to, from) in row.iter_mut().zip(block[start..].iter().step_by(step)) {
                            *to = *from;
                        }
                        self.normalize(row, &kernels)?;
                        for (to, from) in block[start..].iter_mut().step_by(step).zip(&*row) {
                            *to = *from;
                        }
                    }
                }
                Ok(())
            },
        )?;
        Ok(tvec!(output.into_tvalue()))
    }
}

struct Kernels {
    max: Box<dyn tract_linalg::reduce::Reduce<f32>>,
    exp_sum: Box<dyn tract_linalg::reduce::MapReduce<f32, f32>>,
    scale: Box<dyn tract_linalg::element_wise::ElementWise<f32, f32>>,
}

impl Kernels {
    fn new() -> TractResult<Self> {
        Ok(Kernels {
            max: Func::ReduceMax.reduce_f32()?,
            exp_sum: Func::Softmax2.map_reduce_f32()?,
            scale: Func::MulByScalar.ew_f32_param()?,
        })
    }
}

impl RowSoftmax {
    fn normalize(&self, row: &mut [f32], kernels: &Kernels) -> TractResult<()> {
        let max = kernels.max.run(row)?;
        match self.kind {
            SoftmaxKind::Softmax => {
                let sum = kernels.exp_sum.run_with_params(row, max)?;
                kernels.scale.run_with_params(row, sum.recip())
            }
            SoftmaxKind::LogSoftmax => {
                let sum: f32 = row.iter().map(|value| (value - max).exp()).sum();
                let log_sum = sum.ln();
                row.iter_mut()
                    .for_each(|value| *value = (*value - max) - log_sum);
                Ok(())
            }
        }
    }
}
