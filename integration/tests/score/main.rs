//! `inferq score`: tables through a model, in order, whoever is killed meanwhile.

mod alone;
mod answers;
mod bad_rows;
mod interrupted;
mod resume;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use inferq::stack::{Stack, worker_program};
use inferq_integration::digits::{self, Digit, PIXELS};

/// Writes the held-out digits `times` times over, with a number for each row.
pub(crate) fn table(path: &Path, times: usize) -> Result<Vec<Digit>> {
    let held_out = digits::held_out()?;
    let mut file = csv::Writer::from_path(path)?;
    let pixels = (0..PIXELS).map(|pixel| format!("pixel_{pixel}"));
    file.write_record(std::iter::once("id".to_owned()).chain(pixels))?;
    let mut rows = Vec::new();
    for digit in std::iter::repeat_n(&held_out, times).flatten() {
        let mut pixels = digit.pixels.clone();
        // No two rows are equal, so that no answer can stand in for another.
        pixels[0] = rows.len() as f32 / 1_024.0;
        let cells = pixels.iter().map(f32::to_string);
        file.write_record(std::iter::once(rows.len().to_string()).chain(cells))?;
        rows.push(Digit {
            pixels,
            label: digit.label,
        });
    }
    file.flush()?;
    Ok(rows)
}

/// `inferq score` for the digits on the server of `stack`, not yet started.
pub(crate) fn score(stack: &Stack, input: &Path, output: &Path, more: &[&str]) -> Result<Command> {
    let mut command = program()?;
    command
        .args(["score", "--model", "digits", "--nats", stack.nats_url()])
        .arg("--in")
        .arg(input)
        .arg("--out")
        .arg(output)
        .args(more);
    Ok(command)
}

pub(crate) fn program() -> Result<Command> {
    let mut command = Command::new(worker_program(None)?.with_file_name("inferq"));
    command.env_remove("RUST_LOG");
    Ok(command)
}

/// Runs it to its end; its exit code and what it said on standard error.
pub(crate) async fn finish(command: Command) -> Result<(Option<i32>, String)> {
    let run = tokio::task::spawn_blocking(|| inferq_integration::finish(command));
    let output = run.await??;
    Ok((output.status.code(), String::from_utf8(output.stderr)?))
}

/// Runs it to its end, which must be a good one.
pub(crate) async fn succeed(command: Command) -> Result<()> {
    let (code, said) = finish(command).await?;
    anyhow::ensure!(code == Some(0), "exit code {code:?}: {said}");
    Ok(())
}

/// `path` with more at the end of its name.
pub(crate) fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

/// The rows of a CSV file, without its heading.
pub(crate) fn rows(path: &Path) -> Result<(Vec<String>, Vec<Vec<String>>)> {
    let mut file = csv::Reader::from_path(path).with_context(|| format!("{}", path.display()))?;
    let names = file.headers()?.iter().map(str::to_owned).collect();
    let rows = file.records().map(|row| {
        let row = row?;
        Ok(row.iter().map(str::to_owned).collect())
    });
    Ok((names, rows.collect::<Result<_>>()?))
}
