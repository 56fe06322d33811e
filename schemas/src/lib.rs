//! What crosses the wire of inferq: types, limits, subjects, headers and codecs.
//!
//! This crate does no I/O, knows no runtime and imports nothing of ours, so everybody else can
//! import it: the worker, the producer and the gateway meet only here.
//!
//! A job's way through these modules:
//!
//! 1. [`subjects`] and [`assets`]: where it is published, and which stream and consumer hold it.
//! 2. [`headers`] and [`identity`]: who it is, how long it may take, what becomes of its result.
//! 3. [`request`]: its body, as JSON or CBOR, within [`limits`]; then the model's tensors
//!    ([`tensor`]), or every problem with its place ([`RequestError`]).
//! 4. [`cache_key`]: the key of its answer, whole or by row.
//! 5. [`response`] or [`error`]: its outcome, in the encoding and form the request had.
//! 6. [`event`]: what is told of it meanwhile.
//!
//! [`registry`] holds what workers and models say of themselves in key-value buckets. The same
//! bodies are described for others in `infer.cddl` and `infer.schema.json` beside this crate.
//!
//! ```
//! use bytes::Bytes;
//! use inferq_schemas::{
//!     ContentType, DataType, Dim, Form, InferRequest, InferResponse, Limits, ResponseParameters,
//!     Tensor, TensorSpec,
//! };
//!
//! // What the model takes: any number of rows of two numbers.
//! let model = [TensorSpec {
//!     name: "x".to_owned(),
//!     datatype: DataType::Fp32,
//!     shape: vec![Dim::Any, Dim::Fixed(2)],
//! }];
//! let limits = Limits::default();
//!
//! // A request by rows, as any client may write it.
//! let body = Bytes::from_static(br#"{"instances": [[1, 2], [3, 4]]}"#);
//! let decoded = InferRequest::decode(&body, None, &limits)?;
//! assert_eq!((decoded.content_type, decoded.form), (ContentType::Json, Form::Rows));
//! let inputs = decoded.request.into_tensors(&model, &limits)?;
//! assert_eq!(inputs[0].shape, [2, 2]);
//!
//! // The same tensors as CBOR: what is read back shares the memory of the body.
//! let request = InferRequest::new(inferq_schemas::Inputs::Tensors(inputs));
//! let body = request.encode(ContentType::Cbor)?;
//! let again = InferRequest::decode(&body, Some(ContentType::Cbor), &limits)?;
//! assert_eq!(again.request, request);
//!
//! // The answer speaks as the first request did.
//! let response = InferResponse {
//!     model_name: "sum".to_owned(),
//!     model_version: "1".to_owned(),
//!     id: None,
//!     parameters: ResponseParameters::default(),
//!     outputs: vec![Tensor::from_f32("y", vec![2], &[3.0, 7.0])?],
//! };
//! let answer = response.encode(decoded.content_type, decoded.form)?;
//! assert_eq!(answer, r#"{"predictions":[3.0,7.0]}"#);
//!
//! // What does not fit is told with its place.
//! let body = Bytes::from_static(br#"{"instances": [[1, 2], [3]]}"#);
//! let short = InferRequest::decode(&body, None, &limits)?.request.into_tensors(&model, &limits);
//! let message = short.expect_err("one value is missing").to_string();
//! assert_eq!(message, "instances[1]: 1 values, the model's input `x` takes 2");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod address;
pub mod assets;
pub mod blob;
pub mod cache_key;
pub mod error;
pub mod event;
pub mod headers;
pub mod identity;
pub mod limits;
pub mod reference;
pub mod registry;
pub mod request;
pub mod response;
pub mod subjects;
pub mod tensor;

mod cbor;
mod coerce;
mod content_type;
mod datatype;
mod json;
mod names;
mod number;
mod problem;
mod replies;
mod resolve;
mod spec;
mod wire;

pub use assets::Assets;
pub use cache_key::{CacheKey, CacheScope};
pub use error::{ErrorCode, Failure, nearest, shorten};
pub use event::JobEvent;
pub use headers::{
    DeadHeaders, HeaderProblem, JobHeaders, OutcomeHeaders, ParsedHeaders, ResultMode, Status,
    VersionSelector,
};
pub use identity::{BodyDigest, Digest, JobId, body_digest};
pub use limits::Limits;
pub use number::{Misfit, Number, Rounding};
pub use reference::PayloadRef;
pub use registry::{ModelRecord, ServedModel, WorkerRecord, WorkerState};
pub use request::{
    ContentType, Decoded, Form, InferRequest, Inputs, Parameter, Parameters, Problem, RequestError,
};
pub use response::{CacheUse, InferResponse, ResponseParameters};
pub use subjects::{
    DeadSubject, JobSubject, Lane, ModelName, NameError, QueueKind, ReplyPrefixes, SubjectError,
    Subjects, check_subject,
};
pub use tensor::{DataType, Dim, Tensor, TensorError, TensorSpec};
