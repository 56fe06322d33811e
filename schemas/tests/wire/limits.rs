//! How much a request may be of anything.

use bytes::Bytes;
use inferq_schemas::{ErrorCode, Failure, InferRequest, Limits};

#[test]
fn a_body_above_the_limit_is_too_large() {
    let limits = Limits {
        max_body_bytes: 10,
        ..Limits::default()
    };
    let body = Bytes::from_static(b"{\"inputs\":[]}");
    let error = InferRequest::decode(&body, None, &limits).expect_err("13 bytes");
    assert_eq!(
        Failure::from(&error),
        Failure::new(ErrorCode::TooLarge, "body of 13 bytes, at most 10")
    );
}

#[test]
fn limits_hold_in_json() {
    let limits = Limits {
        max_tensors: 1,
        max_depth: 4,
        max_values: 16,
        max_name_bytes: 4,
        max_parameters: 1,
        ..Limits::default()
    };
    for (body, message) in [
        (
            r#"{"inputs":[{"name":"a"},{"name":"b"}]}"#,
            "inputs: more than 1 items",
        ),
        (
            r#"{"instances":[[[[[1]]]]]}"#,
            "instances: nested deeper than 4",
        ),
        (
            r#"{"instances":[1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7]}"#,
            "instances: more than 16 values; send named tensors (the v2 form), best in CBOR",
        ),
        (r#"{"inputs":[1],"id":"abcde"}"#, "id: 5 bytes, at most 4"),
        (
            r#"{"inputs":[1],"parameters":{"a":1,"b":2}}"#,
            "parameters: more than 1 parameters",
        ),
        (
            r#"{"inputs":[1],"outputs":["a","b"]}"#,
            "outputs: more than 1 items",
        ),
    ] {
        let error = InferRequest::decode(&body.into(), None, &limits).expect_err("too much");
        assert_eq!(error.to_string(), message);
    }
}
