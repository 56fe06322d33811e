//! Reads the models and stored answers of `tests/models`.

use std::path::PathBuf;

use inferq_engine::{Element, LoadLimits, OnnxModel, Tensor, load_file};
use serde_json::Value;

pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/models")
        .join(name)
}

pub(crate) fn model(name: &str) -> OnnxModel {
    load_file(&path(&format!("{name}.onnx")), &LoadLimits::default())
        .unwrap_or_else(|error| panic!("{name}.onnx: {error}"))
}

/// A tensor of a stored run.
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) element: Element,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Stored {
    pub(crate) fn tensor(&self) -> Tensor {
        Tensor::stack(self.element, &self.shape, &[&self.bytes]).expect("the file is consistent")
    }

    /// Rows `start..end` of a f32 tensor.
    pub(crate) fn rows(&self, start: usize, end: usize) -> Tensor {
        let row = self.bytes.len() / self.shape[0];
        let mut shape = self.shape.clone();
        shape[0] = end - start;
        Tensor::stack(self.element, &shape, &[&self.bytes[start * row..end * row]])
            .expect("the file is consistent")
    }
}

/// Inputs and outputs of one run by ONNX Runtime.
pub(crate) fn run_by_onnx_runtime(name: &str) -> (Vec<Stored>, Vec<Stored>) {
    let text = std::fs::read_to_string(path(&format!("{name}.json"))).expect("the case is there");
    let case: Value = serde_json::from_str(&text).expect("the case is JSON");
    let side = |key: &str| {
        case[key]
            .as_array()
            .expect("a list")
            .iter()
            .map(stored)
            .collect()
    };
    (side("inputs"), side("outputs"))
}

fn stored(value: &Value) -> Stored {
    let element = match value["element"].as_str().expect("an element") {
        "bool" => Element::Bool,
        "f16" => Element::F16,
        "f32" => Element::F32,
        "f64" => Element::F64,
        "i64" => Element::I64,
        "string" => Element::String,
        other => panic!("no case has {other} yet"),
    };
    let shape = value["shape"].as_array().expect("a list").iter();
    let mut bytes = Vec::new();
    for item in value["data"].as_array().expect("a list") {
        let float = || item.as_f64().expect("a number");
        match element {
            Element::Bool => bytes.push(u8::from(item.as_bool().expect("a bool"))),
            Element::F16 => bytes.extend(half_bits(float()).to_le_bytes()),
            Element::F32 => bytes.extend((float() as f32).to_le_bytes()),
            Element::F64 => bytes.extend(float().to_le_bytes()),
            Element::I64 => bytes.extend(item.as_i64().expect("an integer").to_le_bytes()),
            _ => bytes.extend(string(item.as_str().expect("a string"))),
        }
    }
    Stored {
        name: value["name"].as_str().expect("a name").to_owned(),
        element,
        shape: shape
            .map(|size| size.as_u64().expect("a size") as usize)
            .collect(),
        bytes,
    }
}

/// A string as tensors carry it: length, then bytes.
pub(crate) fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u32).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// A normal half-precision number; the stored ones are exact, so nothing needs rounding.
fn half_bits(value: f64) -> u16 {
    let bits = (value as f32).to_bits();
    let exponent = ((bits >> 23) & 0xff) as i32 - 127 + 15;
    assert!(
        (1..31).contains(&exponent) && bits & 0x1fff == 0,
        "{value} is no normal half"
    );
    ((bits >> 16) & 0x8000) as u16 | (exponent as u16) << 10 | ((bits >> 13) & 0x3ff) as u16
}

pub(crate) fn half_value(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
    match exponent {
        0 => sign * fraction * 2f64.powi(-24),
        exponent => sign * (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    }
}

/// Floats of any width as `f64`.
pub(crate) fn floats(element: Element, bytes: &[u8]) -> Vec<f64> {
    let size = element.size().expect("floats have a size");
    let value = |bytes: &[u8]| match element {
        Element::F16 => half_value(u16::from_le_bytes(bytes.try_into().expect("two bytes"))),
        Element::F32 => f32::from_le_bytes(bytes.try_into().expect("four bytes")).into(),
        _ => f64::from_le_bytes(bytes.try_into().expect("eight bytes")),
    };
    bytes.chunks_exact(size).map(value).collect()
}
