//! The held-out handwritten digits, and what the model says of them without any queue.

use std::path::Path;

use anyhow::{Context, Result};
use inferq_engine::{Element, LoadLimits, Model, Tensor};

use crate::models_folder;

/// Pixels of one image.
pub const PIXELS: usize = 64;

/// A held-out image and its label.
#[derive(Debug, Clone)]
pub struct Digit {
    /// 8 x 8 values from 0 to 16, row by row.
    pub pixels: Vec<f32>,
    /// The digit it shows.
    pub label: i64,
}

impl Digit {
    /// As a request of one row in the row form.
    pub fn row_request(&self) -> String {
        rows_request(std::slice::from_ref(self))
    }

    /// As a request of one row in the tensor form.
    pub fn tensor_request(&self) -> String {
        tensor_request(std::slice::from_ref(self))
    }
}

/// A request in the row form.
pub fn rows_request(digits: &[Digit]) -> String {
    let rows: Vec<&[f32]> = digits.iter().map(|digit| digit.pixels.as_slice()).collect();
    serde_json::json!({ "instances": rows }).to_string()
}

/// A request in the tensor form, whose answer has parameters.
pub fn tensor_request(digits: &[Digit]) -> String {
    let data: Vec<f32> = digits
        .iter()
        .flat_map(|digit| digit.pixels.iter().copied())
        .collect();
    let input = serde_json::json!({ "name": "input", "datatype": "FP32", "shape": [digits.len(), PIXELS], "data": data });
    serde_json::json!({ "inputs": [input] }).to_string()
}

/// All held-out images.
///
/// # Errors
/// If the file is missing or not what `make.py` writes.
pub fn held_out() -> Result<Vec<Digit>> {
    held_out_in(&models_folder())
}

/// All held-out images of the digits in another folder of models.
///
/// # Errors
/// If the file is missing or not what `make.py` writes.
pub fn held_out_in(models: &Path) -> Result<Vec<Digit>> {
    let file = models.join("digits/held_out.csv");
    let mut reader =
        csv::Reader::from_path(&file).with_context(|| format!("{}", file.display()))?;
    let rows = reader.records().map(|record| {
        let record = record?;
        let (pixels, label) = record
            .iter()
            .enumerate()
            .partition::<Vec<_>, _>(|(column, _)| *column < PIXELS);
        let pixels = pixels
            .into_iter()
            .map(|(_, value)| value.parse())
            .collect::<Result<Vec<f32>, _>>()?;
        let label = label.first().context("no label")?.1.parse()?;
        Ok(Digit { pixels, label })
    });
    rows.collect()
}

/// Probabilities of the ten digits for each image, computed by the engine alone.
///
/// # Errors
/// If the model does not load or run.
pub fn expected(digits: &[Digit]) -> Result<Vec<Vec<f32>>> {
    let model = inferq_engine::load_file(
        &models_folder().join("digits/1/model.onnx"),
        &LoadLimits::default(),
    )?;
    let place = model
        .outputs()
        .iter()
        .position(|output| output.name == "probabilities")
        .context("no output `probabilities`")?;
    let mut session = model.session()?;
    digits
        .iter()
        .map(|digit| {
            let bytes: Vec<u8> = digit
                .pixels
                .iter()
                .flat_map(|pixel| pixel.to_le_bytes())
                .collect();
            let input = Tensor::stack(Element::F32, &[1, PIXELS], &[&bytes])?;
            let outputs = session.run(vec![input])?;
            let bytes = outputs[place].bytes();
            let (values, _) = bytes.as_chunks::<4>();
            Ok(values
                .iter()
                .map(|value| f32::from_le_bytes(*value))
                .collect())
        })
        .collect()
}

/// The digit with the highest probability.
pub fn best(probabilities: &[f32]) -> Option<i64> {
    let best = probabilities
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(b.1))?;
    i64::try_from(best.0).ok()
}
