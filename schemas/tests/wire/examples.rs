//! The requests and responses that the golden files hold, and the way to those files.

use std::path::PathBuf;

use bytes::Bytes;
use inferq_schemas::{
    CacheUse, ContentType, DataType, ErrorCode, Failure, Form, InferRequest, InferResponse, Inputs,
    JobEvent, Parameter, ResponseParameters, Status, Tensor,
};

/// Requests by the name of their file.
pub(crate) fn requests() -> Vec<(&'static str, InferRequest)> {
    let mut smallest = InferRequest::new(Inputs::Tensors(vec![
        Tensor::from_f32("x", vec![1, 2], &[0.5, -1.0]).expect("two values"),
    ]));
    let every_type = InferRequest {
        id: Some("r-1".to_owned()),
        inputs: Inputs::Tensors(DataType::ALL.map(of_type).to_vec()),
        outputs: vec!["y".to_owned(), "z".to_owned()],
        parameters: [
            ("flag".to_owned(), Parameter::Bool(true)),
            ("float".to_owned(), Parameter::Float(0.1)),
            ("int".to_owned(), Parameter::Int(i64::MIN)),
            (
                "text".to_owned(),
                Parameter::String("ä \"quoted\"".to_owned()),
            ),
        ]
        .into(),
    };
    let special = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        -0.0,
        f32::MIN_POSITIVE,
    ];
    let special_floats = InferRequest::new(Inputs::Tensors(vec![
        Tensor::from_f32("x", vec![5], &special).expect("five values"),
    ]));
    let rows = InferRequest::new(Inputs::Rows(vec![
        serde_json::json!({"age": 41, "city": "Oslo"}),
        serde_json::json!({"age": 19, "city": {"b64": "QmVybg=="}}),
    ]));
    let mut bare_rows = InferRequest::new(Inputs::Rows(vec![
        serde_json::json!([0.5, 1.5]),
        serde_json::json!([2, 3]),
    ]));
    bare_rows.outputs = vec!["y".to_owned()];
    let columns = InferRequest::new(Inputs::Columns(
        serde_json::json!({"age": [41, 19], "city": ["Oslo", "Bern"]}),
    ));
    let bare_columns = InferRequest::new(Inputs::Columns(serde_json::json!([[0.5, 1.5]])));
    smallest.id = None;
    vec![
        ("request_smallest", smallest),
        ("request_every_type", every_type),
        ("request_special_floats", special_floats),
        ("request_rows", rows),
        ("request_bare_rows", bare_rows),
        ("request_columns", columns),
        ("request_bare_columns", bare_columns),
    ]
}

/// A tensor of two elements with values that show its byte order.
fn of_type(datatype: DataType) -> Tensor {
    let name = datatype.as_str().to_lowercase();
    if datatype == DataType::Bytes {
        return Tensor::from_strings(name, vec![2, 1], &[&b"a\xc3\xa4"[..], b"\0\xff"])
            .expect("two elements");
    }
    let data: Vec<u8> = match datatype {
        DataType::Bool => vec![1, 0],
        DataType::Uint8 => vec![1, 0xff],
        DataType::Int8 => vec![1, 0xfe],
        DataType::Uint16 => [1_u16, 0xfffe]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        DataType::Int16 => [1_i16, -2].iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Uint32 => [1, u32::MAX].iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Int32 => [1, i32::MIN].iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Uint64 => [1, u64::MAX].iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Int64 => [1, i64::MIN].iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Fp16 => [0x3e00_u16, 0xc000]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        DataType::Bf16 => [0x3fc0_u16, 0xc000]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        DataType::Fp32 => [0.1_f32, -2.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        DataType::Fp64 | DataType::Bytes => [0.1_f64, -2e300]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
    };
    Tensor::new(name, datatype, vec![2, 1], data.into()).expect("two elements")
}

/// Responses by the name of their file, each with the form it is written in.
pub(crate) fn responses() -> Vec<(&'static str, InferResponse, Form)> {
    let score = Tensor::from_f32("score", vec![2, 1], &[0.25, 3.0]).expect("two values");
    let label = Tensor::from_strings("label", vec![2], &["yes", "no"]).expect("two elements");
    let raw = Tensor::from_strings("png_bytes", vec![2], &["yes", "no"]).expect("two elements");
    let one = response(vec![score.clone()]);
    let several = response(vec![score, label, raw]);
    vec![
        ("response_tensors", several.clone(), Form::Tensors),
        ("response_one_prediction", one.clone(), Form::Rows),
        ("response_predictions", several.clone(), Form::Rows),
        ("response_one_column", one, Form::Columns),
        ("response_columns", several, Form::Columns),
    ]
}

fn response(outputs: Vec<Tensor>) -> InferResponse {
    InferResponse {
        model_name: "m".to_owned(),
        model_version: "3".to_owned(),
        id: Some("r-1".to_owned()),
        parameters: ResponseParameters {
            queue_us: 120,
            batch_us: 0,
            compute_us: 4_000_000_000,
            batch_rows: 2,
            attempt: 1,
            cache: CacheUse::Shared,
            device: "cpu".to_owned(),
        },
        outputs,
    }
}

/// The failure whose body is a golden file.
pub(crate) fn failure() -> Failure {
    Failure::new(
        ErrorCode::BadInput,
        "inputs[0].data: 63 values for shape [1,64]",
    )
}

/// Events by the name of their file.
pub(crate) fn events() -> Vec<(&'static str, JobEvent)> {
    let worker = || "w-1".to_owned();
    let queued = |position, estimated_wait_ms| JobEvent::Queued {
        position,
        estimated_wait_ms,
    };
    let retrying = JobEvent::Retrying {
        worker: worker(),
        attempt: 1,
        delay_ms: 612,
        reason: "the worker is stopping".to_owned(),
    };
    let running = JobEvent::Running {
        worker: worker(),
        attempt: 2,
        model_version: 3,
    };
    let status = Status::Cancelled;
    vec![
        ("event_queued", queued(0, None)),
        ("event_queued_estimate", queued(1_200, Some(4_800_000_000))),
        ("event_retrying", retrying),
        ("event_running", running),
        ("event_done", JobEvent::Done { status }),
    ]
}

/// Where a golden file lies: JSON as it is, CBOR as hexadecimal text.
pub(crate) fn path(name: &str, content_type: ContentType) -> PathBuf {
    let ending = match content_type {
        ContentType::Json => "json",
        ContentType::Cbor => "cbor.hex",
    };
    golden_folder().join(format!("{name}.{ending}"))
}

pub(crate) fn golden_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The bytes of a golden file.
pub(crate) fn read(path: &std::path::Path) -> Bytes {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if path.extension().is_some_and(|ending| ending == "json") {
        return text.trim_end().to_owned().into();
    }
    from_hex(&text).into()
}

/// Hexadecimal text, with white space and `#` comments, as bytes.
pub(crate) fn from_hex(text: &str) -> Vec<u8> {
    let digits: String = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("two hexadecimal digits"))
        .collect()
}

/// Bytes as hexadecimal text, 32 in a line.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes
        .chunks(32)
        .map(|line| {
            line.iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                + "\n"
        })
        .collect()
}
