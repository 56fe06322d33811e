//! What holds for every request, response and header, not only for the examples.

use bytes::Bytes;
use half::{bf16, f16};
use inferq_schemas::{
    CacheUse, ContentType, DataType, Dim, ErrorCode, Failure, Form, InferRequest, InferResponse,
    Inputs, JobHeaders, JobId, Lane, Limits, OutcomeHeaders, Parameter, Parameters, ReplyPrefixes,
    ResponseParameters, Status, Tensor, TensorSpec, VersionSelector,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::examples;

const BOTH: [ContentType; 2] = [ContentType::Json, ContentType::Cbor];

/// A tensor of any datatype and a small shape, with any bits except that a NaN is the usual one,
/// since text has only one.
fn tensor(least: usize) -> impl Strategy<Value = Tensor> {
    (
        prop::sample::select(&DataType::ALL[..]),
        vec(least..4, least..4),
    )
        .prop_flat_map(|(datatype, shape)| {
            let elements = shape.iter().product::<usize>();
            let data = match datatype.size() {
                Some(size) => vec(any::<u8>(), elements * size)
                    .prop_map(move |data| sound(datatype, data))
                    .boxed(),
                None => vec(element(), elements)
                    .prop_map(|elements| {
                        let tensor = Tensor::from_strings("", vec![elements.len()], &elements);
                        tensor.expect("as many as the shape says").data.to_vec()
                    })
                    .boxed(),
            };
            data.prop_map(move |data| {
                Tensor::new("", datatype, shape.clone(), data.into()).expect("a sound tensor")
            })
        })
}

/// An element of a BYTES tensor: text or any bytes.
fn element() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        ".{0,8}".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..8)
    ]
}

/// `data` with booleans of 0 and 1 and the usual NaN.
fn sound(datatype: DataType, mut data: Vec<u8>) -> Vec<u8> {
    match datatype {
        DataType::Bool => data.iter_mut().for_each(|byte| *byte &= 1),
        DataType::Fp16 => usual_nan(
            &mut data,
            f16::from_le_bytes,
            f16::is_nan,
            f16::NAN.to_le_bytes(),
        ),
        DataType::Bf16 => usual_nan(
            &mut data,
            bf16::from_le_bytes,
            bf16::is_nan,
            bf16::NAN.to_le_bytes(),
        ),
        DataType::Fp32 => usual_nan(
            &mut data,
            f32::from_le_bytes,
            f32::is_nan,
            f32::NAN.to_le_bytes(),
        ),
        DataType::Fp64 => usual_nan(
            &mut data,
            f64::from_le_bytes,
            f64::is_nan,
            f64::NAN.to_le_bytes(),
        ),
        _ => {}
    }
    data
}

fn usual_nan<T, const SIZE: usize>(
    data: &mut [u8],
    read: fn([u8; SIZE]) -> T,
    is_nan: fn(T) -> bool,
    nan: [u8; SIZE],
) {
    for element in data.as_chunks_mut::<SIZE>().0 {
        if is_nan(read(*element)) {
            *element = nan;
        }
    }
}

/// Tensors with names that differ.
fn tensors(least: usize) -> impl Strategy<Value = Vec<Tensor>> {
    vec((tensor(least), ".{0,6}"), 0..4).prop_map(|tensors| {
        let name = |(index, (tensor, name)): (usize, (Tensor, String))| Tensor {
            name: format!("{index}{name}"),
            ..tensor
        };
        tensors.into_iter().enumerate().map(name).collect()
    })
}

fn parameters() -> impl Strategy<Value = Parameters> {
    let parameter = prop_oneof![
        any::<bool>().prop_map(Parameter::Bool),
        any::<i64>().prop_map(Parameter::Int),
        any::<f64>()
            .prop_filter("JSON has no number for others", |float| float.is_finite())
            .prop_map(Parameter::Float),
        ".{0,8}".prop_map(Parameter::String),
    ];
    btree_map(".{0,6}", parameter, 0..4)
}

prop_compose! {
    fn request()(
        id in prop::option::of(".{0,8}"),
        inputs in tensors(0),
        outputs in prop::collection::btree_set(".{0,6}", 0..3),
        parameters in parameters(),
    ) -> InferRequest {
        InferRequest {
            id,
            inputs: Inputs::Tensors(inputs),
            outputs: outputs.into_iter().collect(),
            parameters,
        }
    }
}

fn response_of(outputs: Vec<Tensor>) -> InferResponse {
    InferResponse {
        model_name: "m".to_owned(),
        model_version: "1".to_owned(),
        id: None,
        parameters: ResponseParameters::default(),
        outputs,
    }
}

/// A model that takes exactly these tensors.
fn specs(tensors: &[Tensor]) -> Vec<TensorSpec> {
    let spec = |tensor: &Tensor| TensorSpec {
        name: tensor.name.clone(),
        datatype: tensor.datatype,
        shape: tensor.shape.iter().copied().map(Dim::Fixed).collect(),
    };
    tensors.iter().map(spec).collect()
}

/// A golden body with some bytes changed: near enough to a request to reach every corner.
fn damaged() -> impl Strategy<Value = (Bytes, ContentType)> {
    let bodies: Vec<(Bytes, ContentType)> = examples::requests()
        .into_iter()
        .flat_map(|(_, request)| BOTH.map(|kind| (request.encode(kind).ok(), kind)))
        .filter_map(|(body, kind)| Some((body?, kind)))
        .collect();
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..3_u8);
    (prop::sample::select(bodies), vec(change, 1..4)).prop_map(|((body, kind), changes)| {
        let mut body = body.to_vec();
        for (at, byte, change) in changes {
            let at = at.index(body.len().max(1));
            match change {
                0 if at < body.len() => body[at] = byte,
                1 if at < body.len() => drop(body.remove(at)),
                _ => body.insert(at, byte),
            }
        }
        (body.into(), kind)
    })
}

proptest! {
    #[test]
    fn requests_come_back_from_both_encodings(request in request()) {
        for content_type in BOTH {
            let body = request.encode(content_type).expect("a sound request");
            let decoded = InferRequest::decode(&body, Some(content_type), &Limits::default());
            prop_assert_eq!(&decoded.expect("our own").request, &request);
        }
    }

    #[test]
    fn responses_come_back_from_both_encodings(
        outputs in tensors(0),
        id in prop::option::of(".{0,8}"),
        numbers in any::<[u32; 5]>(),
        cache in prop::sample::select(vec![CacheUse::Hit, CacheUse::Miss, CacheUse::Shared]),
    ) {
        let [queue_us, batch_us, compute_us, batch_rows, attempt] = numbers.map(u64::from);
        let parameters = ResponseParameters {
            queue_us, batch_us, compute_us, batch_rows, attempt, cache, device: "cpu".to_owned(),
        };
        let response = InferResponse { id, parameters, ..response_of(outputs) };
        for content_type in BOTH {
            let body = response.encode(content_type, Form::Tensors).expect("sound");
            let decoded = InferResponse::decode(&body, content_type, &Limits::default());
            prop_assert_eq!(decoded.as_ref(), Ok(&response));
        }
    }

    /// What is written nested, by column or by row, is read as the tensors it was written from.
    #[test]
    fn rows_and_columns_agree_with_tensors(tensors in tensors(1), rows in 1..4_usize) {
        let tensors: Vec<Tensor> = tensors
            .into_iter()
            .map(|tensor| Tensor { name: format!("{}.", tensor.name), ..tensor })
            .collect();
        if tensors.is_empty() {
            return Ok(());
        }
        let limits = Limits::default();
        let written = response_of(tensors.clone()).encode(ContentType::Json, Form::Columns);
        let written = String::from_utf8(written.expect("sound").to_vec()).expect("JSON is text");
        let body = written.replacen("\"outputs\"", "\"inputs\"", 1).into();
        let request = InferRequest::decode(&body, None, &limits).expect("our own").request;
        prop_assert_eq!(request.into_tensors(&specs(&tensors), &limits), Ok(tensors.clone()));

        let repeated: Vec<Tensor> = tensors
            .iter()
            .map(|tensor| {
                let shape = [&[rows], &tensor.shape[..]].concat();
                Tensor::new(&tensor.name, tensor.datatype, shape, tensor.data.repeat(rows).into())
            })
            .collect::<Result<_, _>>()
            .expect("as many elements as the shape says");
        let written = response_of(repeated.clone()).encode(ContentType::Json, Form::Rows);
        let written = String::from_utf8(written.expect("sound").to_vec()).expect("JSON is text");
        let body = written.replacen("\"predictions\"", "\"instances\"", 1).into();
        let request = InferRequest::decode(&body, None, &limits).expect("our own").request;
        prop_assert_eq!(request.into_tensors(&specs(&repeated), &limits), Ok(repeated));
    }

    /// Reaching the end of this test is the proof.
    #[test]
    fn any_bytes_are_decoded_without_a_panic(body in vec(any::<u8>(), 0..200)) {
        decode_every_way(&body.into(), None);
    }

    #[test]
    fn any_damaged_body_is_decoded_without_a_panic((body, kind) in damaged()) {
        decode_every_way(&body, Some(kind));
    }

    #[test]
    fn any_headers_are_read_without_a_panic(
        pairs in vec(("(?i)infer-(job-id|reply-to|deadline|version|label|lane|proto|status)|.{0,8}", ".{0,40}"), 0..6)
    ) {
        let pairs = || pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let parsed = JobHeaders::parse(pairs(), JobId::derived("S", 1), &ReplyPrefixes::default());
        for problem in &parsed.problems {
            prop_assert!(problem.value.len() <= 90);
        }
        let _ = OutcomeHeaders::parse(pairs());
    }

    #[test]
    fn job_headers_come_back_as_they_were_sent(
        id in "[A-Za-z0-9_-]{1,64}",
        deadline_unix_ms in any::<Option<u64>>(),
        timeout_ms in any::<Option<u64>>(),
        version in prop_oneof![
            Just(VersionSelector::Default),
            any::<u64>().prop_map(VersionSelector::Version),
            "[a-z0-9_-]{1,64}".prop_map(VersionSelector::Label),
        ],
        max_attempts in 1..=100_u32,
        lane in prop::option::of(prop::sample::select(&Lane::ALL[..])),
        flags in any::<[bool; 4]>(),
    ) {
        let [accept_ref, cache, events, debug] = flags;
        let headers = JobHeaders {
            deadline_unix_ms, timeout_ms, version, max_attempts, lane, accept_ref, cache, events, debug,
            ..JobHeaders::new(JobId::new(&id).expect("it has the grammar"))
        };
        let pairs = headers.pairs();
        let parsed = JobHeaders::parse(
            pairs.iter().map(|(name, value)| (*name, value.as_str())),
            JobId::random(),
            &ReplyPrefixes::default(),
        );
        prop_assert_eq!(parsed.problems, vec![]);
        prop_assert_eq!(parsed.headers, headers);
    }

    #[test]
    fn outcome_headers_never_break_a_line(message in any::<String>()) {
        let outcome = OutcomeHeaders {
            job_id: JobId::random(),
            status: Status::Error,
            failure: Some(Failure::new(ErrorCode::Model, message)),
            worker: "w".to_owned(),
            model_version: None,
            attempt: 1,
            body_digest: None,
            payload_ref: None,
            content_type: ContentType::Json,
            traceparent: None,
        };
        for (_, value) in outcome.pairs() {
            prop_assert!(value.len() <= 512 && !value.contains(|c: char| c.is_control()));
        }
    }
}

/// Decodes a body as whatever it may be and holds it against models it may be for.
fn decode_every_way(body: &Bytes, kind: Option<ContentType>) {
    let limits = Limits::default();
    let models = [
        specs(&[Tensor::from_f32("x", vec![1, 2], &[0.0; 2]).expect("two values")]),
        specs(&[
            Tensor::from_strings("age", vec![1], &[""]).expect("one element"),
            Tensor::from_strings("city", vec![1], &[""]).expect("one element"),
        ]),
        vec![],
    ];
    for kind in kind.map_or(BOTH.map(Some).to_vec(), |kind| vec![None, Some(kind)]) {
        if let Ok(decoded) = InferRequest::decode(body, kind, &limits) {
            for model in &models {
                let _ = decoded.request.clone().into_tensors(model, &limits);
            }
            let _ = decoded.request.encode(decoded.content_type);
        }
        let kind = kind.unwrap_or(ContentType::detect(body));
        let _ = InferResponse::decode(body, kind, &limits);
        let _ = Failure::from_body(body, kind);
    }
}
