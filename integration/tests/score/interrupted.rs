//! Runs that take long enough to be interrupted, and the tables they are held against.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use inferq_integration::PATIENCE;
use inferq_integration::process::signal;

use super::{beside, table};

/// Small chunks, so that a run has many of them and can be interrupted anywhere.
pub(crate) const CHUNKS: [&str; 4] = ["--keep", "id", "--chunk-rows", "4"];
/// One executor's time is shared, so that a run takes long enough to be interrupted.
pub(crate) const SLOWLY: [&str; 2] = ["--max-share", "0.004"];

/// How often the held-out digits are scored: 1 800 chunks of some milliseconds each, so that a run is still at
/// it when it has kept something for the third time.
pub(crate) const TIMES: usize = 12;

/// Begins a run, and returns when it has kept so many parts of its output.
pub(crate) async fn begin(mut command: Command, output: &Path, parts: usize) -> Result<Child> {
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    has_kept(output, &mut child, parts).await?;
    Ok(child)
}

async fn has_kept(output: &Path, child: &mut Child, parts: usize) -> Result<()> {
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

/// Waits for its end: its exit code and what it said.
pub(crate) async fn ended(child: Child) -> Result<(Option<i32>, String)> {
    let pid = child.id();
    let mut waiting = tokio::task::spawn_blocking(|| child.wait_with_output());
    let output = match tokio::time::timeout(PATIENCE, &mut waiting).await {
        Ok(output) => output??,
        Err(_) => {
            signal(pid, "-KILL")?;
            anyhow::bail!("it does not end, and says {:?}", waiting.await??);
        }
    };
    Ok((output.status.code(), String::from_utf8(output.stderr)?))
}

/// A table, and what two runs make of it, one undisturbed and one not.
pub(crate) struct Pair {
    _home: tempfile::TempDir,
    pub(crate) input: PathBuf,
    pub(crate) calm: PathBuf,
    pub(crate) harried: PathBuf,
}

impl Pair {
    pub(crate) fn new() -> Result<Self> {
        let home = tempfile::tempdir()?;
        let file = |name| home.path().join(name);
        let (input, calm, harried) = (file("rows.csv"), file("calm.csv"), file("harried.csv"));
        table(&input, TIMES)?;
        Ok(Self {
            _home: home,
            input,
            calm,
            harried,
        })
    }

    /// An error if they are not the same, byte by byte.
    pub(crate) fn compare(&self) -> Result<()> {
        let alike = fs::read(&self.calm)? == fs::read(&self.harried)?;
        ensure!(alike, "the output differs");
        Ok(())
    }
}
