//! Graphics cards: which there are, one opened for compute, and the kernels that run on it.
//!
//! A [`Program`] is what runs there: steps in a row, such as dense layers, norms and softmax. `segment` cuts them out of models.
//!
//! What holds everywhere in this module:
//! - A result counts only if its read-back was reported as mapped. A lost device stays silent
//!   everywhere else: creating, submitting and waiting all seem to succeed.
//! - No error of the device ends the process. What is not caught where it happens ends up in
//!   [`Gpu::fault`].
//! - Nothing with a pending read-back is dropped or reused; after a timeout it is set aside.

mod adapter;
mod breaker;
mod card;
mod cooperative;
mod device;
mod dispatch;
mod error;
#[cfg(test)]
mod injected;
mod kept;
mod layout;
pub(crate) mod memory;
mod operation;
mod part;
mod pass;
mod pipeline;
mod program;
mod slots;
mod step;
mod upload;
mod workspace;

pub use adapter::{AdapterInfo, AdapterKind, GpuPolicy, adapters};
pub use card::Gpu;
pub use error::GpuError;
pub use operation::{
    Activation, Axes, Choice, Combine, Layer, Norm, Operation, Pairs, Tile, Weights,
};
pub use part::Part;
pub use program::{Program, Source, Step};
