//! Values as text, for CSV and JSON lines. Floats are the shortest text that reads back as the same.

use std::io::Write;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::DataType;

/// Appends the value of a row.
pub(in crate::score) type Put<'a> = Box<dyn Fn(usize, &mut Vec<u8>) + 'a>;

/// How text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::score) enum Style {
    /// As it is, in quotes where it holds the delimiter, a quote or a line end. Null is empty.
    Csv(u8),
    /// As JSON. NaN and infinities are the texts `NaN`, `Infinity` and `-Infinity`.
    Json,
}

/// Whether values of this type have a text.
pub(in crate::score) fn is_writable(datatype: &DataType) -> bool {
    match datatype {
        DataType::List(item) | DataType::FixedSizeList(item, _) => is_writable(item.data_type()),
        DataType::Boolean | DataType::Utf8 | DataType::Null => true,
        other => other.is_numeric() || other.is_temporal(),
    }
}

/// How the values of `array` are written; its type is [`is_writable`].
pub(in crate::score) fn put<'a>(array: &'a dyn Array, style: Style) -> Put<'a> {
    let present = present(array, style);
    if array.null_count() == 0 && *array.data_type() != DataType::Null {
        return present;
    }
    Box::new(move |row, out| {
        if array.is_valid(row) && *array.data_type() != DataType::Null {
            present(row, out);
        } else if style == Style::Json {
            out.extend_from_slice(b"null");
        }
    })
}

fn present<'a>(array: &'a dyn Array, style: Style) -> Put<'a> {
    match array.data_type() {
        DataType::Int8 => integers::<Int8Type>(array),
        DataType::Int16 => integers::<Int16Type>(array),
        DataType::Int32 => integers::<Int32Type>(array),
        DataType::Int64 => integers::<Int64Type>(array),
        DataType::UInt8 => integers::<UInt8Type>(array),
        DataType::UInt16 => integers::<UInt16Type>(array),
        DataType::UInt32 => integers::<UInt32Type>(array),
        DataType::UInt64 => integers::<UInt64Type>(array),
        // Half floats have no shortest text of their own; that of the same 32-bit float reads back.
        DataType::Float16 => floats::<Float16Type, f32>(array, style, |value| value.to_f32()),
        DataType::Float32 => floats::<Float32Type, f32>(array, style, |value| value),
        DataType::Float64 => floats::<Float64Type, f64>(array, style, |value| value),
        DataType::Boolean => {
            let values = array.as_boolean();
            Box::new(|row, out| {
                let word = if values.value(row) { "true" } else { "false" };
                out.extend_from_slice(word.as_bytes());
            })
        }
        DataType::Utf8 => {
            let values = array.as_string::<i32>();
            Box::new(move |row, out| text(values.value(row), style, out))
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            let item = put(list.values(), Style::Json);
            Box::new(move |row, out| {
                let range = offsets[row] as usize..offsets[row + 1] as usize;
                items(range, &item, style, out);
            })
        }
        DataType::FixedSizeList(_, size) => {
            let size = *size as usize;
            let item = put(array.as_fixed_size_list().values(), Style::Json);
            Box::new(move |row, out| items(row * size..(row + 1) * size, &item, style, out))
        }
        _ => other(array, style),
    }
}

fn integers<'a, T: ArrowPrimitiveType>(array: &'a dyn Array) -> Put<'a>
where
    T::Native: std::fmt::Display,
{
    let values = array.as_primitive::<T>();
    Box::new(|row, out| {
        // A vector takes any number of bytes.
        let _ = write!(out, "{}", values.value(row));
    })
}

fn floats<'a, T: ArrowPrimitiveType, F: Into<f64> + Copy + serde::Serialize + 'a>(
    array: &'a dyn Array,
    style: Style,
    widen: fn(T::Native) -> F,
) -> Put<'a> {
    let values = array.as_primitive::<T>();
    Box::new(move |row, out| {
        let value = widen(values.value(row));
        let wide: f64 = value.into();
        if wide.is_finite() {
            // A vector takes any number of bytes, and a finite number is JSON.
            let _ = serde_json::to_writer(out, &value);
            return;
        }
        let word = match wide {
            _ if wide.is_nan() => "NaN",
            _ if wide > 0.0 => "Infinity",
            _ => "-Infinity",
        };
        text(word, style, out);
    })
}

fn items(range: std::ops::Range<usize>, item: &Put<'_>, style: Style, out: &mut Vec<u8>) {
    if style == Style::Json {
        list(range, item, out);
        return;
    }
    let mut json = Vec::new();
    list(range, item, &mut json);
    text(&String::from_utf8_lossy(&json), style, out);
}

fn list(range: std::ops::Range<usize>, item: &Put<'_>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, place) in range.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        item(place, out);
    }
    out.push(b']');
}

/// Dates, times and decimals.
fn other<'a>(array: &'a dyn Array, style: Style) -> Put<'a> {
    match ArrayFormatter::try_new(array, &FormatOptions::default()) {
        Ok(formatter) => Box::new(move |row, out| {
            text(&formatter.value(row).to_string(), style, out);
        }),
        Err(_) => Box::new(move |_, out| text("", style, out)),
    }
}

/// Appends text in the style.
pub(in crate::score) fn text(text: &str, style: Style, out: &mut Vec<u8>) {
    let Style::Csv(delimiter) = style else {
        // A vector takes any number of bytes, and text is JSON.
        let _ = serde_json::to_writer(out, text);
        return;
    };
    let special = |byte: &u8| matches!(byte, b'"' | b'\n' | b'\r') || *byte == delimiter;
    if !text.as_bytes().iter().any(special) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}
