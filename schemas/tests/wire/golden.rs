//! Pins the bytes: what we write is what the golden files hold, and what they hold is what we read.
//!
//! After a change of the wire that is meant, `INFERQ_BLESS=1 cargo test -p inferq-schemas --test
//! wire golden` writes the files anew; look at the difference before it is committed.

use bytes::Bytes;
use inferq_schemas::{
    ContentType, Failure, Form, InferRequest, InferResponse, Inputs, JobEvent, Limits,
};

use crate::examples;

const BOTH: [ContentType; 2] = [ContentType::Json, ContentType::Cbor];

/// Compares `bytes` with the golden file, or writes it if asked to.
fn hold(name: &str, content_type: ContentType, bytes: &Bytes) {
    let path = examples::path(name, content_type);
    if std::env::var_os("INFERQ_BLESS").is_some() {
        let text = match content_type {
            ContentType::Json => String::from_utf8(bytes.to_vec()).expect("JSON is text") + "\n",
            ContentType::Cbor => examples::to_hex(bytes),
        };
        std::fs::write(&path, text).expect("the golden folder is writable");
    }
    let golden = examples::read(&path);
    assert_eq!(
        golden.escape_ascii().to_string(),
        bytes.escape_ascii().to_string(),
        "{name} as {content_type}"
    );
}

#[test]
fn requests_are_written_and_read_as_the_golden_bytes() {
    for (name, request) in examples::requests() {
        for content_type in BOTH {
            if content_type == ContentType::Cbor && !matches!(request.inputs, Inputs::Tensors(_)) {
                request
                    .encode(content_type)
                    .expect_err("CBOR has only tensors");
                continue;
            }
            hold(
                name,
                content_type,
                &request.encode(content_type).expect("sound"),
            );
            let golden = examples::read(&examples::path(name, content_type));
            for given in [None, Some(content_type)] {
                let decoded = InferRequest::decode(&golden, given, &Limits::default())
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(decoded.request, request, "{name} as {content_type}");
                assert_eq!(decoded.content_type, content_type);
                assert_eq!(decoded.form, request.inputs.form());
            }
        }
    }
}

#[test]
fn responses_are_written_and_read_as_the_golden_bytes() {
    for (name, response, form) in examples::responses() {
        for content_type in BOTH {
            if content_type == ContentType::Cbor && form != Form::Tensors {
                response
                    .encode(content_type, form)
                    .expect_err("CBOR has only tensors");
                continue;
            }
            hold(
                name,
                content_type,
                &response.encode(content_type, form).expect("sound"),
            );
            let golden = examples::read(&examples::path(name, content_type));
            if form == Form::Tensors {
                let decoded = InferResponse::decode(&golden, content_type, &Limits::default());
                assert_eq!(decoded, Ok(response.clone()), "{name} as {content_type}");
            }
        }
    }
}

#[test]
fn failures_are_written_and_read_as_the_golden_bytes() {
    let failure = examples::failure();
    for content_type in BOTH {
        hold("failure", content_type, &failure.body(content_type));
        let golden = examples::read(&examples::path("failure", content_type));
        assert_eq!(
            Failure::from_body(&golden, content_type),
            Some(failure.clone())
        );
    }
}

#[test]
fn events_are_written_and_read_as_the_golden_bytes() {
    for (name, event) in examples::events() {
        hold(name, ContentType::Json, &event.body());
        let golden = examples::read(&examples::path(name, ContentType::Json));
        assert_eq!(JobEvent::from_body(&golden), Some(event), "{name}");
    }
}
