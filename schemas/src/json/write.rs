//! JSON bodies, written by hand: elements go from little-endian bytes straight to text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use half::{bf16, f16};
use serde::Serialize;

use crate::problem::RequestError;
use crate::request::{Form, InferRequest, Inputs, Parameter};
use crate::response::InferResponse;
use crate::tensor::{DataType, Tensor, show_shape};
use crate::wire;

/// Writes a request in its form.
pub(crate) fn encode_request(request: &InferRequest) -> Result<Bytes, RequestError> {
    let mut out = Vec::new();
    out.push(b'{');
    if let Some(id) = &request.id {
        out.extend(b"\"id\":");
        put(&mut out, id);
        out.push(b',');
    }
    if !request.parameters.is_empty() {
        out.extend(b"\"parameters\":");
        let members = request.parameters.iter();
        parameters(
            &mut out,
            members.map(|(name, value)| (name.as_str(), value)),
        );
        out.push(b',');
    }
    match &request.inputs {
        Inputs::Tensors(inputs) => {
            out.extend(b"\"inputs\":");
            tensors(&mut out, inputs, "inputs")?;
        }
        Inputs::Rows(rows) => {
            out.extend(b"\"instances\":");
            put(&mut out, rows);
        }
        Inputs::Columns(columns) => {
            out.extend(b"\"inputs\":");
            put(&mut out, columns);
        }
    }
    if !request.outputs.is_empty() {
        out.extend(b",\"outputs\":");
        list(&mut out, request.outputs.iter(), |out, name| {
            out.extend(b"{\"name\":");
            put(out, name);
            out.push(b'}');
            Ok(())
        })?;
    }
    out.push(b'}');
    Ok(out.into())
}

/// Writes a response in the form its request had.
pub(crate) fn encode_response(response: &InferResponse, form: Form) -> Result<Bytes, RequestError> {
    wire::check(&response.outputs, "outputs")?;
    let mut out = Vec::new();
    match form {
        Form::Tensors => {
            out.extend(b"{\"model_name\":");
            put(&mut out, &response.model_name);
            out.extend(b",\"model_version\":");
            put(&mut out, &response.model_version);
            if let Some(id) = &response.id {
                out.extend(b",\"id\":");
                put(&mut out, id);
            }
            out.extend(b",\"parameters\":");
            let members = response.parameters.members();
            parameters(&mut out, members.iter().map(|(name, value)| (*name, value)));
            out.extend(b",\"outputs\":");
            tensors(&mut out, &response.outputs, "outputs")?;
        }
        Form::Rows => {
            out.extend(b"{\"predictions\":");
            rows(&mut out, &response.outputs)?;
        }
        Form::Columns => {
            out.extend(b"{\"outputs\":");
            columns(&mut out, &response.outputs);
        }
    }
    out.push(b'}');
    Ok(out.into())
}

/// Appends any value that is always JSON: text, numbers, and trees of values.
fn put<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("memory takes every write, and this value is JSON");
}

/// Appends items between brackets, parted by commas.
fn list<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut item: impl FnMut(&mut Vec<u8>, T) -> Result<(), RequestError>,
) -> Result<(), RequestError> {
    out.push(b'[');
    for (index, each) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        item(out, each)?;
    }
    out.push(b']');
    Ok(())
}

fn parameters<'a>(out: &mut Vec<u8>, members: impl Iterator<Item = (&'a str, &'a Parameter)>) {
    out.push(b'{');
    for (index, (name, value)) in members.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put(out, name);
        out.push(b':');
        match value {
            Parameter::Bool(value) => put(out, value),
            Parameter::Int(value) => put(out, value),
            Parameter::Float(value) => float(out, *value, value),
            Parameter::String(value) => put(out, value),
        }
    }
    out.push(b'}');
}

fn tensors(out: &mut Vec<u8>, tensors: &[Tensor], path: &str) -> Result<(), RequestError> {
    wire::check(tensors, path)?;
    list(out, tensors.iter(), |out, tensor| {
        out.extend(b"{\"name\":");
        put(out, &tensor.name);
        out.extend(b",\"datatype\":");
        put(out, tensor.datatype.as_str());
        out.extend(b",\"shape\":");
        put(out, &tensor.shape);
        out.extend(b",\"data\":");
        let mut elements = Cursor::new(tensor);
        elements.axis(out, &[tensor.elements()]);
        out.push(b'}');
        Ok(())
    })
}

/// `predictions`: one item per row.
fn rows(out: &mut Vec<u8>, outputs: &[Tensor]) -> Result<(), RequestError> {
    let first = outputs.first().and_then(|output| output.shape.first());
    for output in outputs {
        if output.shape.is_empty() || output.shape.first() != first {
            let shapes: Vec<String> = outputs
                .iter()
                .map(|output| format!("`{}` {}", output.name, show_shape(&output.shape)))
                .collect();
            let message = format!(
                "the outputs do not share their number of rows ({}); send `inputs` (by column, or named tensors) instead of `instances`",
                shapes.join(", ")
            );
            return Err(RequestError::new("predictions", message));
        }
    }
    let mut cursors: Vec<Cursor<'_>> = outputs.iter().map(Cursor::new).collect();
    list(out, 0..first.copied().unwrap_or(0), |out, _| {
        by_name(out, outputs, |out, index, output| {
            cursors[index].axis(out, output.shape.get(1..).unwrap_or_default());
        });
        Ok(())
    })
}

/// `outputs` in column form.
fn columns(out: &mut Vec<u8>, outputs: &[Tensor]) {
    by_name(out, outputs, |out, _, output| {
        Cursor::new(output).axis(out, &output.shape);
    });
}

/// One output as bare values, several as an object.
fn by_name(
    out: &mut Vec<u8>,
    outputs: &[Tensor],
    mut values: impl FnMut(&mut Vec<u8>, usize, &Tensor),
) {
    if let [output] = outputs {
        return values(out, 0, output);
    }
    out.push(b'{');
    for (index, output) in outputs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put(out, &output.name);
        out.push(b':');
        values(out, index, output);
    }
    out.push(b'}');
}

/// The elements of a tensor that is known to be sound, in order.
struct Cursor<'a> {
    rest: &'a [u8],
    datatype: DataType,
    /// BYTES as `{"b64": ...}` even if they are text.
    base64: bool,
}

impl<'a> Cursor<'a> {
    fn new(tensor: &'a Tensor) -> Self {
        Self {
            rest: &tensor.data,
            datatype: tensor.datatype,
            base64: tensor.name.ends_with("_bytes"),
        }
    }

    /// Appends the elements of the axes `shape`, nested.
    fn axis(&mut self, out: &mut Vec<u8>, shape: &[usize]) {
        let Some((size, inner)) = shape.split_first() else {
            return self.element(out);
        };
        out.push(b'[');
        for index in 0..*size {
            if index > 0 {
                out.push(b',');
            }
            self.axis(out, inner);
        }
        out.push(b']');
    }

    fn take<const SIZE: usize>(&mut self) -> [u8; SIZE] {
        let (element, rest) = self
            .rest
            .split_first_chunk()
            .expect("the tensor was checked to have all elements of its shape");
        self.rest = rest;
        *element
    }

    fn element(&mut self, out: &mut Vec<u8>) {
        match self.datatype {
            DataType::Bool => put(out, &(self.take::<1>() != [0])),
            DataType::Uint8 => put(out, &u8::from_le_bytes(self.take())),
            DataType::Uint16 => put(out, &u16::from_le_bytes(self.take())),
            DataType::Uint32 => put(out, &u32::from_le_bytes(self.take())),
            DataType::Uint64 => put(out, &u64::from_le_bytes(self.take())),
            DataType::Int8 => put(out, &i8::from_le_bytes(self.take())),
            DataType::Int16 => put(out, &i16::from_le_bytes(self.take())),
            DataType::Int32 => put(out, &i32::from_le_bytes(self.take())),
            DataType::Int64 => put(out, &i64::from_le_bytes(self.take())),
            DataType::Fp16 => single(out, f16::from_le_bytes(self.take()).to_f32()),
            DataType::Bf16 => single(out, bf16::from_le_bytes(self.take()).to_f32()),
            DataType::Fp32 => single(out, f32::from_le_bytes(self.take())),
            DataType::Fp64 => {
                let value = f64::from_le_bytes(self.take());
                float(out, value, &value);
            }
            DataType::Bytes => {
                let length = u32::from_le_bytes(self.take()) as usize;
                let (element, rest) = self.rest.split_at(length);
                self.rest = rest;
                match std::str::from_utf8(element) {
                    Ok(text) if !self.base64 => put(out, text),
                    _ => {
                        out.extend(b"{\"b64\":");
                        put(out, &STANDARD.encode(element));
                        out.push(b'}');
                    }
                }
            }
        }
    }
}

/// A float of at most 32 bits, in as few digits as tell it from its neighbours.
fn single(out: &mut Vec<u8>, value: f32) {
    float(out, value.into(), &value);
}

/// A float as a number with its own digits, or as text if JSON has no number for it.
fn float<T: Serialize>(out: &mut Vec<u8>, value: f64, digits: &T) {
    if value.is_nan() {
        out.extend(b"\"NaN\"");
    } else if value == f64::INFINITY {
        out.extend(b"\"Infinity\"");
    } else if value == f64::NEG_INFINITY {
        out.extend(b"\"-Infinity\"");
    } else {
        put(out, digits);
    }
}
