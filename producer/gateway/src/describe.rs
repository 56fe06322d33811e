//! GET: what a model takes, which of its versions are there, and whether anybody is ready.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
};
use serde_json::{Value, json};

use crate::{Door, path::Target, refusal::Refusal, registry::Served};

/// `GET /v2/health/live`: this process answers.
pub(crate) async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

/// `GET /v2/health/ready`: at least one worker takes jobs.
///
/// The specification's texts disagree whether the key is `live` or `ready`, so both are sent.
pub(crate) async fn ready(State(door): State<Door>) -> (StatusCode, Json<Value>) {
    let ready = door.registry.ready().await;
    let ready = ready.is_ok_and(|workers| !workers.is_empty());
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(json!({ "live": true, "ready": ready })))
}

/// `GET /v2/models/{m}`: name, versions, inputs and outputs.
pub(crate) async fn metadata(
    State(door): State<Door>,
    model: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Refusal> {
    let Path(model) = model?;
    let target = Target::new(&model, None)?;
    let served = door.registry.model(&target.model).await?;
    Ok(Json(metadata_body(target.model.as_str(), &served)))
}

/// `GET /v1/models/{m}`: its versions, the newest first.
pub(crate) async fn status(
    State(door): State<Door>,
    model: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Refusal> {
    let Path(model) = model?;
    let target = Target::new(&model, None)?;
    let served = door.registry.model(&target.model).await?;
    Ok(Json(status_body(&served)))
}

fn metadata_body(name: &str, served: &Served) -> Value {
    let versions: Vec<String> = served.versions.iter().map(u64::to_string).collect();
    json!({
        "name": name,
        "versions": versions,
        "platform": "onnx_onnxv1",
        "inputs": served.inputs,
        "outputs": served.outputs,
    })
}

fn status_body(served: &Served) -> Value {
    let versions = served.versions.iter().rev().map(|version| {
        json!({
            "version": version.to_string(),
            "state": "AVAILABLE",
            "status": { "error_code": "OK", "error_message": "" },
        })
    });
    json!({ "model_version_status": versions.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferq_schemas::{DataType, Dim, TensorSpec};

    fn served() -> Served {
        Served {
            versions: vec![42, 43],
            inputs: vec![TensorSpec {
                name: "x".to_owned(),
                datatype: DataType::Fp32,
                shape: vec![Dim::Any, Dim::Fixed(4)],
            }],
            outputs: Vec::new(),
        }
    }

    #[test]
    fn metadata_has_the_shape_of_the_open_inference_protocol() {
        let wanted = json!({
            "name": "m", "versions": ["42", "43"], "platform": "onnx_onnxv1",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], "outputs": [],
        });
        assert_eq!(metadata_body("m", &served()), wanted);
    }

    #[test]
    fn status_has_the_shape_of_tensorflow_serving_with_the_newest_first() {
        let version = |number: &str| json!({"version": number, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}});
        let wanted = json!({ "model_version_status": [version("43"), version("42")] });
        assert_eq!(status_body(&served()), wanted);
    }
}
