//! Without a server, the command brings its own, and leaves nothing behind.

use anyhow::Result;
use inferq_integration::models_folder;

use super::{finish, program, rows, succeed, table};

#[tokio::test]
async fn a_private_stack_scores_and_is_gone_afterwards() -> Result<()> {
    let home = tempfile::tempdir()?;
    let (input, output) = (home.path().join("rows.csv"), home.path().join("out.csv"));
    let images = table(&input, 1)?;
    let temporary = home.path().join("tmp");
    std::fs::create_dir(&temporary)?;
    let mut command = program()?;
    command.args(["score", "--model", "digits", "--models"]);
    command
        .arg(models_folder())
        .arg("--in")
        .arg(&input)
        .arg("--out")
        .arg(&output);
    command.env("TMPDIR", &temporary).env_remove("INFERQ_NATS");
    succeed(command).await?;
    assert_eq!(rows(&output)?.1.len(), images.len());
    assert_eq!(std::fs::read_dir(&temporary)?.count(), 0);
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
