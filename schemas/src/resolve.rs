//! Named tensors held against the inputs of a model.

use std::fmt::Write;

use crate::coerce::{CoerceError, coerce};
use crate::error::{nearest, shorten};
use crate::problem::{MAX_PROBLEMS, Problem, RequestError};
use crate::tensor::{Tensor, TensorSpec, show_shape};

/// Names of a model's inputs that a message lists.
const LISTED: usize = 8;

/// The tensors in the model's order, or everything that is wrong with them.
pub(crate) fn tensors(
    tensors: Vec<Tensor>,
    specs: &[TensorSpec],
) -> Result<Vec<Tensor>, RequestError> {
    let mut slots: Vec<Option<Tensor>> = vec![None; specs.len()];
    let mut seen = vec![false; specs.len()];
    let mut problems = Vec::new();
    for (index, tensor) in tensors.into_iter().enumerate() {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        let path = format!("inputs[{index}]");
        let Some(slot) = specs.iter().position(|spec| spec.name == tensor.name) else {
            let message = unknown_input(&tensor.name, specs);
            problems.push(Problem::new(format!("{path}.name"), message));
            continue;
        };
        if std::mem::replace(&mut seen[slot], true) {
            let message = format!("`{}` is given twice", shorten(&tensor.name, 80));
            problems.push(Problem::new(format!("{path}.name"), message));
            continue;
        }
        match fit(tensor, &specs[slot], &path) {
            Ok(tensor) => slots[slot] = Some(tensor),
            Err(problem) => problems.push(problem),
        }
    }
    let unseen = specs.iter().zip(&seen).filter(|(_, seen)| !**seen);
    problems.extend(unseen.map(|(spec, _)| missing_input("inputs", spec)));
    if problems.is_empty() {
        Ok(slots.into_iter().flatten().collect())
    } else {
        Err(problems.into())
    }
}

/// One tensor in the shape and datatype of its spec.
fn fit(tensor: Tensor, spec: &TensorSpec, path: &str) -> Result<Tensor, Problem> {
    if !spec.takes_shape(&tensor.shape) {
        let message = shape_mismatch(&tensor.shape, spec);
        return Err(Problem::new(format!("{path}.shape"), message));
    }
    tensor
        .check()
        .map_err(|error| Problem::new(format!("{path}.data"), error.to_string()))?;
    let sent = tensor.datatype;
    coerce(tensor, spec.datatype).map_err(|error| match error {
        CoerceError::Kinds => Problem::new(
            format!("{path}.datatype"),
            format!(
                "{sent}, the model's input `{}` takes {}",
                spec.name, spec.datatype
            ),
        ),
        CoerceError::Value { index, misfit } => Problem::new(
            format!("{path}.data[{index}]"),
            format!(
                "{misfit}; the model's input `{}` takes {}",
                spec.name, spec.datatype
            ),
        ),
    })
}

/// `[2,63], the model's input `x` takes [?,64]`
pub(crate) fn shape_mismatch(shape: &[usize], spec: &TensorSpec) -> String {
    let (name, takes) = (&spec.name, spec.shape_text());
    format!(
        "{}, the model's input `{name}` takes {takes}",
        show_shape(shape)
    )
}

/// An input that is not there.
pub(crate) fn missing_input(path: impl Into<String>, spec: &TensorSpec) -> Problem {
    Problem::new(
        path,
        format!("the model's input `{}` is missing", spec.name),
    )
}

/// What to say of a name that is no input: the nearest one, or all of them.
pub(crate) fn unknown_input(name: &str, specs: &[TensorSpec]) -> String {
    let mut message = format!("the model has no input `{}`", shorten(name, 80));
    let known = || specs.iter().map(|spec| spec.name.as_str());
    if let Some(near) = nearest(name, known()) {
        let _ = write!(message, "; did you mean `{near}`?");
        return message;
    }
    let listed: Vec<String> = known()
        .take(LISTED)
        .map(|name| format!("`{name}`"))
        .collect();
    let _ = write!(message, "; it takes {}", listed.join(", "));
    if specs.len() > LISTED {
        let _ = write!(message, " and {} more", specs.len() - LISTED);
    }
    message
}
