//! Holds `infer.cddl` and `infer.schema.json` against the golden files: they accept what we write,
//! and refuse what we refuse.

use std::path::{Path, PathBuf};

use inferq_schemas::{
    ContentType, Failure, Form, InferRequest, InferResponse, Inputs, JobEvent, Limits,
};

use crate::examples;

const CDDL: &str = include_str!("../../infer.cddl");
const SCHEMA: &str = include_str!("../../infer.schema.json");

/// Whether the definition `name` of `infer.schema.json` accepts a JSON body.
fn schema_accepts(name: &str, body: &[u8]) -> Result<(), String> {
    let mut schema: serde_json::Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    schema["$ref"] = format!("#/$defs/{name}").into();
    let body = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let validator = jsonschema::validator_for(&schema).expect("the schema is a schema");
    validator.validate(&body).map_err(|error| error.to_string())
}

/// Whether the rule `name` of `infer.cddl` accepts a CBOR body.
fn cddl_accepts(name: &str, body: &[u8]) -> Result<(), String> {
    cddl_cat::validate_cbor_bytes(name, CDDL, body).map_err(|error| error.to_string())
}

fn accepts(name: &str, path: &Path) -> Result<(), String> {
    let body = examples::read(path);
    match content_type(path) {
        ContentType::Json => schema_accepts(name, &body),
        ContentType::Cbor => cddl_accepts(&name.replace('_', "-"), &body),
    }
}

fn content_type(path: &Path) -> ContentType {
    match path.extension() {
        Some(ending) if ending == "json" => ContentType::Json,
        _ => ContentType::Cbor,
    }
}

fn files(folder: PathBuf) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn requests_are_as_described() {
    for (name, request) in examples::requests() {
        let json = examples::path(name, ContentType::Json);
        assert_eq!(accepts("request", &json), Ok(()), "{name}");
        if matches!(request.inputs, Inputs::Tensors(_)) {
            let body = examples::read(&examples::path(name, ContentType::Cbor));
            assert_eq!(cddl_accepts("infer-request", &body), Ok(()), "{name}");
        }
    }
}

#[test]
fn responses_are_as_described() {
    for (name, _, form) in examples::responses() {
        let definition = match form {
            Form::Tensors => "response",
            Form::Rows => "row_response",
            Form::Columns => "column_response",
        };
        let json = examples::path(name, ContentType::Json);
        assert_eq!(accepts(definition, &json), Ok(()), "{name}");
        if form == Form::Tensors {
            let body = examples::read(&examples::path(name, ContentType::Cbor));
            assert_eq!(cddl_accepts("infer-response", &body), Ok(()), "{name}");
        }
    }
}

#[test]
fn failures_are_as_described() {
    for kind in [ContentType::Json, ContentType::Cbor] {
        assert_eq!(accepts("failure", &examples::path("failure", kind)), Ok(()));
    }
}

#[test]
fn events_are_as_described() {
    for (name, _) in examples::events() {
        let json = examples::path(name, ContentType::Json);
        assert_eq!(accepts("event", &json), Ok(()), "{name}");
    }
}

#[test]
fn refused_bodies_are_refused_by_description_and_decoder() {
    for path in files(examples::golden_folder().join("refused")) {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("text");
        let kind = content_type(&path);
        let body = examples::read(&path);
        let what = name.split('_').next().unwrap_or_default();
        let (decoded, definition) = match what {
            "request" => {
                let decoded = InferRequest::decode(&body, Some(kind), &Limits::default());
                (decoded.is_ok(), "request")
            }
            "response" => {
                let decoded = InferResponse::decode(&body, kind, &Limits::default());
                (decoded.is_ok(), "response")
            }
            "event" => (JobEvent::from_body(&body).is_some(), "event"),
            _ => (Failure::from_body(&body, kind).is_some(), "failure"),
        };
        assert!(!decoded, "{name} was decoded");
        let described = match kind {
            ContentType::Json => schema_accepts(definition, &body),
            ContentType::Cbor if definition == "failure" => cddl_accepts(definition, &body),
            ContentType::Cbor => cddl_accepts(&format!("infer-{definition}"), &body),
        };
        assert!(described.is_err(), "{name} is as described");
    }
}

#[test]
fn the_descriptions_name_every_datatype() {
    for datatype in inferq_schemas::DataType::ALL {
        let quoted = format!("\"{datatype}\"");
        assert!(CDDL.contains(&quoted), "{quoted} in infer.cddl");
        assert!(SCHEMA.contains(&quoted), "{quoted} in infer.schema.json");
    }
}
