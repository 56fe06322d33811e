//! The shape of one row of an input.

use inferq_schemas::{DataType, Dim, TensorSpec};

/// The shape of a row of `spec` that has `count` elements, in lists of the lengths `nested` if it says.
pub(super) fn row_shape(
    spec: &TensorSpec,
    nested: &[usize],
    count: usize,
) -> Result<Vec<usize>, String> {
    let axes = &spec.shape[1..];
    if nested.len() == axes.len() && !axes.is_empty() {
        if axes.iter().zip(nested).all(|(dim, size)| dim.takes(*size)) {
            return Ok(nested.to_vec());
        }
        return Err(format!("a list of {nested:?} where {spec} is expected"));
    }
    if nested.len() > 1 {
        let depth = nested.len();
        return Err(format!(
            "lists nested {depth} deep where {spec} is expected"
        ));
    }
    let fixed = axes.iter().filter_map(|dim| match dim {
        Dim::Fixed(size) => Some(*size),
        Dim::Any => None,
    });
    let fixed: usize = fixed.product();
    let free = axes.iter().filter(|dim| **dim == Dim::Any).count();
    let fits = match free {
        0 => count == fixed,
        1 => fixed > 0 && count > 0 && count.is_multiple_of(fixed),
        _ => {
            return Err(format!(
                "a flat list where {spec} is expected; nest the lists by axis"
            ));
        }
    };
    if !fits {
        let needs = needs(spec);
        return Err(format!("a row of {count} where {spec} takes {needs}"));
    }
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => *size,
        Dim::Any => count / fixed,
    };
    Ok(axes.iter().map(size).collect())
}

/// What a row of an input has, in words.
pub(super) fn needs(spec: &TensorSpec) -> String {
    let what = match spec.datatype {
        DataType::Bytes => "text",
        _ => "number",
    };
    let axes = &spec.shape[1..];
    let fixed = axes.iter().filter_map(|dim| match dim {
        Dim::Fixed(size) => Some(*size),
        Dim::Any => None,
    });
    let fixed: usize = fixed.product();
    match axes.iter().filter(|dim| **dim == Dim::Any).count() {
        0 if fixed == 1 => format!("one {what}"),
        0 => format!("{fixed} {what}s"),
        1 if fixed == 1 => format!("a list of {what}s"),
        1 => format!("a list of {what}s, a multiple of {fixed}"),
        free => format!("nested lists of {what}s with {free} free axes"),
    }
}
