//! Our own arithmetic for processors: what tract does less well, in operators that take its place.
//!
//! ```text
//! simd     registers of the processor at hand: AVX-512, AVX2 or plain Rust
//! gemm     rows times packed weights, for any number of rows, through bias, residual and clamp
//! dense    the operator around it, and the rules that make it of a product and what follows it
//! conv     convolutions of images, without laying out their patches first
//! tail     bias, residual and bounds, which both take in
//! softmax  with scale and mask
//! norm     layer norm and RMS norm
//! ```
//!
//! What holds everywhere here: an element of a result is one chain of multiply-adds in the order of
//! `k`, whatever the number of rows and however they are cut into tiles. So a row's bits never depend
//! on its neighbours, and one plan serves every batch size at full speed.

pub(crate) mod conv;
pub(crate) mod dense;
mod gemm;
pub(crate) mod norm;
mod simd;
pub(crate) mod softmax;
mod tail;

use std::borrow::Cow;

use tract_onnx::tract_core::internal::*;

/// The instructions that kernels run with here.
#[cfg(feature = "gpu")]
pub(crate) fn instructions() -> String {
    format!("{:?}", simd::Isa::best())
}

/// All elements of `tensor`, row-major; copied only where they do not lie so.
pub(crate) fn elements<T: Datum>(tensor: &Tensor) -> TractResult<Cow<'_, [T]>> {
    let view = tensor.to_plain_array_view::<T>()?;
    Ok(match view.to_slice() {
        Some(elements) => Cow::Borrowed(elements),
        None => Cow::Owned(view.iter().cloned().collect()),
    })
}

/// `value` as a tensor of our own whose elements lie row-major without gaps; copied only where it must be.
fn contiguous<T: Datum>(value: TValue) -> TractResult<Tensor> {
    if value.strides() == &*Tensor::natural_strides(value.shape()) {
        return Ok(value.into_tensor());
    }
    let view = value.to_plain_array_view::<T>()?;
    Ok(view.as_standard_layout().into_owned().into_tensor())
}

/// Numbers by their bits: tract asks of operators whether they are the same, and a NaN is itself.
fn bits(values: Option<&[f32]>) -> Option<Vec<u32>> {
    values.map(|values| values.iter().map(|value| value.to_bits()).collect())
}
