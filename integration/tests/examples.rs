//! The examples of the client library, run as a newcomer would, beside a stack.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use inferq::stack::Stack;
use inferq_integration::{finish, stack};

async fn run(stack: &Stack, example: &str) -> Result<String> {
    let worker = inferq::stack::worker_program(None)?;
    let programs = worker.parent().context("the folder of the programs")?;
    let mut command = Command::new(programs.join("examples").join(example));
    command.env("INFERQ_NATS", stack.nats_url());
    let output = tokio::task::spawn_blocking(|| finish(command)).await??;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test]
async fn the_first_job_is_queued_and_answered() -> Result<()> {
    let stack = stack(1).await?;
    let printed = run(&stack, "first_job").await?;
    assert!(printed.contains("in INFER_JOBS"), "{printed}");
    assert!(printed.contains("ok: {\"predictions\":"), "{printed}");
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn many_jobs_are_all_answered() -> Result<()> {
    let stack = stack(1).await?;
    let printed = run(&stack, "many_jobs").await?;
    assert_eq!(printed.trim(), "1000 of 1000 jobs were answered");
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn each_error_says_what_it_is() -> Result<()> {
    let stack = stack(1).await?;
    let printed = run(&stack, "errors").await?;
    let lines: Vec<&str> = printed.lines().collect();
    let expected = [
        "answered: true",
        "400: instances[0]: 3 values, the model's input `input` takes 64",
        "404: no model `digit`; did you mean `digits`?",
        "queued twice, the same job: true",
        "409: job id",
        "429 means: try again later",
    ];
    assert_eq!(lines.len(), expected.len(), "{printed}");
    for (line, start) in lines.iter().zip(expected) {
        assert!(
            line.starts_with(start),
            "{line}\ndoes not start with\n{start}"
        );
    }
    Ok(stack.stop().await?)
}
