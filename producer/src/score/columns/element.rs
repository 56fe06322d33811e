//! One number or text as an element of an input, appended as bytes.

use inferq_schemas::{DataType, Number, Rounding, shorten};

/// A number, to the nearest float or as a whole number that fits.
pub(super) fn append_number(
    number: Number,
    datatype: DataType,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    match (number, datatype) {
        // The common ones at once.
        (Number::Float(float), DataType::Fp64) => out.extend_from_slice(&float.to_le_bytes()),
        (Number::Float(float), DataType::Fp32) if (float as f32).is_finite() => {
            out.extend_from_slice(&(float as f32).to_le_bytes());
        }
        _ => {
            let done = number.write(datatype, Rounding::Nearest, out);
            done.map_err(|misfit| misfit.to_string())?;
        }
    }
    Ok(())
}

/// Text as it stands in a file: a number, a truth value, or for BYTES whatever it is.
pub(super) fn append_text(text: &str, datatype: DataType, out: &mut Vec<u8>) -> Result<(), String> {
    match datatype {
        DataType::Bytes => return append_bytes(text.as_bytes(), out),
        DataType::Fp32 => {
            if let Ok(float) = text.parse::<f32>()
                && float.is_finite()
            {
                out.extend_from_slice(&float.to_le_bytes());
                return Ok(());
            }
        }
        DataType::Fp64 => {
            if let Ok(float) = text.parse::<f64>()
                && float.is_finite()
            {
                out.extend_from_slice(&float.to_le_bytes());
                return Ok(());
            }
        }
        DataType::Int64 => {
            if let Ok(int) = text.parse::<i64>() {
                out.extend_from_slice(&int.to_le_bytes());
                return Ok(());
            }
        }
        _ => {}
    }
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("empty where {datatype} is expected"));
    }
    let Some(number) = number_in(text) else {
        let text = shorten(text, 40);
        return Err(format!("`{text}` where {datatype} is expected"));
    };
    if let (Number::Float(_), DataType::Fp32) = (number, datatype)
        && let Ok(float) = text.parse::<f32>()
        && float.is_finite()
    {
        // From the text again, since by way of f64 it would be rounded twice.
        out.extend_from_slice(&float.to_le_bytes());
        return Ok(());
    }
    append_number(number, datatype, out)
}

/// The number or truth value that text is, if it is one. Infinity only where it is spelled out.
pub(super) fn number_in(text: &str) -> Option<Number> {
    if let Ok(int) = text.parse::<i128>() {
        return Some(Number::Int(int));
    }
    if let Ok(float) = text.parse::<f64>() {
        let spelled = || {
            text.trim_start_matches(['+', '-'])
                .starts_with(['i', 'I', 'n', 'N'])
        };
        return (float.is_finite() || spelled()).then_some(Number::Float(float));
    }
    match text {
        "true" | "True" | "TRUE" => Some(Number::Int(1)),
        "false" | "False" | "FALSE" => Some(Number::Int(0)),
        _ => None,
    }
}

/// A JSON value that is no list.
pub(super) fn append_json(json: &str, datatype: DataType, out: &mut Vec<u8>) -> Result<(), String> {
    let wrong = |expected: &dyn std::fmt::Display| {
        Err(format!(
            "{} where {expected} is expected",
            shorten(json, 40)
        ))
    };
    let text = json.starts_with('"');
    if datatype == DataType::Bytes {
        if !text {
            return wrong(&"text");
        }
        return match serde_json::from_str::<String>(json) {
            Ok(text) => append_bytes(text.as_bytes(), out),
            Err(_) => wrong(&"text"),
        };
    }
    match json {
        // How JSON says what it has no number for.
        "\"NaN\"" => append_number(Number::Float(f64::NAN), datatype, out),
        "\"Infinity\"" => append_number(Number::Float(f64::INFINITY), datatype, out),
        "\"-Infinity\"" => append_number(Number::Float(f64::NEG_INFINITY), datatype, out),
        _ if text || json.starts_with('{') || json == "null" => wrong(&datatype),
        _ => append_text(json, datatype, out),
    }
}

/// One element of a BYTES tensor: its length and its bytes.
pub(super) fn append_bytes(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let length = u32::try_from(bytes.len()).map_err(|_| "4 GiB or more in one cell".to_owned())?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str, datatype: DataType) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        append_text(text, datatype, &mut out).map(|()| out)
    }

    fn json(text: &str, datatype: DataType) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        append_json(text, datatype, &mut out).map(|()| out)
    }

    #[test]
    fn floats_take_every_number_and_are_rounded_once() {
        let float = |value: f32| Ok(value.to_le_bytes().to_vec());
        for (cell, value) in [
            ("1", 1.0),
            (" 2.5 ", 2.5),
            ("+1e3", 1000.0),
            ("1.", 1.0),
            (".5", 0.5),
            ("-inf", f32::NEG_INFINITY),
            ("Infinity", f32::INFINITY),
            ("True", 1.0),
            // Half way between two floats once it is a double.
            (" 1.00000017881393432617187499", 1.000_000_1),
        ] {
            assert_eq!(text(cell, DataType::Fp32), float(value), "{cell}");
        }
        assert!(text("nan", DataType::Fp32).is_ok());
        assert_eq!(
            text("1e39", DataType::Fp32).expect_err("too large"),
            "1e39 is beyond FP32"
        );
        assert!(
            text("1e999", DataType::Fp64)
                .expect_err("too large")
                .contains("`1e999`")
        );
        assert_eq!(
            text("", DataType::Fp32).expect_err("empty"),
            "empty where FP32 is expected"
        );
        assert_eq!(
            text("abc", DataType::Fp64).expect_err("a word"),
            "`abc` where FP64 is expected"
        );
        assert_eq!(
            text("0.5", DataType::Fp16),
            Ok(half::f16::from_f32(0.5).to_le_bytes().to_vec())
        );
    }

    #[test]
    fn integers_take_whole_numbers_that_fit() {
        assert_eq!(text("3", DataType::Int8), Ok(vec![3]));
        assert_eq!(
            text("3.0", DataType::Int64),
            Ok(3_i64.to_le_bytes().to_vec())
        );
        let largest = text("18446744073709551615", DataType::Uint64);
        assert_eq!(largest, Ok(u64::MAX.to_le_bytes().to_vec()));
        assert_eq!(text("false", DataType::Bool), Ok(vec![0]));
        for (cell, datatype) in [
            ("1.5", DataType::Int32),
            ("300", DataType::Uint8),
            ("NaN", DataType::Int64),
            ("", DataType::Int64),
            ("2", DataType::Bool),
        ] {
            assert!(text(cell, datatype).is_err(), "{cell}");
        }
    }

    #[test]
    fn json_cells_are_strict_about_text() {
        assert_eq!(
            json("\"a\\u00e4\"", DataType::Bytes),
            Ok(b"\x03\0\0\0a\xc3\xa4".to_vec())
        );
        assert!(json("1", DataType::Bytes).is_err());
        assert!(json("\"1\"", DataType::Fp32).is_err());
        assert!(json("null", DataType::Fp32).is_err());
        assert_eq!(
            json("1.5", DataType::Fp32),
            Ok(1.5_f32.to_le_bytes().to_vec())
        );
        assert!(json("\"NaN\"", DataType::Fp32).is_ok());
        assert!(json("\"NaN\"", DataType::Int8).is_err());
        assert!(json("true", DataType::Bool).is_ok());
    }
}
