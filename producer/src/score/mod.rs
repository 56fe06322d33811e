//! Offline scoring: what people have in files goes through a model, and comes back as a file.
//!
//! ```text
//! run.rs       a run from beginning to end
//!
//! input.rs     which files, in which format
//! read.rs      all of them as one table of named columns, in pieces     read/: one file per format
//! columns.rs   columns -> the model's inputs, row by row                columns/: cells, lists, rules
//! keep.rs      columns that pass through unchanged
//! outputs.rs   the model's outputs -> columns
//! write.rs     columns -> one file                                      write/: one file per format
//! look.rs      what columns hold, gathered while they pass
//! report.rs    that, and how fast it went, as a page
//!
//! prepare.rs   the input held against the model                         target.rs: which version
//! intake.rs    reads chunks                                             size.rs: how large they are
//! line.rs      chunks out, answers back, in order                       limits.rs: errors, share
//! chunks.rs    a chunk as a job, halved where it fails
//! table.rs     answers -> rows of the output
//! commit.rs    keeps what is finished, in folder.rs                     fingerprint.rs: of what
//! finish.rs    from there to the output, in place.rs
//! ```
//! The middle block knows no queue: rows come in, tensors go out, tensors come in, rows go out. Memory
//! holds what is in flight and one piece of each file, however long the files are.

mod chunks;
pub mod columns;
mod commit;
mod error;
mod fingerprint;
mod finish;
mod folder;
pub mod input;
mod intake;
pub mod keep;
mod limits;
mod line;
pub mod look;
mod options;
pub mod outputs;
mod place;
mod prepare;
mod progress;
pub mod read;
pub mod report;
mod run;
mod size;
mod table;
mod target;
pub mod write;

pub use columns::MapRule;
pub use error::ScoreError;
pub use input::Format;
pub use keep::KeepRule;
pub use limits::{MaxErrors, MaxErrorsError};
pub use options::{Begin, ScoreOptions};
pub use progress::{Phase, Progress, Summary};
pub use run::{Score, Stopper};
