//! `instances`: one item per row, bare for a model with one input, by name for several.

use serde_json::{Map, Value};

use super::tree::{self, is_base64};
use crate::limits::Limits;
use crate::problem::{MAX_PROBLEMS, Problem, RequestError};
use crate::resolve::{missing_input, unknown_input};
use crate::spec::show_dims;
use crate::tensor::{Dim, Tensor, TensorSpec, show_shape};

/// The rows as one tensor for each input, or what is wrong with each row.
pub(crate) fn rows(
    rows: &[Value],
    specs: &[TensorSpec],
    limits: &Limits,
) -> Result<Vec<Tensor>, RequestError> {
    if let Some(spec) = specs.iter().find(|spec| spec.shape.is_empty()) {
        let message = format!(
            "the model's input `{}` has no rows; send `inputs` instead",
            spec.name
        );
        return Err(RequestError::new("instances", message));
    }
    let mut columns: Vec<Column<'_>> = specs.iter().map(Column::new).collect();
    let mut problems = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        let path = format!("instances[{index}]");
        match (columns.as_mut_slice(), row) {
            ([column], row) if !by_name(row, column.spec) => {
                problems.extend(column.push(row, &path, limits).err());
            }
            (_, Value::Object(members)) => {
                push_members(members, &mut columns, specs, &path, limits, &mut problems);
            }
            (_, other) => {
                let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
                let (kind, names) = (tree::kind(other), names.join(", "));
                let message =
                    format!("{kind} where an object with the model's inputs ({names}) is expected");
                problems.push(Problem::new(path, message));
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems.into());
    }
    columns
        .into_iter()
        .map(|column| {
            column
                .finish(rows.len(), limits)
                .map_err(RequestError::from)
        })
        .collect()
}

/// Whether a row of a model with one input gives that input by name.
pub(super) fn by_name(row: &Value, spec: &TensorSpec) -> bool {
    let bytes = spec.datatype.size().is_none() && spec.name != "b64" && is_base64(row);
    row.is_object() && !bytes
}

fn push_members(
    members: &Map<String, Value>,
    columns: &mut [Column<'_>],
    specs: &[TensorSpec],
    path: &str,
    limits: &Limits,
    problems: &mut Vec<Problem>,
) {
    for name in members.keys() {
        if !specs.iter().any(|spec| spec.name == *name) && problems.len() < MAX_PROBLEMS {
            problems.push(Problem::new(path, unknown_input(name, specs)));
        }
    }
    for column in columns {
        let problem = match members.get(&column.spec.name) {
            Some(value) => {
                let path = format!("{path}.{}", column.spec.name);
                column.push(value, &path, limits).err()
            }
            None => Some(missing_input(path, column.spec)),
        };
        problems.extend(problem);
    }
}

/// One input on its way from rows to a tensor.
struct Column<'a> {
    spec: &'a TensorSpec,
    data: Vec<u8>,
    /// Shape of the first row, which all others must share, and its place.
    row_shape: Option<(Vec<usize>, String)>,
}

impl<'a> Column<'a> {
    fn new(spec: &'a TensorSpec) -> Self {
        Self {
            spec,
            data: Vec::new(),
            row_shape: None,
        }
    }

    fn push(&mut self, row: &Value, path: &str, limits: &Limits) -> Result<(), Problem> {
        let shape = tree::read(row, self.spec.datatype, path, limits, &mut self.data)?;
        // The spec of a model with rows has at least one axis.
        let wanted = self.spec.shape.get(1..).unwrap_or_default();
        let fits = wanted.len() == shape.len()
            && wanted
                .iter()
                .zip(&shape)
                .all(|(dim, size)| dim.takes(*size));
        if !fits {
            return Err(Problem::new(path, self.mismatch(&shape, wanted)));
        }
        match &self.row_shape {
            Some((first, place)) if *first != shape => {
                let (shape, first) = (show_shape(&shape), show_shape(first));
                let message = format!("shape {shape}, but {place} has {first}");
                Err(Problem::new(path, message))
            }
            Some(_) => Ok(()),
            None => {
                self.row_shape = Some((shape, path.to_owned()));
                Ok(())
            }
        }
    }

    fn mismatch(&self, shape: &[usize], wanted: &[Dim]) -> String {
        let input = format!("the model's input `{}` takes", self.spec.name);
        match (shape, wanted) {
            ([], []) => format!("one value, {input} one value"),
            ([], [size]) => format!("one value, {input} {size}"),
            ([values], []) => format!("{values} values, {input} one"),
            ([values], [size]) => format!("{values} values, {input} {size}"),
            _ => format!("shape {}, {input} {}", show_shape(shape), show_dims(wanted)),
        }
    }

    fn finish(self, rows: usize, limits: &Limits) -> Result<Tensor, Problem> {
        let name = &self.spec.name;
        let mut shape = vec![rows];
        shape.extend(self.row_shape.into_iter().flat_map(|(shape, _)| shape));
        if !self.spec.takes_shape(&shape) {
            let takes = self.spec.shape_text();
            let message = format!("{rows} rows, the model's input `{name}` takes {takes}");
            return Err(Problem::new("instances", message));
        }
        let tensor = Tensor::new(name, self.spec.datatype, shape, self.data.into())
            .map_err(|error| Problem::new("instances", error.to_string()))?;
        if tensor.elements() > limits.max_elements {
            let message = format!("more than {} elements", limits.max_elements);
            return Err(Problem::new("instances", message));
        }
        Ok(tensor)
    }
}
