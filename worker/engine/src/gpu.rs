//! Graphics cards: which there are, one opened for compute, and the kernels that run on it.
//!
//! Kernels are called directly. Models run on the CPU as a whole: the partitioner that cuts dense
//! parts out of a graph for these kernels is separate from them.
//!
//! What holds everywhere in this module:
//! - A result counts only if its read-back was reported as mapped. A lost device stays silent
//!   everywhere else: creating, submitting and waiting all seem to succeed.
//! - No error of the device ends the process. What is not caught where it happens ends up in
//!   [`Gpu::fault`].
//! - Nothing with a pending read-back is dropped or reused; after a timeout it is set aside.

mod device;
mod error;
mod linear;
mod pipeline;

pub use device::{AdapterInfo, AdapterKind, Gpu, GpuPolicy, adapters};
pub use error::GpuError;
pub use linear::{Activation, Linear};
