//! Why a run cannot start, or stops. What was scored by then is kept unless it says otherwise.

use std::path::{Path, PathBuf};

use inferq_schemas::{Failure, ModelName};

use super::{
    columns::MappingError,
    input::{Format, InputError},
    keep::KeepError,
    outputs::OutputError,
    read::RowProblem,
};
use crate::error::{ModelError, RunError};

/// Why a run of [`Score`](super::Score) gave no output.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The input cannot be found or read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The columns do not make the model's inputs.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// A column cannot be passed through.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Which workers there are cannot be read.
    #[error(transparent)]
    Workers(#[from] ModelError),
    /// No living worker serves the model.
    #[error(
        "{}; start one with `inferq-worker --models DIR`, or give --models DIR instead of --nats",
        not_served(model, served)
    )]
    NotServed {
        /// The model.
        model: ModelName,
        /// What they serve, the name that looks most like it first.
        served: Vec<String>,
    },
    /// Workers serve the model, but not this version.
    #[error(
        "no worker serves version {version} of `{model}`; they serve {}",
        list(versions)
    )]
    NoVersion {
        /// The model.
        model: ModelName,
        /// The version asked for.
        version: u64,
        /// The versions served.
        versions: Vec<u64>,
    },
    /// Workers serve different files under one version.
    #[error(
        "workers serve {} different files as version {version} of `{model}`; `inferq workers` shows \
         which, replace those of one kind",
        digests.len()
    )]
    Digests {
        /// The model.
        model: ModelName,
        /// The version.
        version: u64,
        /// What they have.
        digests: Vec<String>,
    },
    /// The model has no row axis.
    #[error(
        "`{model}` takes {}: the first axis of every input must be free, or 1 for one row at a time; \
         export it with a free batch axis",
        inputs.join(", ")
    )]
    NoRows {
        /// The model.
        model: ModelName,
        /// Its inputs.
        inputs: Vec<String>,
    },
    /// The model has no such output.
    #[error("`{model}` has no output `{output}`; it has {}", outputs.join(", "))]
    NoOutput {
        /// The model.
        model: ModelName,
        /// The output asked for.
        output: String,
        /// Its outputs.
        outputs: Vec<String>,
    },
    /// The name of the output does not say how it is to be written.
    #[error(
        "the format of {} is not known from its name; name it with --out-format ({})",
        path.display(),
        Format::NAMES
    )]
    UnknownFormat {
        /// The output.
        path: PathBuf,
    },
    /// There is an output already.
    #[error("{} exists; name another file, or replace it with --force", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// An earlier run of the same output did not finish.
    #[error(
        "an unfinished run is in {}; go on with --resume, or begin anew with --restart",
        path.display()
    )]
    Unfinished {
        /// Its folder.
        path: PathBuf,
    },
    /// What is to be scored is not what the unfinished run scored.
    #[error(
        "the run in {} cannot be resumed, since it scored something else: {}; begin anew with --restart",
        path.display(),
        differences.join("; ")
    )]
    Changed {
        /// Its folder.
        path: PathBuf,
        /// What differs, each with both values.
        differences: Vec<String>,
    },
    /// Standard input can be read once only.
    #[error(
        "a run that reads standard input or writes standard output cannot be resumed; use files"
    )]
    NotResumable,
    /// The folder of the run cannot be used.
    #[error("cannot {what} {}: {source}", path.display())]
    Folder {
        /// What was to be done.
        what: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another run uses the folder.
    #[error("another run writes into {}; wait for it, or name another output", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// No row of the beginning can be used, so that nobody knows what the output looks like.
    #[error(
        "none of the first {rows} rows can be scored; row {}: {}",
        problem.row,
        problem.message
    )]
    NoGoodRow {
        /// Rows that were looked at.
        rows: usize,
        /// What is wrong with the first of them.
        problem: RowProblem,
    },
    /// No row of the first ones got an answer, so that nobody knows what the output looks like.
    #[error(
        "none of the first {rows} good rows was answered; the first: {}",
        failure.as_ref().map_or_else(String::new, ToString::to_string)
    )]
    NoAnswer {
        /// Rows that were sent.
        rows: usize,
        /// Why the first of them failed.
        failure: Option<Failure>,
    },
    /// A column that is kept has the name of an output.
    #[error(
        "the output would have two columns `{column}`; leave it out of --keep, or choose --outputs"
    )]
    ColumnTwice {
        /// The name.
        column: String,
    },
    /// There is nothing to write.
    #[error("the input has no rows")]
    Nothing,
    /// Too many rows failed.
    #[error(
        "{errors} of {rows} rows failed, more than --max-errors {limit} allows; the last: {last}. \
         Mend the input or the mapping, or allow more with --resume --max-errors"
    )]
    TooManyErrors {
        /// Rows that failed.
        errors: u64,
        /// Rows read.
        rows: u64,
        /// What was allowed.
        limit: String,
        /// The last failure.
        last: String,
    },
    /// Chunks were computed by devices that may differ in the last bits.
    #[error(
        "chunk {chunk} was computed by {is}, the ones before by {was}, which may differ in the last \
         bits; go on with --resume --allow-mixed, or let one kind of worker serve the model"
    )]
    Mixed {
        /// The chunk.
        chunk: u64,
        /// The numeric class of the run.
        was: String,
        /// The numeric class of the chunk.
        is: String,
    },
    /// A chunk ended in a way that is not about its rows.
    #[error("chunk {chunk} was not scored: {failure}; go on with --resume")]
    Chunk {
        /// The chunk.
        chunk: u64,
        /// What its outcome says.
        failure: Failure,
    },
    /// An answer does not fit its request.
    #[error("the answer to chunk {chunk} cannot be used: {reason}")]
    Answer {
        /// The chunk.
        chunk: u64,
        /// Why not.
        reason: String,
    },
    /// A chunk could not be sent, or its outcome not be read.
    #[error("chunk {chunk}: {source}; go on with --resume")]
    Run {
        /// The chunk.
        chunk: u64,
        /// Why not.
        #[source]
        source: RunError,
    },
    /// It was asked to stop, and has.
    #[error("stopped after {rows} rows; go on with --resume")]
    Stopped {
        /// Rows that are kept.
        rows: u64,
    },
    /// A thread of ours ended early.
    #[error("{0} ended unexpectedly; this is a bug, go on with --resume")]
    Panicked(&'static str),
}

impl ScoreError {
    /// For `map_err`: an operation on a file of the run.
    pub(super) fn folder(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Folder { what, path, source }
    }
}

fn not_served(model: &ModelName, served: &[String]) -> String {
    match served {
        [] => format!("no worker is there that could serve `{model}`"),
        [only] => format!("no worker serves `{model}`, only `{only}`"),
        [first, others @ ..] => format!(
            "no worker serves `{model}`, but `{first}` and {} others",
            others.len()
        ),
    }
}

fn list(versions: &[u64]) -> String {
    let versions: Vec<String> = versions.iter().map(u64::to_string).collect();
    versions.join(", ")
}
