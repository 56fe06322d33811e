//! The command line `inferq`, run as a script would: nobody is at a terminal.

use std::process::Command;

use anyhow::{Context, Result};
use inferq::stack::{Stack, worker_program};
use serde_json::Value;

/// What a run of `inferq` printed, and whether it ended well.
#[derive(Debug, Clone)]
pub struct Printed {
    /// Whether its exit code was 0.
    pub well: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Printed {
    /// Each line of standard output as JSON.
    ///
    /// # Errors
    /// If one of them is not.
    pub fn lines(&self) -> Result<Vec<Value>> {
        let lines = self.out.lines();
        lines
            .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
            .collect()
    }
}

/// Runs `inferq` with `arguments`, which are parted by white space, against the server of `stack`.
///
/// # Errors
/// If it is not there, or does not end within [`crate::PATIENCE`].
pub async fn inferq(stack: &Stack, arguments: &str) -> Result<Printed> {
    let program = worker_program(None)?.with_file_name("inferq");
    let mut command = Command::new(program);
    command
        .args(["--nats", stack.nats_url()])
        .args(arguments.split_whitespace())
        .env_remove("RUST_LOG");
    let output = tokio::task::spawn_blocking(|| crate::finish(command)).await??;
    Ok(Printed {
        well: output.status.success(),
        out: String::from_utf8(output.stdout)?,
        err: String::from_utf8(output.stderr)?,
    })
}
