//! Models that harm the worker that runs them, and only if a job asks for it: `spin` keeps a thread
//! busy for as long as one likes, `stretch` makes the operating system end the process. `chain` is `spin`
//! many times over, one operator after the other. `heavy` is merely slow, for each of its rows.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use inferq::Job;

use crate::fixtures::copy_version;
use crate::job;

/// Steps of `spin` that take a core many minutes.
const FOR_EVER: u32 = 16_000_000;
/// Steps of each operator of `chain` with which one takes seconds, and all of them many minutes.
const SECONDS: u32 = 400_000;
/// Length at which `stretch` asks for more memory than a process can address.
const DEADLY: u32 = 20_000_000;

/// Puts both models into `folder`, each as version 1. A forward pass of `spin` may take `run_timeout`.
///
/// # Errors
/// If they cannot be copied.
pub fn add(folder: &Path, run_timeout: Duration) -> Result<()> {
    for model in ["spin", "stretch"] {
        put(folder, model, model)?;
    }
    let limits = format!(
        "[limits]\nrun_timeout = \"{}ms\"\n",
        run_timeout.as_millis()
    );
    Ok(fs::write(folder.join("spin/model.toml"), limits)?)
}

/// Puts `chain` into `folder`, as version 1.
///
/// # Errors
/// If it cannot be copied.
pub fn add_chain(folder: &Path) -> Result<()> {
    put(folder, "chain", "chain")
}

/// Puts `heavy` into `folder` as version 1 of `model`: it takes the images that the digits model takes, and more
/// than 5 ms for each on one core, alone or with others.
///
/// # Errors
/// If it cannot be copied.
pub fn add_heavy(folder: &Path, model: &str) -> Result<()> {
    put(folder, model, "heavy")
}

fn put(folder: &Path, model: &str, file: &str) -> Result<()> {
    let hazards = Path::new(env!("CARGO_MANIFEST_DIR")).join("hazards");
    let source = hazards.join(file).with_extension("onnx");
    copy_version(&source, &folder.join(model).join("1"))
}

/// A job of `spin` with so many steps, each some microseconds long.
pub fn spin(steps: u32) -> Job {
    counted("spin", steps)
}

/// A job whose forward pass does not return while a test lasts.
pub fn endless() -> Job {
    spin(FOR_EVER)
}

/// A job whose forward pass takes many minutes, and each of its operators a few seconds.
pub fn many_operators() -> Job {
    counted("chain", SECONDS)
}

/// A job of `stretch` that is answered like any other.
pub fn harmless() -> Job {
    counted("stretch", 1)
}

/// A job that ends every process that runs it (SIGABRT).
pub fn deadly() -> Job {
    counted("stretch", DEADLY)
}

fn counted(model: &str, n: u32) -> Job {
    let input = serde_json::json!({ "name": "n", "datatype": "FP32", "shape": [1], "data": [n] });
    job(model, serde_json::json!({ "inputs": [input] }).to_string()).no_cache()
}
