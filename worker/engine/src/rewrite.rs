//! Named rules that change a simplified graph before it is optimized.
//!
//! Each rule is a file. It looks at one operator, gives a patch or declines, and never
//! changes what is computed beyond the last bits.

mod row_sum;
mod score_scale;

use tract_onnx::prelude::{Datum, DatumType, Tensor, TractResult, TypedModel};
use tract_onnx::tract_core::internal::TDim;
use tract_onnx::tract_core::model::Rewriter;

use crate::cpu::{conv, dense, norm, softmax};

/// Applies all rules until none has anything left to change.
pub(crate) fn apply(model: &mut TypedModel) -> TractResult<()> {
    // Before sums are replaced: a layer norm begins with one.
    norm::apply(model)?;
    Rewriter::<()>::default()
        .with_rule_for("row-sum", row_sum::rule)
        .with_rule_for("score-scale", score_scale::rule)
        .rewrite(&(), model)?;
    softmax::apply(model)?;
    dense::apply(model)?;
    conv::apply(model)
}

/// No kernel asks for more than this, in bytes; it is the width of an AVX-512 register.
const ALIGNMENT: usize = 64;

/// Memory for one row that is always aligned alike.
///
/// tract's reducing kernels split a row at the first aligned address. Where rows are not a
/// multiple of 64 bytes long, that place, with it the order of the additions and so the last bits
/// depend on how many rows lie before. Reduced in here, a row gives the same bits anywhere.
fn aligned_row<T: Datum>(length: usize) -> TractResult<Tensor> {
    Tensor::zero_aligned_dt(T::datum_type(), &[length], ALIGNMENT)
}

/// Whether rows of this length, one after the other, all begin on an aligned address.
fn rows_stay_aligned(length: &TDim, element: DatumType) -> bool {
    length
        .as_i64()
        .and_then(|length| usize::try_from(length).ok())
        .is_some_and(|length| (length * element.size_of()).is_multiple_of(ALIGNMENT))
}
