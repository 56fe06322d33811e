//! Why columns and inputs do not come together.

use std::fmt;

use inferq_schemas::DataType;

use super::shown;

/// Why columns and inputs do not come together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// Inputs without columns.
    #[error("{}", uncovered(inputs, columns))]
    Uncovered {
        /// The inputs.
        inputs: Vec<Uncovered>,
        /// All columns there are.
        columns: Vec<String>,
    },
    /// A rule names a column that is not there.
    #[error("{by} names column `{column}`, which is not there{}", did_you_mean(nearest.as_deref()))]
    NoColumn {
        /// `--map` or `model.toml`.
        by: &'static str,
        /// The column.
        column: String,
        /// A column with almost that name.
        nearest: Option<String>,
    },
    /// A rule names an input that the model has not.
    #[error("{by} names input `{input}`, which the model has not{}", did_you_mean(nearest.as_deref()))]
    NoInput {
        /// `--map` or `model.toml`.
        by: &'static str,
        /// The input.
        input: String,
        /// An input with almost that name.
        nearest: Option<String>,
    },
    /// Two `--map` for one input.
    #[error("--map names input `{input}` twice; give all its columns at once")]
    Twice {
        /// The input.
        input: String,
    },
    /// A rule gives a number of columns that cannot be a row of the input.
    #[error("{by} gives {columns} columns for `{spec}`, which takes {needs} per row")]
    Width {
        /// `--map` or `model.toml`.
        by: &'static str,
        /// How many.
        columns: usize,
        /// The input as people write it.
        spec: String,
        /// What a row has.
        needs: String,
    },
    /// A column of a type that is no element of an input.
    #[error("column `{column}` is {found}, which does not become {datatype}; convert it first")]
    Type {
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// What the input takes.
        datatype: DataType,
    },
    /// An input without axes cannot hold rows.
    #[error(
        "input `{input}` of the model is a single value and has no axis for rows; rows cannot be scored with it"
    )]
    NoRows {
        /// The input.
        input: String,
    },
}

/// An input that no column makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uncovered {
    /// The input.
    pub input: String,
    /// Its datatype and shape as people write them.
    pub spec: String,
    /// What a row has.
    pub needs: String,
    /// What comes close, and why it is not taken.
    pub reason: String,
}

fn uncovered(inputs: &[Uncovered], columns: &[String]) -> String {
    let mut text = String::from("some inputs of the model have no columns:");
    for Uncovered {
        input,
        spec,
        needs,
        reason,
    } in inputs
    {
        text.push_str(&format!("\n  {spec} takes {needs} per row; {reason}"));
        text.push_str(&format!(
            ". Name the columns `{input}` or `{input}_0`, `{input}_1`, .., or use --map COLUMN,..={input}"
        ));
    }
    text.push_str(&format!("\nThe input has {}.", shown(columns)));
    text
}

fn did_you_mean(nearest: Option<&str>) -> impl fmt::Display {
    match nearest {
        Some(name) => format!("; did you mean `{name}`?"),
        None => String::new(),
    }
}
