//! What a request may say in CBOR, and what its sender hears if it says something else.

use bytes::Bytes;
use inferq_schemas::{ContentType, InferRequest, Inputs, Limits, Tensor};

#[test]
fn decoded_cbor_shares_the_memory_of_the_body() {
    let tensors = vec![
        Tensor::from_f32("x", vec![4], &[1.0, 2.0, 3.0, 4.0]).expect("four values"),
        Tensor::from_strings("s", vec![1], &["hello"]).expect("one element"),
    ];
    let request = InferRequest::new(Inputs::Tensors(tensors));
    let body = request.encode(ContentType::Cbor).expect("sound");
    let decoded = InferRequest::decode(&body, None, &Limits::default()).expect("our own");
    let Inputs::Tensors(tensors) = decoded.request.inputs else {
        panic!("CBOR has only tensors")
    };
    for tensor in tensors {
        let data = tensor.data.as_ptr_range();
        assert!(body.as_ptr_range().start < data.start && data.end <= body.as_ptr_range().end);
    }
}

#[test]
fn cbor_data_must_be_one_byte_string_of_the_right_size() {
    let tensor = Tensor::from_f32("x", vec![2], &[1.0, 2.0]).expect("two values");
    let request = InferRequest::new(Inputs::Tensors(vec![tensor]));
    let sound = request.encode(ContentType::Cbor).expect("sound");
    // The data is last: the head of a byte string of 8 bytes, and these.
    let with_data = |data: &[u8]| {
        let body = [&sound[..sound.len() - 9], data].concat().into();
        InferRequest::decode(&body, None, &Limits::default())
            .map(drop)
            .map_err(|error| error.to_string())
    };
    assert_eq!(with_data(b"\x48abcdefgh"), Ok(()));
    assert_eq!(
        with_data(b"\x47abcdefg"),
        Err("inputs[0].data: 7 bytes for shape [2], FP32 takes 8".to_owned())
    );
    assert_eq!(
        with_data(b"\x82\x01\x02"),
        Err(
            "inputs[0].data: a list where one byte string is expected: all elements \
             little-endian and row-major, BYTES each with its length as u32"
                .to_owned()
        )
    );
}

#[test]
fn cbor_has_only_tensors() {
    let body = Bytes::from_static(b"\xa1\x69instances\x81\x01");
    let error = InferRequest::decode(&body, None, &Limits::default()).expect_err("rows");
    assert_eq!(
        error.to_string(),
        "`inputs` is missing; CBOR has only the form of named tensors"
    );
    let cbor = Some(ContentType::Cbor);
    let error = InferRequest::decode(&Bytes::new(), cbor, &Limits::default()).expect_err("empty");
    assert!(
        error.to_string().starts_with("not a CBOR request: "),
        "{error}"
    );
}
