//! `inputs` by column: an object of whole inputs, or the one input of a model that has one.

use serde_json::Value;

use super::rows::by_name;
use super::tree;
use crate::limits::Limits;
use crate::problem::{Problem, RequestError};
use crate::resolve::{missing_input, shape_mismatch, unknown_input};
use crate::tensor::{Tensor, TensorSpec};

/// Each input of the model, or what is wrong with each.
pub(crate) fn columns(
    columns: &Value,
    specs: &[TensorSpec],
    limits: &Limits,
) -> Result<Vec<Tensor>, RequestError> {
    if let [spec] = specs
        && !by_name(columns, spec)
    {
        return Ok(vec![column(columns, spec, "inputs", limits)?]);
    }
    let Value::Object(members) = columns else {
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let (kind, names) = (tree::kind(columns), names.join(", "));
        let message =
            format!("{kind} where an object with the model's inputs ({names}) is expected");
        return Err(RequestError::new("inputs", message));
    };
    let mut problems: Vec<Problem> = members
        .keys()
        .filter(|name| !specs.iter().any(|spec| spec.name == **name))
        .map(|name| Problem::new("inputs", unknown_input(name, specs)))
        .take(crate::problem::MAX_PROBLEMS)
        .collect();
    let mut tensors = Vec::with_capacity(specs.len());
    for spec in specs {
        let tensor = match members.get(&spec.name) {
            Some(value) => column(value, spec, &format!("inputs.{}", spec.name), limits),
            None => Err(missing_input("inputs", spec)),
        };
        match tensor {
            Ok(tensor) => tensors.push(tensor),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(tensors)
    } else {
        Err(problems.into())
    }
}

fn column(
    value: &Value,
    spec: &TensorSpec,
    path: &str,
    limits: &Limits,
) -> Result<Tensor, Problem> {
    let mut data = Vec::new();
    let shape = tree::read(value, spec.datatype, path, limits, &mut data)?;
    if !spec.takes_shape(&shape) {
        let message = format!("shape {}", shape_mismatch(&shape, spec));
        return Err(Problem::new(path, message));
    }
    let tensor = Tensor::new(&spec.name, spec.datatype, shape, data.into())
        .map_err(|error| Problem::new(path, error.to_string()))?;
    if tensor.elements() > limits.max_elements {
        let message = format!("more than {} elements", limits.max_elements);
        return Err(Problem::new(path, message));
    }
    Ok(tensor)
}
