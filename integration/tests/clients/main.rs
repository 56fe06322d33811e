//! Clients that others wrote, in their own languages, against real servers and workers.
//!
//! Which of them can be run depends on what this machine has installed, so this program has a
//! harness of its own: what is missing is counted as ignored, with the reason in brackets before
//! the test's name. `integration/clients/setup.sh`, which `make test` calls, prepares all of it.

mod command_line;
mod pages;
mod programs;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use inferq::stack::Stack;
use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let shared = Arc::new(Shared::default());
    let mut trials = programs::trials(&shared);
    trials.extend(command_line::trials(&shared));
    trials.extend(pages::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    match shared.stop() {
        Ok(()) => conclusion.exit_code(),
        Err(error) => {
            eprintln!("the stack did not stop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One stack for all tests of this program, started by the first that needs it.
#[derive(Default)]
struct Shared(Mutex<Option<(Runtime, Stack)>>);

impl Shared {
    /// Where its nats-server listens.
    fn nats_url(&self) -> Result<String> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            let runtime = Runtime::new()?;
            let stack = runtime.block_on(inferq_integration::stack(1))?;
            *running = Some((runtime, stack));
        }
        let url = running
            .as_ref()
            .map(|(_, stack)| stack.nats_url().to_owned());
        Ok(url.unwrap_or_default())
    }

    fn stop(&self) -> Result<()> {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match running {
            Some((runtime, stack)) => Ok(runtime.block_on(stack.stop())?),
            None => Ok(()),
        }
    }
}

/// A test that needs `tool`: ignored, with the reason, where setup could not prepare that.
fn needing(tool: &str, name: String, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let trial = trial(name, test);
    match why_not(tool) {
        None => trial,
        Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
    }
}

fn trial(name: String, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| format!("{error:#}").into())
    })
}

/// Why `tool` cannot be used here, as `setup.sh` found.
fn why_not(tool: &str) -> Option<String> {
    let reason = std::fs::read_to_string(clients().join(".missing").join(tool));
    if let Ok(reason) = reason {
        return Some(reason.trim().to_owned());
    }
    let prepared = match tool {
        "python" => clients().join("python/.venv").exists(),
        "javascript" => clients().join("javascript/node_modules").exists(),
        "go" => clients().join("go/bin").exists(),
        _ => inferq_integration::on_path(tool).is_some(),
    };
    (!prepared).then(|| format!("{tool}: run integration/clients/setup.sh"))
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
