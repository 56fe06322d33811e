//! Offline scoring: what people have in files goes through a model, and comes back as a file.
//!
//! ```text
//! input.rs     which files, in which format
//! read.rs      all of them as one table of named columns, in pieces     read/: one file per format
//! columns.rs   columns -> the model's inputs, row by row                columns/: cells, lists, rules
//! keep.rs      columns that pass through unchanged
//! outputs.rs   the model's outputs -> columns
//! write.rs     columns -> one file                                      write/: one file per format
//! ```
//! Nothing here knows the queue: rows come in, tensors go out, tensors come in, rows go out.
//! Memory holds what is asked for at once and one piece of each file, however long the files are.

pub mod columns;
pub mod input;
pub mod keep;
pub mod outputs;
pub mod read;
pub mod write;
