//! Softmax with what comes before it in attention: a scale and a mask.
//!
//! tract's kernels for it depend on where a row lies in memory, so a row's last bits would depend on
//! its neighbours; and each of the three operators goes through all scores once more.

#![allow(
    unsafe_code,
    reason = "a row is read and written by registers; it is filled up to whole ones first"
)]

use std::ops::Range;

use tract_linalg::multithread::par_chunks_mut;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::model::Rewriter;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::math::{Add, Mul};
use tract_onnx::tract_core::ops::nn::{Softmax as PlainSoftmax, SoftmaxKind};

use super::contiguous;
use super::simd::{Isa, Kernel, Simd, dispatch, exp, total};

/// Replaces softmax of `f32` over neighbouring axes, then lets it absorb what comes before it.
pub(crate) fn apply(model: &mut TypedModel) -> TractResult<()> {
    Rewriter::<()>::default()
        .with_rule_for("softmax", replace)
        .with_rule_for("softmax-input", absorb)
        .rewrite(&(), model)
}

/// `softmax(scores * scale + mask)` or its logarithm over the axes `axes`, `f32`, any shape.
///
/// The result has the shape of the scores; a mask, the second input, broadcasts to it. The maximum is
/// subtracted first, so nothing overflows. A row with a NaN is NaN throughout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Softmax {
    axes: Range<usize>,
    kind: SoftmaxKind,
    /// Bits of the factor, so that two operators can be compared.
    scale: u32,
    masked: bool,
}

/// What a segment has to know to do the same on a card.
#[cfg(feature = "gpu")]
impl Softmax {
    /// The factor of the scores, if it is a softmax along the last of `rank` axes.
    pub(crate) fn over_last_axis(&self, rank: usize) -> Option<f32> {
        let plain = self.kind == SoftmaxKind::Softmax && self.axes.end == rank;
        (plain && self.axes.len() == 1).then(|| f32::from_bits(self.scale))
    }
}

impl Op for Softmax {
    fn name(&self) -> StaticName {
        "RowSoftmax".into()
    }

    op_as_typed_op!();
}

impl TypedOp for Softmax {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].without_value()))
    }

    as_op!();
}

impl EvalOp for Softmax {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mask = if inputs.len() > 1 { inputs.pop() } else { None };
        let mut output = contiguous::<f32>(args_1!(inputs))?;
        let length: usize = output.shape()[self.axes.clone()].iter().product();
        // Elements of a row lie this far apart: 1 where the softmax is over the last axes.
        let step: usize = output.shape()[self.axes.end..].iter().product();
        let total = output.len();
        if total == 0 {
            return Ok(tvec!(output.into_tvalue()));
        }
        let plain = mask.as_ref().map(|mask| mask.try_as_plain_ram());
        let plain = plain.transpose()?;
        let mask = match (&mask, &plain) {
            (Some(mask), Some(plain)) => Some(Mask::new(
                plain.as_slice::<f32>()?,
                mask.shape(),
                output.shape(),
            )?),
            _ => None,
        };
        let mut values = output.try_as_plain_ram_mut()?;
        let values = values.as_slice_mut::<f32>()?;
        par_chunks_mut(values, length * step, total, |first, chunk| {
            let rows = Rows {
                values: chunk,
                length,
                step,
                scale: f32::from_bits(self.scale),
                kind: self.kind,
                // With a mask the axes are the last, so a block is a row.
                mask: mask.as_ref().map(|mask| (mask, first)),
            };
            dispatch(Isa::best(), rows);
            Ok(())
        })?;
        Ok(tvec!(output.into_tvalue()))
    }
}

/// The mask and how it is spread over rows along the last axis.
struct Mask<'a> {
    values: &'a [f32],
    /// Sizes of all axes but the last, and how far the mask moves along each.
    axes: Vec<(usize, usize)>,
    /// Whether the last axis is spread from one value.
    single: bool,
    length: usize,
}

impl<'a> Mask<'a> {
    /// `values` has the shape `own`, which broadcasts to `shape`, that of the scores.
    fn new(values: &'a [f32], own: &[usize], shape: &[usize]) -> TractResult<Self> {
        let fits = own.len() == shape.len()
            && own
                .iter()
                .zip(shape)
                .all(|(own, all)| own == all || *own == 1);
        ensure!(fits, "a mask of {own:?} for scores of {shape:?}");
        let (length, leading) = shape.split_last().context("scores have an axis")?;
        let strides = Tensor::natural_strides(own);
        let axes = leading
            .iter()
            .enumerate()
            .map(|(axis, size)| {
                (
                    *size,
                    if own[axis] > 1 {
                        strides[axis] as usize
                    } else {
                        0
                    },
                )
            })
            .collect();
        Ok(Mask {
            values,
            axes,
            single: own.last() != Some(length),
            length: *length,
        })
    }

    /// The mask of the row with this number.
    fn row(&self, mut row: usize) -> &[f32] {
        let mut start = 0;
        for (size, stride) in self.axes.iter().rev() {
            start += row % size * stride;
            row /= size;
        }
        let length = if self.single { 1 } else { self.length };
        &self.values[start..start + length]
    }
}

/// Whole rows in a row, one after the other or, with a step, woven into each other.
struct Rows<'a> {
    values: &'a mut [f32],
    length: usize,
    step: usize,
    scale: f32,
    kind: SoftmaxKind,
    /// The mask and the number of the first row.
    mask: Option<(&'a Mask<'a>, usize)>,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        // What fills it up is minus infinity, of which the exponential is nothing.
        let mut row = vec![f32::NEG_INFINITY; self.length.next_multiple_of(S::LANES)];
        for (block_number, block) in self.values.chunks_mut(self.length * self.step).enumerate() {
            for start in 0..self.step {
                for (to, from) in row.iter_mut().zip(block[start..].iter().step_by(self.step)) {
                    *to = *from * self.scale;
                }
                if let Some((mask, first)) = self.mask {
                    match mask.row(first + block_number) {
                        [one] => row[..self.length]
                            .iter_mut()
                            .for_each(|value| *value += one),
                        mask => row
                            .iter_mut()
                            .zip(mask)
                            .for_each(|(value, mask)| *value += mask),
                    }
                }
                match self.kind {
                    SoftmaxKind::Softmax => {
                        softmax::<S>(&mut row);
                    }
                    SoftmaxKind::LogSoftmax => log_softmax::<S>(&mut row),
                }
                for (to, from) in block[start..].iter_mut().step_by(self.step).zip(&row) {
                    *to = *from;
                }
                row[self.length..].fill(f32::NEG_INFINITY);
            }
        }
    }
}

#[inline(always)]
fn softmax<S: Simd>(row: &mut [f32]) {
    let max = largest::<S>(row);
    // SAFETY: `dispatch` runs this where the instructions exist, and the row is whole registers.
    unsafe {
        let (shift, mut sum) = (S::splat(-max), S::splat(0.0));
        for chunk in row.chunks_exact_mut(S::LANES) {
            let value = exp::<S>(S::add(S::load(chunk.as_ptr()), shift));
            sum = S::add(sum, value);
            S::store(chunk.as_mut_ptr(), value);
        }
        let factor = S::splat(1.0 / total::<S>(sum));
        for chunk in row.chunks_exact_mut(S::LANES) {
            S::store(chunk.as_mut_ptr(), S::mul(S::load(chunk.as_ptr()), factor));
        }
    }
}

#[inline(always)]
fn log_softmax<S: Simd>(row: &mut [f32]) {
    let max = largest::<S>(row);
    // SAFETY: as in `softmax`.
    unsafe {
        let (shift, mut sum) = (S::splat(-max), S::splat(0.0));
        for chunk in row.chunks_exact(S::LANES) {
            sum = S::add(sum, exp::<S>(S::add(S::load(chunk.as_ptr()), shift)));
        }
        let log = total::<S>(sum).ln();
        row.iter_mut()
            .for_each(|value| *value = (*value - max) - log);
    }
}

/// The largest; if some are NaN, perhaps one of those.
#[inline(always)]
fn largest<S: Simd>(row: &[f32]) -> f32 {
    // SAFETY: as in `softmax`; sixteen elements hold the widest register.
    unsafe {
        let mut largest = S::splat(f32::NEG_INFINITY);
        for chunk in row.chunks_exact(S::LANES) {
            largest = S::at_least(S::load(chunk.as_ptr()), largest);
        }
        let mut lanes = [f32::NEG_INFINITY; 16];
        S::store(lanes.as_mut_ptr(), largest);
        lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

fn replace(
    _: &(),
    model: &TypedModel,
    node: &TypedNode,
    _name: &str,
    softmax: &PlainSoftmax,
) -> TractResult<Option<TypedModelPatch>> {
    let mut axes = softmax.axes.to_vec();
    axes.sort_unstable();
    let (Some(&first), Some(&last)) = (axes.first(), axes.last()) else {
        return Ok(None);
    };
    let element = model.outlet_fact(node.inputs[0])?.datum_type;
    if element != DatumType::F32 || last + 1 - first != axes.len() {
        return Ok(None);
    }
    let op = Softmax {
        axes: first..last + 1,
        kind: softmax.kind,
        scale: 1f32.to_bits(),
        masked: false,
    };
    TypedModelPatch::replace_single_op(model, node, &node.inputs, op).map(Some)
}

/// The mask first, since it is added last; then the scale.
fn absorb(
    _: &(),
    model: &TypedModel,
    node: &TypedNode,
    _name: &str,
    softmax: &Softmax,
) -> TractResult<Option<TypedModelPatch>> {
    let before = model.node(node.inputs[0].node);
    let Some(op) = before.op_as::<TypedBinOp>() else {
        return Ok(None);
    };
    if model.single_succ(before.id)?.is_none() || model.outputs.contains(&before.id.into()) {
        return Ok(None);
    }
    let shape = &before.outputs[0].fact.shape;
    for (scores, other) in [(0, 1), (1, 0)] {
        let (scores, other) = (before.inputs[scores], before.inputs[other]);
        if model.outlet_fact(scores)?.shape != *shape {
            continue;
        }
        let mut grown = softmax.clone();
        let mut inputs = tvec!(scores);
        inputs.extend(node.inputs[1..].iter().copied());
        let other_fact = model.outlet_fact(other)?;
        if op.0.is::<Add>() {
            let over_last = softmax.axes == (shape.rank() - 1..shape.rank());
            let broadcasts = other_fact.rank() == shape.rank()
                && other_fact
                    .shape
                    .iter()
                    .zip(shape.iter())
                    .all(|(own, all)| own.is_one() || own == all);
            // A scale that is there already is multiplied after the mask was added, not before.
            if softmax.masked || softmax.scale != 1f32.to_bits() || !over_last || !broadcasts {
                continue;
            }
            grown.masked = true;
            inputs.push(other);
        } else if op.0.is::<Mul>() {
            let constant = other_fact
                .konst
                .as_ref()
                .filter(|constant| constant.len() == 1);
            let Some(constant) = constant.filter(|constant| constant.is_plain_ram()) else {
                continue;
            };
            let constant = constant.cast_to::<f32>()?;
            let factor = constant.try_as_plain_ram()?.as_slice::<f32>()?[0];
            grown.scale = (f32::from_bits(softmax.scale) * factor).to_bits();
        } else {
            continue;
        }
        return TypedModelPatch::replace_single_op(model, node, &inputs, grown).map(Some);
    }
    Ok(None)
}
