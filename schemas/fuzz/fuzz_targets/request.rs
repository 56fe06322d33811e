//! Any bytes as a request: decoded, held against a model, and written again.
#![no_main]

use bytes::Bytes;
use inferq_schemas::{ContentType, DataType, Dim, InferRequest, Inputs, Limits, TensorSpec};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    let limits = Limits::default();
    let spec = |name: &str, datatype| TensorSpec {
        name: name.to_owned(),
        datatype,
        shape: vec![Dim::Any, Dim::Fixed(2)],
    };
    let one = [spec("x", DataType::Fp32)];
    let two = [spec("x", DataType::Int64), spec("s", DataType::Bytes)];
    for kind in [None, Some(ContentType::Json), Some(ContentType::Cbor)] {
        let Ok(decoded) = InferRequest::decode(&body, kind, &limits) else {
            continue;
        };
        let _ = decoded.request.clone().into_tensors(&one, &limits);
        let _ = decoded.request.clone().into_tensors(&two, &limits);
        let written = decoded.request.encode(decoded.content_type);
        // Rows and columns hold any JSON; named tensors were checked, so they can be written.
        if let Inputs::Tensors(_) = decoded.request.inputs {
            let written = written.expect("what was decoded can be encoded");
            InferRequest::decode(&written, Some(decoded.content_type), &limits)
                .expect("what was encoded can be decoded");
        }
    }
});
