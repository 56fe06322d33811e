//! Any bytes as a response or a failure: decoded, and written again in every form.
#![no_main]

use bytes::Bytes;
use inferq_schemas::{ContentType, Failure, Form, InferResponse, Limits};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    for kind in [ContentType::Json, ContentType::Cbor] {
        if let Some(failure) = Failure::from_body(&body, kind) {
            let again = Failure::from_body(&failure.body(kind), kind);
            assert_eq!(again, Some(failure));
        }
        let Ok(response) = InferResponse::decode(&body, kind, &Limits::default()) else {
            continue;
        };
        response
            .encode(kind, Form::Tensors)
            .expect("what was decoded can be encoded");
        // Axes of 0 may still be long beside each other, which nested lists would spell out.
        let short = |shape: &[usize]| shape.iter().map(|size| size + 1).product::<usize>() < 4096;
        if response.outputs.iter().all(|output| short(&output.shape)) {
            let _ = response.encode(ContentType::Json, Form::Rows);
            let _ = response.encode(ContentType::Json, Form::Columns);
        }
    }
});
