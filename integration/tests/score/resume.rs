//! A run that was interrupted goes on where it was, and nobody can tell from its output.

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use anyhow::Result;
use inferq::stack::Stack;
use inferq_integration::process::signal;
use inferq_integration::stack;

use super::interrupted::{CHUNKS, Pair, SLOWLY, TIMES, begin, ended};
use super::{finish, score, succeed, table};

/// A slow run that goes on, and has kept so many parts.
async fn resume(stack: &Stack, input: &Path, output: &Path, parts: usize) -> Result<Child> {
    let more = [&CHUNKS[..], &SLOWLY, &["--resume"]].concat();
    begin(score(stack, input, output, &more)?, output, parts).await
}

#[tokio::test]
async fn a_killed_run_is_resumed_and_its_output_is_that_of_an_undisturbed_one() -> Result<()> {
    let pair = Pair::new()?;
    let stack = stack(2).await?;
    succeed(score(&stack, &pair.input, &pair.calm, &CHUNKS)?).await?;
    for parts in [1, 2, 3] {
        let mut child = resume(&stack, &pair.input, &pair.harried, parts).await?;
        child.kill()?;
        child.wait()?;
    }
    // A worker is killed as well, with whatever it holds.
    stack.workers()[0].kill();
    let more = [&CHUNKS[..], &["--resume"]].concat();
    succeed(score(&stack, &pair.input, &pair.harried, &more)?).await?;
    pair.compare()?;
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_server_that_crashes_in_mid_run_is_waited_for() -> Result<()> {
    let pair = Pair::new()?;
    let stack = stack(1).await?;
    succeed(score(&stack, &pair.input, &pair.calm, &CHUNKS)?).await?;
    let child = resume(&stack, &pair.input, &pair.harried, 1).await?;
    stack.nats().kill().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stack.nats().restart().await?;
    let (code, said) = ended(child).await?;
    assert_eq!(code, Some(0), "{said}");
    pair.compare()?;
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn an_interrupted_run_keeps_what_is_in_flight_and_says_how_to_go_on() -> Result<()> {
    let home = tempfile::tempdir()?;
    let (input, output) = (home.path().join("rows.csv"), home.path().join("out.csv"));
    table(&input, TIMES)?;
    let stack = stack(1).await?;
    let more = [&CHUNKS[..], &SLOWLY].concat();
    let child = begin(score(&stack, &input, &output, &more)?, &output, 1).await?;
    signal(child.id(), "-INT")?;
    let (code, said) = ended(child).await?;
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("--resume"), "{said}");
    assert!(!output.exists());
    // Begun again without a word, it would forget what is there.
    let (code, said) = finish(score(&stack, &input, &output, &CHUNKS)?).await?;
    assert_eq!(code, Some(1));
    assert!(
        said.contains("--resume") && said.contains("--restart"),
        "{said}"
    );
    let more = [&CHUNKS[..], &["--resume"]].concat();
    succeed(score(&stack, &input, &output, &more)?).await?;
    assert_eq!(super::rows(&output)?.1.len(), 600 * TIMES);
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_run_over_another_input_is_refused_with_what_differs() -> Result<()> {
    let home = tempfile::tempdir()?;
    let (input, output) = (home.path().join("rows.csv"), home.path().join("out.csv"));
    table(&input, TIMES)?;
    let stack = stack(1).await?;
    let mut child = resume(&stack, &input, &output, 1).await?;
    child.kill()?;
    child.wait()?;
    table(&input, TIMES + 1)?;
    let more = [&CHUNKS[..], &["--resume"]].concat();
    let (code, said) = finish(score(&stack, &input, &output, &more)?).await?;
    assert_eq!(code, Some(1));
    assert!(said.contains("input file 1 bytes was"), "{said}");
    assert!(said.contains("--restart"), "{said}");
    let more = [&CHUNKS[..], &["--restart"]].concat();
    succeed(score(&stack, &input, &output, &more)?).await?;
    assert_eq!(super::rows(&output)?.1.len(), 600 * (TIMES + 1));
    Ok(stack.stop().await?)
}
