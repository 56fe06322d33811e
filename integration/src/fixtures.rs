//! Folders of models that a test puts together from the engine's small ONNX files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use inferq_engine::{LoadLimits, Model};

mod passing;

pub use passing::add_passing;

/// Puts the engine's test model `file` into `folder` as version 1 of `model`, the way a person copies it.
///
/// # Errors
/// If it cannot be copied.
pub fn add_model(folder: &Path, model: &str, file: &str) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../worker/engine/tests/models")
        .join(file);
    copy_version(&source, &folder.join(model).join("1"))
}

/// Puts the digits model into `folder` under the name `model`.
///
/// # Errors
/// If it cannot be copied.
pub fn add_digits(folder: &Path, model: &str) -> Result<()> {
    add_digits_version(folder, model, 1)
}

/// Puts the digits model into `folder` as another version of `model`, the way a person mends a model.
///
/// # Errors
/// If it cannot be copied.
pub fn add_digits_version(folder: &Path, model: &str, version: u64) -> Result<()> {
    copy_version(
        &crate::models_folder().join("digits/1/model.onnx"),
        &folder.join(model).join(version.to_string()),
    )
}

pub(crate) fn copy_version(source: &Path, version: &Path) -> Result<()> {
    fs::create_dir_all(version)?;
    let target: PathBuf = version.join("model.onnx");
    fs::copy(source, &target)
        .with_context(|| format!("{} to {}", source.display(), target.display()))?;
    Ok(())
}

/// Columns of the first input of `model`.
///
/// # Errors
/// If it has no fixed number of them.
pub fn columns(folder: &Path, model: &str) -> Result<usize> {
    size(folder, model, 1)
}

/// Rows of the first input of `model`.
///
/// # Errors
/// If it has no fixed number of them.
pub fn rows(folder: &Path, model: &str) -> Result<usize> {
    size(folder, model, 0)
}

fn size(folder: &Path, model: &str, axis: usize) -> Result<usize> {
    let loaded = inferq_engine::load_file(
        &folder.join(model).join("1/model.onnx"),
        &LoadLimits::default(),
    )?;
    let size = loaded
        .inputs()
        .first()
        .and_then(|input| *input.shape.get(axis)?);
    size.with_context(|| format!("axis {axis} of {model} is not fixed"))
}
