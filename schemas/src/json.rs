//! JSON bodies: named tensors as in the Open Inference Protocol, rows and columns as in
//! TensorFlow Serving.
//!
//! A body is first cut into its members as raw text, so keys may come in any order; the text of
//! `data` is then read straight into little-endian bytes (`data`). Only rows and columns become a
//! tree of values, after their number is known to be within the limits (`text`).

mod columns;
mod data;
mod leaf;
mod rows;
mod text;
mod tree;
mod write;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

pub(crate) use columns::columns;
pub(crate) use rows::rows;
pub(crate) use write::{encode_request, encode_response};

use crate::limits::Limits;
use crate::problem::{Problem, RequestError};
use crate::request::{InferRequest, Inputs, Parameter};
use crate::response::InferResponse;
use crate::wire::{self, Context, Head, MAX_MEMBERS, Members, NULL, Node, Object};

/// Reads a request in any of its three forms.
pub(crate) fn decode_request(body: &Bytes, limits: &Limits) -> Result<InferRequest, RequestError> {
    let context = Context { body, limits };
    let mut object = parse_body(body)?;
    let inputs = match (object.take("instances")?, object.take("inputs")?) {
        (Some(_), Some(_)) => {
            let message = "`instances` and `inputs` are both given; send one of them";
            return Err(RequestError::new("", message));
        }
        (Some(rows), None) => Inputs::Rows(decode_rows(rows, limits)?),
        (None, Some(inputs)) if inputs.is_tensor_list() => {
            Inputs::Tensors(wire::tensors(&inputs, "inputs", &context)?)
        }
        (None, Some(columns)) => Inputs::Columns(columns.tree("inputs", limits)?),
        (None, None) => {
            let message = "Missing 'inputs' or 'instances' key";
            return Err(RequestError::new("", message));
        }
    };
    Ok(InferRequest {
        id: object.text("id", limits)?,
        inputs,
        outputs: wire::wanted_outputs(&mut object, limits)?,
        parameters: wire::parameters(&mut object, limits)?,
    })
}

/// Reads a response in tensor form.
pub(crate) fn decode_response(
    body: &Bytes,
    limits: &Limits,
) -> Result<InferResponse, RequestError> {
    wire::response(parse_body(body)?, &Context { body, limits })
}

fn decode_rows(rows: Raw<'_>, limits: &Limits) -> Result<Vec<Value>, Problem> {
    match rows.tree("instances", limits)? {
        Value::Array(rows) if !rows.is_empty() => Ok(rows),
        Value::Array(_) => Err(Problem::new(
            "instances",
            "an empty list; send at least one row",
        )),
        _ => Err(Problem::new(
            "instances",
            "must be a list with one item per row",
        )),
    }
}

/// The members of the body, each as raw text. This pass also proves that all of it is JSON.
fn parse_body(body: &[u8]) -> Result<Object<'_, Raw<'_>>, RequestError> {
    let not_json =
        |error: serde_json::Error| RequestError::new("", format!("not a JSON object: {error}"));
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let members = Collect::members(MAX_MEMBERS)
        .deserialize(&mut deserializer)
        .map_err(not_json)?;
    deserializer.end().map_err(not_json)?;
    Ok(Object::new(members, "")?)
}

/// The text of one JSON value, already known to be valid.
#[derive(Clone, Copy)]
struct Raw<'a>(&'a RawValue);

impl<'a> Raw<'a> {
    fn first(&self) -> u8 {
        // The text of a raw value starts with the value itself, so it is never empty.
        self.0.get().bytes().next().unwrap_or(b'n')
    }

    /// Whether this is a list of named tensors: empty, or its first item has a `name`.
    fn is_tensor_list(&self) -> bool {
        let Some(rest) = self.0.get().strip_prefix('[') else {
            return false;
        };
        let rest = rest.trim_ascii_start();
        if !rest.starts_with('{') {
            return rest.starts_with(']');
        }
        let mut found = false;
        // Reads the first item up to its `name` and leaves the rest alone, so what it ends with
        // says nothing.
        let _ = serde_json::Deserializer::from_str(rest).deserialize_map(FindName(&mut found));
        found
    }

    /// The value as a tree, if its depth and number of values are within the limits.
    fn tree(&self, path: &str, limits: &Limits) -> Result<Value, Problem> {
        text::measure(self.0.get(), limits).map_err(|message| Problem::new(path, message))?;
        serde_json::from_str(self.0.get()).map_err(|error| Problem::new(path, error.to_string()))
    }

    fn collect<C: Visitor<'a>>(&self, collect: C) -> Option<C::Value> {
        serde_json::Deserializer::from_str(self.0.get())
            .deserialize_any(collect)
            .ok()
    }
}

impl<'a> Node<'a> for Raw<'a> {
    fn kind(&self) -> &'static str {
        match self.first() {
            b'{' => "an object",
            b'[' => "a list",
            b'"' => "text",
            b't' | b'f' => "true or false",
            b'n' => NULL,
            _ => "a number",
        }
    }

    fn text(&self) -> Option<Cow<'a, str>> {
        (self.first() == b'"').then(|| text::string(self.0.get()))?
    }

    fn size(&self) -> Option<usize> {
        self.0.get().parse().ok()
    }

    fn parameter(&self) -> Option<Parameter> {
        let text = self.0.get();
        match self.first() {
            b't' => Some(Parameter::Bool(true)),
            b'f' => Some(Parameter::Bool(false)),
            b'"' => self.text().map(|text| Parameter::String(text.into_owned())),
            b'{' | b'[' | b'n' => None,
            _ if text.contains(['.', 'e', 'E']) => text
                .parse()
                .ok()
                .filter(|float: &f64| float.is_finite())
                .map(Parameter::Float),
            _ => text.parse().ok().map(Parameter::Int),
        }
    }

    fn items(&self, max: usize) -> Option<Vec<Self>> {
        self.collect(Collect::items(max))
    }

    fn members(&self, max: usize) -> Option<Members<'a, Self>> {
        self.collect(Collect::members(max))
    }

    fn data(&self, head: &Head<'_>, path: &str, _: &Context<'_>) -> Result<Bytes, Problem> {
        data::read(self.0.get(), head, path).map(Bytes::from)
    }
}

/// Looks for the member `name` and ends with an error as soon as it is found.
struct FindName<'a>(&'a mut bool);

impl<'de> Visitor<'de> for FindName<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while let Some(key) = object.next_key::<text::Key<'de>>()? {
            if key.0 == "name" {
                *self.0 = true;
                return Err(A::Error::custom("found"));
            }
            object.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// Collects the items of a list or the members of an object as raw text, at most `max + 1`.
struct Collect<T> {
    max: usize,
    what: PhantomData<T>,
}

impl<'a> Collect<Vec<Raw<'a>>> {
    fn items(max: usize) -> Self {
        Self {
            max,
            what: PhantomData,
        }
    }
}

impl<'a> Collect<Members<'a, Raw<'a>>> {
    fn members(max: usize) -> Self {
        Self {
            max,
            what: PhantomData,
        }
    }
}

impl<'a> Visitor<'a> for Collect<Vec<Raw<'a>>> {
    type Value = Vec<Raw<'a>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() <= self.max {
            match list.next_element()? {
                Some(item) => items.push(Raw(item)),
                None => return Ok(items),
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(items)
    }
}

impl<'a> Visitor<'a> for Collect<Members<'a, Raw<'a>>> {
    type Value = Members<'a, Raw<'a>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while members.len() <= self.max {
            match object.next_entry::<text::Key<'a>, &'a RawValue>()? {
                Some((name, value)) => members.push((name.0, Raw(value))),
                None => return Ok(members),
            }
        }
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(members)
    }
}

impl<'a> DeserializeSeed<'a> for Collect<Members<'a, Raw<'a>>> {
    type Value = Members<'a, Raw<'a>>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}
