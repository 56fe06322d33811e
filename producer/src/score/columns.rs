//! Which columns make which input of the model, and their cells as its tensors.
//!
//! What is decided once per run, before the first row is sent: [`Mapping::decide`]. What is done to
//! every piece: [`Mapping::tensors`]. A cell that does not become an element of its input costs its
//! row, never the piece.

mod cells;
mod decide;
mod element;
mod error;
mod fill;
mod json_list;
mod rule;
mod shape;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use inferq_schemas::{DataType, Tensor, TensorSpec};
use serde::{Deserialize, Serialize};

pub use self::error::{MappingError, Uncovered};
pub use self::rule::{MapRule, MapRuleError};
use super::read::{Records, RowProblem};

/// Columns and the inputs they make, decided once per run.
#[derive(Debug)]
pub struct Mapping {
    inputs: Vec<Input>,
    ignored: Vec<String>,
}

/// One input of the model and its columns.
#[derive(Debug)]
struct Input {
    spec: TensorSpec,
    /// Places of the columns in the input's table, in the order of the elements.
    places: Vec<usize>,
    note: InputNote,
    /// The shape of a row, once it is settled: from the start if no axis is free.
    shape: OnceLock<Vec<usize>>,
}

/// What goes where: for people as text, for the fingerprint of a run by `serde`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingNote {
    /// The inputs in the order of the model.
    pub inputs: Vec<InputNote>,
    /// Columns that make no input.
    pub ignored: Vec<String>,
}

/// One input and what makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputNote {
    /// The input.
    pub input: String,
    /// Its datatype.
    pub datatype: DataType,
    /// Its columns, in the order of the elements of a row.
    pub columns: Vec<String>,
    /// Why these.
    pub by: By,
}

/// Why a column makes an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// `--map` says so.
    Map,
    /// `model.toml` says so.
    ModelToml,
    /// It has the input's name.
    Name,
    /// They have the input's name and a number.
    Numbers,
    /// The model has one input, and they are all columns of its kind.
    All,
}

/// The rows of a piece as tensors.
#[derive(Debug)]
pub struct Mapped {
    /// One tensor per input, `[rows, ...]`, of the good rows; none if no row is good.
    pub tensors: Vec<Tensor>,
    /// The numbers of the good rows in the whole input, ascending.
    pub rows: Vec<u64>,
    /// The other rows, ascending: those that could not be read, and those that do not fit the model.
    pub problems: Vec<RowProblem>,
}

impl Mapping {
    /// Decides which of `columns` make the inputs `specs`, whose axis 0 is the row.
    ///
    /// For each input the first that applies: `maps`; the columns that `declared` names for it, if any of them is there; a
    /// column of its name; columns called `<input>_0`, `<input>_1`, ...; and for a model with one input
    /// the only list, or else all columns of its kind, if their number fits. `sample` are first rows:
    /// they show which text columns hold numbers or lists, and settle free axes.
    ///
    /// # Errors
    /// [`MappingError`] that names every input without columns, what it needs and what is there.
    pub fn decide(
        columns: &Schema,
        specs: &[TensorSpec],
        maps: &[MapRule],
        declared: &BTreeMap<String, Vec<String>>,
        sample: Option<&RecordBatch>,
    ) -> Result<Self, MappingError> {
        let mapping = decide::decide(columns, specs, maps, declared, sample)?;
        if let Some(batch) = sample {
            // Only for the free axes: its first good row settles them.
            mapping.tensors(&Records {
                first_row: 0,
                batch: batch.clone(),
                problems: Vec::new(),
            });
        }
        Ok(mapping)
    }

    /// What goes where.
    pub fn describe(&self) -> MappingNote {
        MappingNote {
            inputs: self.inputs.iter().map(|input| input.note.clone()).collect(),
            ignored: self.ignored.clone(),
        }
    }

    /// The tensors of the good rows of `records`, whose columns are those it was decided for.
    ///
    /// Integers take whole numbers that fit, floats any number, to the nearest; NaN and infinity only
    /// where they are spelled out. BYTES take text. An empty or null cell is a problem of its row, as
    /// is a list whose length is not that of the first good row of the run on a free axis.
    pub fn tensors(&self, records: &Records) -> Mapped {
        fill::tensors(&self.inputs, records)
    }
}

impl fmt::Display for MappingNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, input) in self.inputs.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(
                f,
                "{} ({}) from {}",
                input.input,
                input.datatype,
                shown(&input.columns)
            )?;
            f.write_str(match input.by {
                By::Map => " as mapped",
                By::ModelToml => " as model.toml says",
                By::Name => "",
                By::Numbers => " by number",
                By::All => ", which fit",
            })?;
        }
        if !self.ignored.is_empty() {
            write!(f, "; ignored: {}", shown(&self.ignored))?;
        }
        Ok(())
    }
}

/// Names for a message: all of a few, else the first and the last.
fn shown(names: &[String]) -> String {
    match names {
        [] => "no column".to_owned(),
        [first, .., last] if names.len() > 8 => {
            format!("{} columns `{first}` .. `{last}`", names.len())
        }
        _ => {
            let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            quoted.join(", ")
        }
    }
}

#[cfg(test)]
mod tests;
