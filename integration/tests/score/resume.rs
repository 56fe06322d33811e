//! A run that was interrupted goes on where it was, and nobody can tell from its output.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use inferq::stack::Stack;
use inferq_integration::process::signal;
use inferq_integration::{PATIENCE, stack};

use super::{beside, finish, score, succeed, table};

/// Small chunks, so that a run has many of them and can be interrupted anywhere.
pub(super) const CHUNKS: [&str; 4] = ["--keep", "id", "--chunk-rows", "4"];
/// One executor's time is shared, so that a run takes long enough to be interrupted.
pub(super) const SLOWLY: [&str; 2] = ["--max-share", "0.004"];

/// How often the held-out digits are scored: 1 800 chunks of some milliseconds each, so that a run is still at
/// it when it has kept something for the third time.
pub(super) const TIMES: usize = 12;

/// Waits until a run has kept something.
pub(super) async fn has_kept(output: &Path, child: &mut Child, parts: usize) -> Result<()> {
    let folder = beside(output, ".run");
    let kept = async {
        loop {
            ensure!(child.try_wait()?.is_none(), "it ended too soon");
            let files = fs::read_dir(&folder).into_iter().flatten();
            let names = files.flatten().map(|file| file.file_name());
            let found = names.filter(|name| name.to_string_lossy().ends_with(".arrow"));
            if found.count() >= parts {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, kept)
        .await
        .context("nothing is kept")?
}

async fn begin(stack: &Stack, input: &Path, output: &Path, parts: usize) -> Result<Child> {
    let more = [&CHUNKS[..], &SLOWLY, &["--resume"]].concat();
    let mut command = score(stack, input, output, &more)?;
    command.stderr(Stdio::null());
    let mut child = command.spawn()?;
    has_kept(output, &mut child, parts).await?;
    Ok(child)
}

#[tokio::test]
async fn a_killed_run_is_resumed_and_its_output_is_that_of_an_undisturbed_one() -> Result<()> {
    let home = tempfile::tempdir()?;
    let input = home.path().join("rows.csv");
    let (calm, harried) = (
        home.path().join("calm.csv"),
        home.path().join("harried.csv"),
    );
    table(&input, TIMES)?;
    let stack = stack(2).await?;
    succeed(score(&stack, &input, &calm, &CHUNKS)?).await?;
    for parts in [1, 2, 3] {
        let mut child = begin(&stack, &input, &harried, parts).await?;
        child.kill()?;
        child.wait()?;
    }
    // A worker is killed as well, with whatever it holds.
    stack.workers()[0].kill();
    let more = [&CHUNKS[..], &["--resume"]].concat();
    succeed(score(&stack, &input, &harried, &more)?).await?;
    assert!(
        fs::read(&calm)? == fs::read(&harried)?,
        "the output differs"
    );
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_server_that_crashes_in_mid_run_is_waited_for() -> Result<()> {
    let home = tempfile::tempdir()?;
    let input = home.path().join("rows.csv");
    let (calm, harried) = (
        home.path().join("calm.csv"),
        home.path().join("harried.csv"),
    );
    table(&input, TIMES)?;
    let stack = stack(1).await?;
    succeed(score(&stack, &input, &calm, &CHUNKS)?).await?;
    let mut child = begin(&stack, &input, &harried, 1).await?;
    stack.nats().kill().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stack.nats().restart().await?;
    let ended = tokio::task::spawn_blocking(move || child.wait()).await??;
    assert!(ended.success(), "{ended}");
    assert!(
        fs::read(&calm)? == fs::read(&harried)?,
        "the output differs"
    );
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn an_interrupted_run_keeps_what_is_in_flight_and_says_how_to_go_on() -> Result<()> {
    let home = tempfile::tempdir()?;
    let (input, output) = (home.path().join("rows.csv"), home.path().join("out.csv"));
    table(&input, TIMES)?;
    let stack = stack(1).await?;
    let more = [&CHUNKS[..], &SLOWLY].concat();
    let mut command = score(&stack, &input, &output, &more)?;
    command.stderr(Stdio::piped());
    let mut child = command.spawn()?;
    has_kept(&output, &mut child, 1).await?;
    signal(child.id(), "-INT")?;
    let ended = tokio::task::spawn_blocking(|| child.wait_with_output()).await??;
    let said = String::from_utf8(ended.stderr)?;
    assert_eq!(ended.status.code(), Some(130), "{said}");
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
    let mut child = begin(&stack, &input, &output, 1).await?;
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
