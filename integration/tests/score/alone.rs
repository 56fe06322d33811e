//! Without a server, the command brings its own, looks after it, and leaves nothing behind.

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result};
use inferq_integration::process::{child_of, signal};
use inferq_integration::{PATIENCE, models_folder};

use super::interrupted::{CHUNKS, Pair, SLOWLY, TIMES, begin, ended};
use super::{finish, program, rows, succeed, table};

fn alone(input: &Path, output: &Path, more: &[&str]) -> Result<Command> {
    let mut command = program()?;
    command
        .args(["score", "--model", "digits", "--models"])
        .arg(models_folder())
        .arg("--in")
        .arg(input)
        .arg("--out")
        .arg(output)
        .args(more)
        .env_remove("INFERQ_NATS");
    Ok(command)
}

/// A slow run that has kept something.
async fn slow(input: &Path, output: &Path) -> Result<Child> {
    let more = [&CHUNKS[..], &SLOWLY].concat();
    begin(alone(input, output, &more)?, output, 1).await
}

#[tokio::test]
async fn a_private_stack_scores_and_is_gone_afterwards() -> Result<()> {
    let home = tempfile::tempdir()?;
    let (input, output) = (home.path().join("rows.csv"), home.path().join("out.csv"));
    let images = table(&input, 1)?;
    let temporary = home.path().join("tmp");
    std::fs::create_dir(&temporary)?;
    let mut command = alone(&input, &output, &[])?;
    command.env("TMPDIR", &temporary);
    succeed(command).await?;
    assert_eq!(rows(&output)?.1.len(), images.len());
    assert_eq!(std::fs::read_dir(&temporary)?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn a_private_worker_that_is_killed_is_started_again_and_a_private_server_ends_the_run()
-> Result<()> {
    let pair = Pair::new()?;
    succeed(alone(&pair.input, &pair.calm, &CHUNKS)?).await?;
    let child = slow(&pair.input, &pair.harried).await?;
    let first = child_of(child.id(), "inferq-worker")?.context("it has a worker")?;
    signal(first, "-KILL")?;
    let another = async {
        while child_of(child.id(), "inferq-worker")?.is_none_or(|worker| worker == first) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    let came = tokio::time::timeout(PATIENCE, another).await;
    came.context("no other worker has come")??;
    let server = child_of(child.id(), "nats-server")?.context("it has a server")?;
    signal(server, "-KILL")?;
    let (code, said) = ended(child).await?;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("worker-1 ended") && said.contains("starts again"),
        "{said}"
    );
    assert!(
        said.contains("nats-server ended") && said.contains("--resume"),
        "{said}"
    );
    let more = [&CHUNKS[..], &["--resume"]].concat();
    succeed(alone(&pair.input, &pair.harried, &more)?).await?;
    pair.compare()?;
    Ok(())
}

#[tokio::test]
async fn rows_may_come_from_standard_input_and_go_to_standard_output() -> Result<()> {
    let mut command = program()?;
    command.args([
        "score",
        "--model",
        "digits",
        "--in",
        "-",
        "--in-format",
        "jsonl",
    ]);
    command
        .args(["--out", "-", "--outputs", "label", "--models"])
        .arg(models_folder());
    command.env_remove("INFERQ_NATS");
    let image = &inferq_integration::digits::held_out()?[0];
    let line = serde_json::to_string(&image.pixels)?;
    let fed = tokio::task::spawn_blocking(move || -> Result<_> {
        use std::io::Write;
        use std::process::Stdio;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut input = child.stdin.take().expect("it is piped");
        for _ in 0..3 {
            writeln!(input, "{line}")?;
        }
        drop(input);
        Ok(child.wait_with_output()?)
    });
    let output = fed.await??;
    let said = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{said}");
    let label = image.label;
    let expected = format!("label\n{label}\n{label}\n{label}\n");
    assert_eq!(String::from_utf8(output.stdout)?, expected);
    Ok(())
}

#[tokio::test]
async fn without_workers_anywhere_the_two_ways_to_get_some_are_named() -> Result<()> {
    let mut command = program()?;
    command.args([
        "score", "--model", "digits", "--in", "rows.csv", "--out", "out.csv",
    ]);
    command
        .env_remove("INFERQ_NATS")
        .env_remove("INFERQ_MODELS");
    let (code, said) = finish(command).await?;
    assert_eq!(code, Some(1));
    assert!(
        said.contains("--models") && said.contains("--nats"),
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn a_run_whose_last_private_worker_was_asked_to_end_says_so() -> Result<()> {
    let home = tempfile::tempdir()?;
    let (input, output) = (home.path().join("rows.csv"), home.path().join("out.csv"));
    table(&input, TIMES)?;
    let child = slow(&input, &output).await?;
    let worker = child_of(child.id(), "inferq-worker")?.context("it has a worker")?;
    signal(worker, "-TERM")?;
    let (code, said) = ended(child).await?;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("no worker is left") && said.contains("--resume"),
        "{said}"
    );
    Ok(())
}
