//! One element of `data`: its JSON text into little-endian bytes.
//!
//! Numbers are read from their decimal text, so integers keep all 64 bits and floats are the
//! nearest to what is written, without a detour through another type.

use std::borrow::Cow;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::text;
use crate::error::shorten;
use crate::number::{Number, Rounding};
use crate::tensor::{DataType, push_element};

/// Reads one element and appends it; says what is wrong with it otherwise.
pub(super) type ReadLeaf = fn(DataType, &str, &mut Vec<u8>) -> Result<(), String>;

/// How the elements of a datatype are read; chosen once, so the loop over them has no choice left.
pub(super) fn reader(datatype: DataType) -> ReadLeaf {
    match datatype {
        DataType::Bool => |_, leaf, out| match leaf {
            "true" => {
                out.push(1);
                Ok(())
            }
            "false" => {
                out.push(0);
                Ok(())
            }
            _ => Err(unexpected(leaf, "true or false")),
        },
        DataType::Uint8 => |d, l, o| integer(d, l, o, u8::to_le_bytes),
        DataType::Uint16 => |d, l, o| integer(d, l, o, u16::to_le_bytes),
        DataType::Uint32 => |d, l, o| integer(d, l, o, u32::to_le_bytes),
        DataType::Uint64 => |d, l, o| integer(d, l, o, u64::to_le_bytes),
        DataType::Int8 => |d, l, o| integer(d, l, o, i8::to_le_bytes),
        DataType::Int16 => |d, l, o| integer(d, l, o, i16::to_le_bytes),
        DataType::Int32 => |d, l, o| integer(d, l, o, i32::to_le_bytes),
        DataType::Int64 => |d, l, o| integer(d, l, o, i64::to_le_bytes),
        DataType::Fp16 | DataType::Bf16 => number,
        DataType::Fp32 => |datatype, leaf, out| match leaf.parse::<f32>() {
            Ok(float) if float.is_finite() => {
                out.extend(float.to_le_bytes());
                Ok(())
            }
            _ => number(datatype, leaf, out),
        },
        DataType::Fp64 => |datatype, leaf, out| match leaf.parse::<f64>() {
            Ok(float) if float.is_finite() => {
                out.extend(float.to_le_bytes());
                Ok(())
            }
            _ => number(datatype, leaf, out),
        },
        DataType::Bytes => |_, leaf, out| bytes(leaf, out),
    }
}

/// An integer in the quick way, else whatever [`number`] says.
fn integer<T: FromStr, const SIZE: usize>(
    datatype: DataType,
    leaf: &str,
    out: &mut Vec<u8>,
    to_bytes: fn(T) -> [u8; SIZE],
) -> Result<(), String> {
    match leaf.parse::<T>() {
        Ok(integer) => {
            out.extend(to_bytes(integer));
            Ok(())
        }
        Err(_) => number(datatype, leaf, out),
    }
}

/// Any number for any number type, or the reason why not.
fn number(datatype: DataType, leaf: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let number = if let Some(float) = special_float(leaf.trim_matches('"')) {
        // Without its quotes this is no JSON, so the leaf was text.
        Number::Float(float)
    } else if let Ok(int) = leaf.parse() {
        Number::Int(int)
    } else if let Ok(float) = leaf.parse() {
        Number::Float(float)
    } else {
        return Err(unexpected(leaf, "a number"));
    };
    number
        .write(datatype, Rounding::Nearest, out)
        .map_err(|misfit| misfit.to_string())
}

/// The floats that JSON has no number for, as text.
pub(super) fn special_float(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// Text, or an object whose only member is `b64`.
fn bytes(leaf: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let expected = "text or {\"b64\": \"...\"}";
    let done = if leaf.starts_with('"') {
        text::string(leaf).map(|text| push_element(out, text.as_bytes()))
    } else {
        base64_object(leaf).map(|raw| push_element(out, &raw))
    };
    match done {
        Some(true) => Ok(()),
        Some(false) => Err("4 GiB or more in one element".to_owned()),
        None => Err(unexpected(leaf, expected)),
    }
}

/// What `{"b64": "..."}` stands for.
pub(super) fn base64_object(json: &str) -> Option<Vec<u8>> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Base64<'a> {
        #[serde(borrow)]
        b64: Cow<'a, str>,
    }
    if !json.starts_with('{') {
        return None;
    }
    let object: Base64<'_> = serde_json::from_str(json).ok()?;
    STANDARD.decode(&*object.b64).ok()
}

fn unexpected(leaf: &str, expected: &str) -> String {
    format!("{} where {expected} is expected", shorten(leaf, 40))
}
