//! ONNX bytes to a plan, tensors to tensors.
//!
//! ```text
//! model.onnx ── load ──► typed ──────► simplified ── rewrite ──► optimized ── plan ──► OnnxModel
//!               limits,  symbols for                 rules that  packed               specs, batch proof,
//!               safety   open sizes                  patch       weights              one per process
//!                                                                                        │ session()
//! Tensor::stack ──► Session::run ──► Vec<Tensor>                                         ▼
//! one copy          checks against the specs, then tract                   Session: one per executor thread
//! ```
//!
//! Between rewrite and optimized, `segment` cuts dense parts out for a graphics card, where there is
//! one (`gpu`); `cpu` and `trees` are operators of our own that take the place of some of tract's.
//!
//! What holds everywhere in this crate:
//! - It knows no queue, no cache, no async runtime and no configuration text. Calls block.
//! - A loaded model never changes. Threads share it; each takes a [`Session`] of its own.
//! - A [`Session`] is usable again after any error or panic: a state that did not come
//!   back from a run unharmed is thrown away and a fresh one made.
//! - Rows are merged by callers only where [`BatchProof::Proven`] says that a row's answer
//!   does not depend on its neighbours, bit for bit.
//! - No model file, however damaged, makes loading panic; it returns a [`LoadError`].
//!
//! One session per core is the mode with the highest throughput. `tract-linalg` is a direct
//! dependency because its feature `multithread-mm`, which [`LoadLimits::threads_per_run`] needs,
//! cannot be reached through `tract-onnx`.

mod cpu;
mod element;
mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
mod inspect;
mod load;
mod model;
mod plan;
mod profile;
mod proof;
mod resident;
mod rewrite;
#[cfg(feature = "gpu")]
mod segment;
mod tensor;
mod trees;

pub use element::{Element, TensorSpec};
pub use error::{InputError, LoadError, RunError, Stage};
pub use load::{LoadLimits, load_bytes, load_file};
pub use model::{BatchProof, Model, SegmentReport, Session};
pub use plan::OnnxModel;
pub use profile::NodeTime;
#[cfg(feature = "gpu")]
pub use segment::CardSettings;
pub use tensor::{Tensor, TensorError};
