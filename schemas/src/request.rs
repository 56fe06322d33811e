//! The infer request in its three forms, and the way from bytes to the model's tensors.
//!
//! `decode` reads a body without knowing the model; `into_tensors` then holds it against the
//! model's inputs and names every problem with its place.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

pub use crate::content_type::ContentType;
use crate::limits::Limits;
pub use crate::problem::{Problem, RequestError};
use crate::tensor::{Tensor, TensorSpec};
use crate::{cbor, json, resolve};

/// How a request spoke, and how its answer must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// `inputs` as a list of named tensors; answered with `outputs` of the same kind.
    Tensors,
    /// `instances`; answered with `predictions`. JSON only.
    Rows,
    /// `inputs` as an object, or as a list whose first item has no `name`; answered with
    /// `outputs` in column form. JSON only.
    Columns,
}

/// A value of a request's parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    /// `true` or `false`
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    String(String),
}

/// A request's parameters by name.
pub type Parameters = BTreeMap<String, Parameter>;

/// What a request asks the model to work on.
#[derive(Debug, Clone, PartialEq)]
pub enum Inputs {
    /// Named tensors, as sent.
    Tensors(Vec<Tensor>),
    /// One value per row; never empty after decoding.
    Rows(Vec<Value>),
    /// An object of columns, or the one column of a model with one input.
    Columns(Value),
}

impl Inputs {
    /// The form of a request with these inputs.
    pub fn form(&self) -> Form {
        match self {
            Self::Tensors(_) => Form::Tensors,
            Self::Rows(_) => Form::Rows,
            Self::Columns(_) => Form::Columns,
        }
    }
}

/// A request to run a model.
#[derive(Debug, Clone, PartialEq)]
pub struct InferRequest {
    /// Comes back in the response.
    pub id: Option<String>,
    /// What to work on.
    pub inputs: Inputs,
    /// Names of the outputs wanted, in this order; empty for all.
    pub outputs: Vec<String>,
    /// Free parameters.
    pub parameters: Parameters,
}

/// A request and how it was written, which is how its answer is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The request.
    pub request: InferRequest,
    /// Its encoding.
    pub content_type: ContentType,
    /// Its form.
    pub form: Form,
}

impl InferRequest {
    /// A request with these inputs for all outputs, without id and parameters.
    pub fn new(inputs: Inputs) -> Self {
        Self {
            id: None,
            inputs,
            outputs: Vec::new(),
            parameters: Parameters::new(),
        }
    }

    /// Reads a body; without `content_type` it is what [`ContentType::detect`] makes of it.
    ///
    /// Members we do not know are passed over. In CBOR the tensors share the body's memory.
    /// Memory taken: at most 5 bytes for each byte of a JSON body, 64 for each of
    /// [`Limits::max_values`], and 160 KiB besides (`tests/allocation.rs` holds it to that).
    ///
    /// # Errors
    /// [`RequestError`] with every problem found and its place.
    pub fn decode(
        body: &Bytes,
        content_type: Option<ContentType>,
        limits: &Limits,
    ) -> Result<Decoded, RequestError> {
        if body.len() > limits.max_body_bytes {
            return Err(RequestError::too_large(body.len(), limits.max_body_bytes));
        }
        let content_type = content_type.unwrap_or_else(|| ContentType::detect(body));
        let request = match content_type {
            ContentType::Json => json::decode_request(body, limits)?,
            ContentType::Cbor => cbor::decode_request(body, limits)?,
        };
        Ok(Decoded {
            form: request.inputs.form(),
            content_type,
            request,
        })
    }

    /// Writes a body that [`Self::decode`] reads.
    ///
    /// Floats that JSON has no number for are written, and read, as the text `"NaN"`,
    /// `"Infinity"` and `"-Infinity"`; elements of BYTES that are no text as `{"b64": "..."}`.
    ///
    /// # Errors
    /// [`RequestError`] if a tensor's fields contradict each other, or for rows and columns in
    /// CBOR, which has only tensors.
    pub fn encode(&self, content_type: ContentType) -> Result<Bytes, RequestError> {
        match content_type {
            ContentType::Json => json::encode_request(self),
            ContentType::Cbor => cbor::encode_request(self),
        }
    }

    /// The tensors in the model's order: every input present, each with the model's datatype
    /// (converted if no value changes), rank and fixed axes, and free axes positive.
    ///
    /// # Errors
    /// [`RequestError`] with every problem found and its place.
    pub fn into_tensors(
        self,
        specs: &[TensorSpec],
        limits: &Limits,
    ) -> Result<Vec<Tensor>, RequestError> {
        match self.inputs {
            Inputs::Tensors(tensors) => resolve::tensors(tensors, specs),
            Inputs::Rows(rows) => json::rows(&rows, specs, limits),
            Inputs::Columns(columns) => json::columns(&columns, specs, limits),
        }
    }
}
