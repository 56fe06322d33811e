//! The engine on real ONNX files, made by `tests/models/make.py` together with the answers of ONNX Runtime.
//!
//! One binary for all of it, since linking tract takes longer than most of the tests.

#[cfg(feature = "gpu")]
mod adapters;
mod answers;
mod cases;
mod damage;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "gpu")]
mod kernels;
mod proofs;
#[cfg(feature = "gpu")]
mod segments;
mod sessions;
mod tensors;
