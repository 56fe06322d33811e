//! The infer response, written in the form its request had.

use std::fmt;

use bytes::Bytes;

use crate::content_type::ContentType;
use crate::limits::Limits;
use crate::problem::RequestError;
use crate::request::{Form, Parameter, Parameters};
use crate::tensor::Tensor;
use crate::{cbor, json};

/// Whether an answer came from the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CacheUse {
    /// It did.
    Hit,
    /// It was computed for this job.
    #[default]
    Miss,
    /// It was computed for an equal job at the same time.
    Shared,
}

impl CacheUse {
    const ALL: [Self; 3] = [Self::Hit, Self::Miss, Self::Shared];

    /// The word in the response.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Shared => "shared",
        }
    }
}

impl fmt::Display for CacheUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an answer came to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseParameters {
    /// Microseconds from publication to a worker.
    pub queue_us: u64,
    /// Microseconds spent waiting for company.
    pub batch_us: u64,
    /// Microseconds in the model, for the whole batch.
    pub compute_us: u64,
    /// Rows that ran together.
    pub batch_rows: u64,
    /// Which delivery this was, from 1.
    pub attempt: u64,
    /// Whether it came from the cache.
    pub cache: CacheUse,
    /// The numeric class of what computed it, such as `cpu`.
    pub device: String,
}

impl ResponseParameters {
    /// The names and values in the order they are written. A number above 2^63 is cut to that.
    pub(crate) fn members(&self) -> [(&'static str, Parameter); 7] {
        let int = |value: u64| Parameter::Int(value.try_into().unwrap_or(i64::MAX));
        [
            ("queue_us", int(self.queue_us)),
            ("batch_us", int(self.batch_us)),
            ("compute_us", int(self.compute_us)),
            ("batch_rows", int(self.batch_rows)),
            ("attempt", int(self.attempt)),
            ("cache", Parameter::String(self.cache.to_string())),
            ("device", Parameter::String(self.device.clone())),
        ]
    }

    /// Reads them; what another server leaves out has its default.
    pub(crate) fn from_parameters(parameters: &Parameters) -> Self {
        let int = |name: &str| match parameters.get(name) {
            Some(Parameter::Int(value)) => u64::try_from(*value).unwrap_or(0),
            _ => 0,
        };
        let text = |name: &str| match parameters.get(name) {
            Some(Parameter::String(text)) => text.as_str(),
            _ => "",
        };
        let cache = CacheUse::ALL
            .into_iter()
            .find(|cache| cache.as_str() == text("cache"));
        Self {
            queue_us: int("queue_us"),
            batch_us: int("batch_us"),
            compute_us: int("compute_us"),
            batch_rows: int("batch_rows"),
            attempt: int("attempt"),
            cache: cache.unwrap_or_default(),
            device: text("device").to_owned(),
        }
    }
}

/// A model's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferResponse {
    /// The model that ran.
    pub model_name: String,
    /// The version that ran.
    pub model_version: String,
    /// The id of the request.
    pub id: Option<String>,
    /// How the answer came to be.
    pub parameters: ResponseParameters,
    /// The outputs, in the order asked for, else the model's.
    pub outputs: Vec<Tensor>,
}

impl InferResponse {
    /// Writes the body in the form the request had: tensors, `{"predictions": [...]}` or
    /// `{"outputs": ...}`, the latter two by the rules of TensorFlow Serving: one output gives
    /// bare values, several an object by name; BYTES outputs whose name ends in `_bytes` are
    /// `{"b64": "..."}`. Unlike there, floats that are not finite are the text `"NaN"`,
    /// `"Infinity"` and `"-Infinity"`, so that the body is JSON for every reader.
    ///
    /// # Errors
    /// [`RequestError`] if a tensor's fields contradict each other, if outputs in row form differ
    /// in their number of rows, or for rows and columns in CBOR, which has only tensors.
    pub fn encode(&self, content_type: ContentType, form: Form) -> Result<Bytes, RequestError> {
        match content_type {
            ContentType::Json => json::encode_response(self, form),
            ContentType::Cbor => cbor::encode_response(self, form),
        }
    }

    /// Reads a body in tensor form. In CBOR the tensors share the body's memory.
    ///
    /// # Errors
    /// [`RequestError`] with every problem found and its place.
    pub fn decode(
        body: &Bytes,
        content_type: ContentType,
        limits: &Limits,
    ) -> Result<Self, RequestError> {
        if body.len() > limits.max_body_bytes {
            return Err(RequestError::too_large(body.len(), limits.max_body_bytes));
        }
        match content_type {
            ContentType::Json => json::decode_response(body, limits),
            ContentType::Cbor => cbor::decode_response(body, limits),
        }
    }
}
