//! CBOR bodies: the structure of the JSON ones, with `data` as one byte string.
//!
//! `serde_cbor` is the codec this project was asked to use, but it is no longer maintained
//! (RUSTSEC-2021-0127). So it is used in this file only, and sees no byte that `scan` has not
//! passed: definite lengths within the input, depth and items within the limits, text keys without
//! duplicates, no tags. Byte strings are borrowed from the body all the way into the tensors.

mod scan;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::error::FailureBody;
use crate::limits::Limits;
use crate::problem::{Problem, RequestError};
use crate::request::{Form, InferRequest, Inputs, Parameter, Parameters};
use crate::response::InferResponse;
use crate::tensor::Tensor;
use crate::wire::{self, Context, Head, Members, NULL, Node, Object};

/// Reads a request; CBOR has only the tensor form.
pub(crate) fn decode_request(body: &Bytes, limits: &Limits) -> Result<InferRequest, RequestError> {
    let context = Context { body, limits };
    let mut object = parse_body(body, limits)?;
    let Some(inputs) = object.take("inputs")? else {
        let message = "`inputs` is missing; CBOR has only the form of named tensors";
        return Err(RequestError::new("", message));
    };
    Ok(InferRequest {
        id: object.text("id", limits)?,
        inputs: Inputs::Tensors(wire::tensors(&inputs, "inputs", &context)?),
        outputs: wire::wanted_outputs(&mut object, limits)?,
        parameters: wire::parameters(&mut object, limits)?,
    })
}

/// Reads a response.
pub(crate) fn decode_response(
    body: &Bytes,
    limits: &Limits,
) -> Result<InferResponse, RequestError> {
    wire::response(parse_body(body, limits)?, &Context { body, limits })
}

/// Writes a request.
pub(crate) fn encode_request(request: &InferRequest) -> Result<Bytes, RequestError> {
    let Inputs::Tensors(inputs) = &request.inputs else {
        return Err(tensors_only());
    };
    wire::check(inputs, "inputs")?;
    Ok(encode(&RequestBody {
        id: request.id.as_deref(),
        parameters: &request.parameters,
        inputs: inputs.iter().map(TensorBody::new).collect(),
        outputs: request
            .outputs
            .iter()
            .map(|name| OutputBody { name })
            .collect(),
    }))
}

/// Writes a response; CBOR has only the tensor form.
pub(crate) fn encode_response(response: &InferResponse, form: Form) -> Result<Bytes, RequestError> {
    if form != Form::Tensors {
        return Err(tensors_only());
    }
    wire::check(&response.outputs, "outputs")?;
    let members = response.parameters.members();
    Ok(encode(&ResponseBody {
        model_name: &response.model_name,
        model_version: &response.model_version,
        id: response.id.as_deref(),
        parameters: OrderedParameters(&members),
        outputs: response.outputs.iter().map(TensorBody::new).collect(),
    }))
}

/// Writes the body of a failure.
pub(crate) fn encode_failure(failure: &FailureBody) -> Bytes {
    encode(failure)
}

/// Reads the body of a failure; `None` if it is something else.
pub(crate) fn decode_failure(body: &[u8]) -> Option<FailureBody> {
    scan::scan(body, &Limits::default()).ok()?;
    // A list would be read as the members in order; a map's head has the upper bits 101.
    body.first().filter(|head| **head >> 5 == 5)?;
    serde_cbor::from_slice(body).ok()
}

fn tensors_only() -> RequestError {
    RequestError::new(
        "",
        "rows and columns exist in JSON only; CBOR takes named tensors",
    )
}

fn encode<T: Serialize>(body: &T) -> Bytes {
    serde_cbor::to_vec(body)
        .expect("memory takes every write, and all maps state their length")
        .into()
}

/// The members of the body, once the scan has passed all of it.
fn parse_body<'a>(body: &'a [u8], limits: &Limits) -> Result<Object<'a, Item<'a>>, RequestError> {
    let not_cbor = |why: String| RequestError::new("", format!("not a CBOR request: {why}"));
    scan::scan(body, limits).map_err(|error| not_cbor(error.to_string()))?;
    let item = serde_cbor::from_slice(body).map_err(|error| not_cbor(error.to_string()))?;
    match item {
        Item::Map(members) => Ok(Object::new(members, "")?),
        other => Err(not_cbor(format!(
            "{} where a map is expected",
            other.kind()
        ))),
    }
}

/// A CBOR item that borrows text and bytes from the body.
#[derive(Clone)]
enum Item<'a> {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    List(Vec<Self>),
    Map(Members<'a, Self>),
}

impl<'a> Node<'a> for Item<'a> {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => NULL,
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::Bytes(_) => "a byte string",
            Self::List(_) => "a list",
            Self::Map(_) => "an object",
        }
    }

    fn text(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            _ => None,
        }
    }

    fn size(&self) -> Option<usize> {
        match self {
            Self::Int(int) => usize::try_from(*int).ok(),
            _ => None,
        }
    }

    fn parameter(&self) -> Option<Parameter> {
        match self {
            Self::Bool(value) => Some(Parameter::Bool(*value)),
            Self::Int(value) => i64::try_from(*value).ok().map(Parameter::Int),
            Self::Float(value) => Some(Parameter::Float(*value)),
            Self::Text(value) => Some(Parameter::String((*value).to_owned())),
            Self::Null | Self::Bytes(_) | Self::List(_) | Self::Map(_) => None,
        }
    }

    // The scan has bounded the items of the whole body, so a copy of a few is cheap; it shares
    // text and bytes.
    fn items(&self, max: usize) -> Option<Vec<Self>> {
        match self {
            Self::List(items) => Some(items.iter().take(max.saturating_add(1)).cloned().collect()),
            _ => None,
        }
    }

    fn members(&self, max: usize) -> Option<Members<'a, Self>> {
        match self {
            Self::Map(members) => Some(
                members
                    .iter()
                    .take(max.saturating_add(1))
                    .cloned()
                    .collect(),
            ),
            _ => None,
        }
    }

    fn data(&self, _: &Head<'_>, path: &str, context: &Context<'_>) -> Result<Bytes, Problem> {
        match self {
            Self::Bytes(bytes) => Ok(context.body.slice_ref(bytes)),
            other => Err(Problem::new(
                path,
                format!(
                    "{} where one byte string is expected: all elements little-endian and row-major, BYTES each with its length as u32",
                    other.kind()
                ),
            )),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Item<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CBOR item")
    }

    fn visit_unit<E: Error>(self) -> Result<Item<'de>, E> {
        Ok(Item::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Item<'de>, E> {
        Ok(Item::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Item<'de>, E> {
        Ok(Item::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Item<'de>, E> {
        Ok(Item::Int(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Item<'de>, E> {
        Ok(Item::Int(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Item<'de>, E> {
        Ok(Item::Int(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Item<'de>, E> {
        Ok(Item::Float(value))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Item<'de>, E> {
        Ok(Item::Text(text))
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Item<'de>, E> {
        Ok(Item::Bytes(bytes))
    }

    // The lengths a body claims are never trusted for an allocation: lists grow as items come.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Item::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some((name, item)) = map.next_entry::<&str, Item<'de>>()? {
            members.push((Cow::Borrowed(name), item));
        }
        Ok(Item::Map(members))
    }
}

#[derive(serde::Serialize)]
struct RequestBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    parameters: &'a Parameters,
    inputs: Vec<TensorBody<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<OutputBody<'a>>,
}

#[derive(serde::Serialize)]
struct OutputBody<'a> {
    name: &'a str,
}

#[derive(serde::Serialize)]
struct ResponseBody<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    parameters: OrderedParameters<'a>,
    outputs: Vec<TensorBody<'a>>,
}

#[derive(serde::Serialize)]
struct TensorBody<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: &'a [usize],
    #[serde(with = "serde_bytes")]
    data: &'a [u8],
}

impl<'a> TensorBody<'a> {
    fn new(tensor: &'a Tensor) -> Self {
        Self {
            name: &tensor.name,
            datatype: tensor.datatype.as_str(),
            shape: &tensor.shape,
            data: &tensor.data,
        }
    }
}

/// Parameters in the order they are given in, unlike those of a map.
struct OrderedParameters<'a>(&'a [(&'static str, Parameter)]);

impl Serialize for OrderedParameters<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Serialize for Parameter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::String(value) => serializer.serialize_str(value),
        }
    }
}
