//! What to score, with what, into what.

use std::{num::NonZeroUsize, path::PathBuf};

use inferq_schemas::ModelName;

use super::{columns::MapRule, input::Format, keep::KeepRule, limits::MaxErrors};
use crate::size::ByteSize;

/// What to do with an unfinished run of the same output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Begin {
    /// Refuse to start.
    #[default]
    New,
    /// Go on with it; without one, begin.
    Resume,
    /// Forget it.
    Restart,
}

/// Settings of a run; [`new`](Self::new) has those that suit most.
#[derive(Debug, Clone)]
pub struct ScoreOptions {
    /// The model.
    pub model: ModelName,
    /// Its version; the highest that workers serve unless told.
    pub version: Option<u64>,
    /// Files, folders and patterns; `-` for standard input.
    pub input: Vec<String>,
    /// How the input is written, if the names do not tell.
    pub input_format: Option<Format>,
    /// The output; `None` for standard output.
    pub output: Option<PathBuf>,
    /// How the output is written, if its name does not tell.
    pub output_format: Option<Format>,
    /// Where the rows that failed go; unless told, beside the output as `<output>.errors.jsonl`.
    pub errors: Option<PathBuf>,
    /// Which columns make which input, where names do not tell.
    pub maps: Vec<MapRule>,
    /// Columns that are passed through, before those of the outputs.
    pub keep: Vec<KeepRule>,
    /// Outputs of the model that are wanted; empty for all.
    pub outputs: Vec<String>,
    /// When too many rows have failed.
    pub max_errors: MaxErrors,
    /// What to do with an unfinished run.
    pub begin: Begin,
    /// Whether an output that exists is replaced.
    pub force: bool,
    /// Whether rows keep their order; else they are written as they come.
    pub ordered: bool,
    /// Whether devices may be mixed that differ in the last bits.
    pub allow_mixed: bool,
    /// Whether answers are taken from the workers' cache and put there.
    pub cache: bool,
    /// Rows of a job; chosen by size and speed unless told.
    pub chunk_rows: Option<NonZeroUsize>,
    /// Memory of rows that were read and are not kept yet. More keeps more workers busy.
    pub window: ByteSize,
    /// Most of the time of all executors that the run may take, 0 to 1; `None` for all that is left over.
    pub max_share: Option<f64>,
}

impl ScoreOptions {
    /// Scores `input` with the newest version of `model` into the file `output`.
    pub fn new(
        model: ModelName,
        input: impl IntoIterator<Item = impl Into<String>>,
        output: impl Into<PathBuf>,
    ) -> Self {
        Self {
            model,
            version: None,
            input: input.into_iter().map(Into::into).collect(),
            input_format: None,
            output: Some(output.into()),
            output_format: None,
            errors: None,
            maps: Vec::new(),
            keep: Vec::new(),
            outputs: Vec::new(),
            max_errors: MaxErrors::default(),
            begin: Begin::default(),
            force: false,
            ordered: true,
            allow_mixed: false,
            cache: false,
            chunk_rows: None,
            window: ByteSize::mib(64),
            max_share: None,
        }
    }
}
