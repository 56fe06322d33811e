//! The structure of requests and responses in tensor form, read once for both encodings.
//!
//! JSON and CBOR differ in how a value is written and in what `data` is; [`Node`] hides the first
//! and does the second. So the two cannot disagree about members, limits or messages.

use std::borrow::Cow;
use std::collections::HashSet;

use bytes::Bytes;

use crate::error::shorten;
use crate::limits::Limits;
use crate::problem::{MAX_PROBLEMS, Problem, RequestError};
use crate::request::{Parameter, Parameters};
use crate::response::{InferResponse, ResponseParameters};
use crate::tensor::{DataType, Tensor, count, show_shape};

/// Members of one object that are looked at, known or not; beyond that it is no request.
pub(crate) const MAX_MEMBERS: usize = 1024;

/// What decoding needs besides the node itself.
pub(crate) struct Context<'a> {
    /// The whole body, which decoded data may share.
    pub(crate) body: &'a Bytes,
    pub(crate) limits: &'a Limits,
}

/// A value of one of the encodings. Asking for what it is not gives `None`.
pub(crate) trait Node<'a>: Sized {
    /// What it is, for messages: `text`, `a list`.
    fn kind(&self) -> &'static str;
    fn text(&self) -> Option<Cow<'a, str>>;
    /// A whole number from 0.
    fn size(&self) -> Option<usize>;
    fn parameter(&self) -> Option<Parameter>;
    /// Its items if it is a list; at most `max + 1`, so that the caller sees there are too many.
    fn items(&self, max: usize) -> Option<Vec<Self>>;
    /// Its members if it is an object; at most `max + 1`.
    fn members(&self, max: usize) -> Option<Members<'a, Self>>;
    /// Its elements, little-endian, if it is the `data` of a tensor with this type and shape.
    fn data(&self, head: &Head<'_>, path: &str, context: &Context<'_>) -> Result<Bytes, Problem>;
}

pub(crate) type Members<'a, N> = Vec<(Cow<'a, str>, N)>;

/// What is known of a tensor before its data is read: `elements` is the product of `shape`.
pub(crate) struct Head<'a> {
    pub(crate) datatype: DataType,
    pub(crate) shape: &'a [usize],
    pub(crate) elements: usize,
}

/// The members of an object, with the place it was found at.
pub(crate) struct Object<'a, N> {
    members: Members<'a, N>,
    path: String,
}

impl<'a, N: Node<'a>> Object<'a, N> {
    /// Checks that `members` are not too many.
    pub(crate) fn new(members: Members<'a, N>, path: impl Into<String>) -> Result<Self, Problem> {
        let path = path.into();
        if members.len() > MAX_MEMBERS {
            let message = format!("more than {MAX_MEMBERS} members");
            return Err(Problem::new(path, message));
        }
        Ok(Self { members, path })
    }

    /// The object at `path`.
    fn open(node: &N, path: &str) -> Result<Self, Problem> {
        match node.members(MAX_MEMBERS) {
            Some(members) => Self::new(members, path),
            None => Err(Problem::new(
                path,
                format!("{} where an object is expected", node.kind()),
            )),
        }
    }

    /// The place of a member.
    fn place(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    /// Takes a member out; `None` if it is absent or null. A name that comes twice is a problem.
    pub(crate) fn take(&mut self, name: &str) -> Result<Option<N>, Problem> {
        let mut found = None;
        while let Some(at) = self.members.iter().position(|(key, _)| key == name) {
            let (_, node) = self.members.swap_remove(at);
            if found.replace(node).is_some() {
                return Err(Problem::new(self.place(name), "given twice"));
            }
        }
        Ok(found.filter(|node| node.kind() != NULL))
    }

    /// Takes a member out that must be there.
    fn need(&mut self, name: &str) -> Result<N, Problem> {
        self.take(name)?
            .ok_or_else(|| Problem::new(self.path.clone(), format!("`{name}` is missing")))
    }

    /// Takes text out of at most `max_name_bytes`.
    pub(crate) fn text(&mut self, name: &str, limits: &Limits) -> Result<Option<String>, Problem> {
        let Some(node) = self.take(name)? else {
            return Ok(None);
        };
        short_text(&node, &self.place(name), limits).map(Some)
    }

    fn need_text(&mut self, name: &str, limits: &Limits) -> Result<String, Problem> {
        self.text(name, limits)?
            .ok_or_else(|| Problem::new(self.path.clone(), format!("`{name}` is missing")))
    }
}

/// What [`Node::kind`] says of null.
pub(crate) const NULL: &str = "null";

fn short_text<'a, N: Node<'a>>(node: &N, path: &str, limits: &Limits) -> Result<String, Problem> {
    let Some(text) = node.text() else {
        let message = format!("{} where text is expected", node.kind());
        return Err(Problem::new(path, message));
    };
    if text.len() > limits.max_name_bytes {
        let (bytes, max) = (text.len(), limits.max_name_bytes);
        return Err(Problem::new(path, format!("{bytes} bytes, at most {max}")));
    }
    Ok(text.into_owned())
}

fn list<'a, N: Node<'a>>(node: &N, path: &str, max: usize) -> Result<Vec<N>, Problem> {
    let Some(items) = node.items(max) else {
        let message = format!("{} where a list is expected", node.kind());
        return Err(Problem::new(path, message));
    };
    if items.len() > max {
        return Err(Problem::new(path, format!("more than {max} items")));
    }
    Ok(items)
}

/// The tensors of `inputs` or `outputs`, or the problem of each that has one.
pub(crate) fn tensors<'a, N: Node<'a>>(
    node: &N,
    path: &str,
    context: &Context<'_>,
) -> Result<Vec<Tensor>, RequestError> {
    let nodes = list(node, path, context.limits.max_tensors)?;
    let mut tensors = Vec::with_capacity(nodes.len());
    let mut problems = Vec::new();
    let mut names = HashSet::new();
    for (index, node) in nodes.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match tensor(node, &path, context) {
            Ok(tensor) if !names.insert(tensor.name.clone()) => problems.push(Problem::new(
                format!("{path}.name"),
                format!("`{}` is given twice", shorten(&tensor.name, 80)),
            )),
            Ok(tensor) => tensors.push(tensor),
            Err(problem) => problems.push(problem),
        }
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    if problems.is_empty() {
        Ok(tensors)
    } else {
        Err(problems.into())
    }
}

fn tensor<'a, N: Node<'a>>(node: &N, path: &str, context: &Context<'_>) -> Result<Tensor, Problem> {
    let mut object = Object::open(node, path)?;
    let name = object.need_text("name", context.limits)?;
    let datatype: DataType = object
        .need_text("datatype", context.limits)?
        .parse()
        .map_err(|error: crate::NameError| {
            Problem::new(format!("{path}.datatype"), error.to_string())
        })?;
    let (shape, elements) = shape(
        &object.need("shape")?,
        &format!("{path}.shape"),
        context.limits,
    )?;
    let head = Head {
        datatype,
        shape: &shape,
        elements,
    };
    let data = object
        .need("data")?
        .data(&head, &format!("{path}.data"), context)?;
    Tensor::new(name, datatype, shape, data)
        .map_err(|error| Problem::new(format!("{path}.data"), error.to_string()))
}

/// A shape within the limits, and its number of elements.
fn shape<'a, N: Node<'a>>(
    node: &N,
    path: &str,
    limits: &Limits,
) -> Result<(Vec<usize>, usize), Problem> {
    let dims = list(node, path, limits.max_rank)?;
    let mut shape = Vec::with_capacity(dims.len());
    for (axis, dim) in dims.iter().enumerate() {
        shape.push(dim.size().ok_or_else(|| {
            let message = format!("{} where a whole number from 0 is expected", dim.kind());
            Problem::new(format!("{path}[{axis}]"), message)
        })?);
    }
    let max = limits.max_elements;
    // Axes of 0 count as 1 here, so that no axis can be large without bound.
    let largest = shape
        .iter()
        .try_fold(1_usize, |all, dim| all.checked_mul((*dim).max(1)));
    match (largest, count(&shape)) {
        (Some(largest), Ok(elements)) if largest <= max => Ok((shape, elements)),
        _ => Err(Problem::new(
            path,
            format!("{} has more than {max} elements", show_shape(&shape)),
        )),
    }
}

/// The names in `outputs` of a request: objects with a `name`, or names alone.
pub(crate) fn wanted_outputs<'a, N: Node<'a>>(
    object: &mut Object<'a, N>,
    limits: &Limits,
) -> Result<Vec<String>, Problem> {
    let Some(node) = object.take("outputs")? else {
        return Ok(Vec::new());
    };
    let mut names: Vec<String> = Vec::new();
    for (index, node) in list(&node, "outputs", limits.max_tensors)?
        .iter()
        .enumerate()
    {
        let path = format!("outputs[{index}]");
        let name = match node.text() {
            Some(_) => short_text(node, &path, limits)?,
            None => Object::open(node, &path)?.need_text("name", limits)?,
        };
        if names.contains(&name) {
            let message = format!("`{}` is asked for twice", shorten(&name, 80));
            return Err(Problem::new(path, message));
        }
        names.push(name);
    }
    Ok(names)
}

/// The member `parameters`.
pub(crate) fn parameters<'a, N: Node<'a>>(
    object: &mut Object<'a, N>,
    limits: &Limits,
) -> Result<Parameters, Problem> {
    let mut parameters = Parameters::new();
    let Some(node) = object.take("parameters")? else {
        return Ok(parameters);
    };
    let path = "parameters";
    let members = Object::open(&node, path)?.members;
    if members.len() > limits.max_parameters {
        let message = format!("more than {} parameters", limits.max_parameters);
        return Err(Problem::new(path, message));
    }
    for (name, node) in members {
        let place = || format!("{path}.{}", shorten(&name, 80));
        if name.len() > limits.max_name_bytes {
            let message = format!(
                "a name of {} bytes, at most {}",
                name.len(),
                limits.max_name_bytes
            );
            return Err(Problem::new(place(), message));
        }
        let value = node.parameter().ok_or_else(|| {
            let what = "text, true, false, or a number that fits 64 bits, is expected";
            Problem::new(place(), format!("{} where {what}", node.kind()))
        })?;
        if parameters.contains_key(&*name) {
            return Err(Problem::new(place(), "given twice"));
        }
        parameters.insert(name.into_owned(), value);
    }
    Ok(parameters)
}

/// A response in tensor form.
pub(crate) fn response<'a, N: Node<'a>>(
    mut object: Object<'a, N>,
    context: &Context<'_>,
) -> Result<InferResponse, RequestError> {
    let limits = context.limits;
    Ok(InferResponse {
        model_name: object.need_text("model_name", limits)?,
        model_version: object.text("model_version", limits)?.unwrap_or_default(),
        id: object.text("id", limits)?,
        parameters: ResponseParameters::from_parameters(&parameters(&mut object, limits)?),
        outputs: tensors(&object.need("outputs")?, "outputs", context)?,
    })
}

/// Holds tensors about to be written to what their public fields promise.
pub(crate) fn check(tensors: &[Tensor], path: &str) -> Result<(), RequestError> {
    for (index, tensor) in tensors.iter().enumerate() {
        tensor
            .check()
            .map_err(|error| RequestError::new(format!("{path}[{index}]"), error.to_string()))?;
    }
    Ok(())
}
