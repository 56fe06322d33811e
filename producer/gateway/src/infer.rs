//! POST: the body goes to a worker as it is, and its answer comes back as it is.

use axum::{
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection, rejection::PathRejection},
    http::{HeaderMap, Method, Uri, header},
    response::{IntoResponse, Response},
};
use inferq::Job;
use inferq_schemas::ContentType;

use crate::{Door, path::Target, refusal::Refusal};

/// Says that tensors follow the JSON as raw bytes.
const BINARY_TENSORS: &str = "Inference-Header-Content-Length";

type Body = Result<Bytes, BytesRejection>;
type Segments<T> = Result<Path<T>, PathRejection>;

/// `POST /v2/models/{m}/infer`
pub(crate) async fn infer(
    State(door): State<Door>,
    model: Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    only_json(&headers)?;
    let Path(model) = model?;
    ask(&door, Target::new(&model, None)?, body).await
}

/// `POST /v2/models/{m}/versions/{v}/infer`
pub(crate) async fn infer_version(
    State(door): State<Door>,
    segments: Segments<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    only_json(&headers)?;
    let Path((model, version)) = segments?;
    ask(&door, Target::new(&model, Some(&version))?, body).await
}

/// `POST /v1/models/{m}:predict`
pub(crate) async fn predict(
    State(door): State<Door>,
    model: Segments<String>,
    method: Method,
    uri: Uri,
    body: Body,
) -> Result<Response, Refusal> {
    let Path(model) = model?;
    ask(&door, Target::predict(&model, None, &method, &uri)?, body).await
}

/// `POST /v1/models/{m}/versions/{v}:predict`
pub(crate) async fn predict_version(
    State(door): State<Door>,
    segments: Segments<(String, String)>,
    method: Method,
    uri: Uri,
    body: Body,
) -> Result<Response, Refusal> {
    let Path((model, version)) = segments?;
    let target = Target::predict(&model, Some(&version), &method, &uri)?;
    ask(&door, target, body).await
}

/// Calls a worker. A client that leaves drops this, and with it the inbox the worker would answer to.
async fn ask(door: &Door, target: Target, body: Body) -> Result<Response, Refusal> {
    // Whatever `Content-Type` says: many clients, curl among them, send JSON under another name.
    let mut call = Job::new(target.model, body?).content_type(ContentType::Json);
    if let Some(version) = target.version {
        call = call.version(version);
    }
    let answer = door.client.call(call).await?;
    let kind = answer.headers.content_type.mime();
    Ok(([(header::CONTENT_TYPE, kind)], answer.body).into_response())
}

fn only_json(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(BINARY_TENSORS) {
        return Err(Refusal::bad_request(format!(
            "{BINARY_TENSORS}: binary tensors are not supported here; send `data` as JSON"
        )));
    }
    Ok(())
}
