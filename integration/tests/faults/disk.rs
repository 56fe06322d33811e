//! The disk of nats-server is full.
//!
//! Invariant: whoever submits is refused with a typed error, and every job that was accepted before ends
//! once and rightly when there is room again.
//!
//! The disk is a real one of a few megabytes, in memory (tmpfs), filled with a file of ours: what the
//! server meets is ENOSPC. Every version that we support then switches JetStream off until it is started
//! again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use inferq::stack::{DataFolder, StackOptions};
use inferq::{Client, SubmitError};
use inferq_integration::count::Beside;
use inferq_integration::{PATIENCE, redeliver_after, start};

use crate::check::Watch;
use crate::load::{Load, slow};

/// Enough for some thousand jobs with their outcomes.
const DISK_MIB: usize = 32;
/// Most jobs that fit into what is left beside the ballast.
const MOST: usize = 5_000;

/// A small disk, gone when dropped.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn mount() -> Result<Self> {
        let disk = Self {
            folder: tempfile::tempdir()?,
        };
        let size = format!("size={DISK_MIB}m");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "inferq"])
            .arg(disk.path()))?;
        Ok(disk)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Leaves `mib` of the disk to others.
    fn fill(&self, mib: usize) -> Result<()> {
        let free = run(Command::new("stat")
            .args(["--file-system", "--format", "%a %S"])
            .arg(self.path()))?;
        let (blocks, size) = free.trim().split_once(' ').context("two numbers")?;
        let free = blocks.parse::<usize>()? * size.parse::<usize>()?;
        let ballast = free.checked_sub(mib << 20).context("it is full")?;
        std::fs::write(self.ballast(), vec![0; ballast])?;
        Ok(())
    }

    fn make_room(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Detached, so that a server that still ends does not keep it.
        let unmounted = run(Command::new("umount").arg("--lazy").arg(self.path()));
        if let Err(error) = unmounted {
            eprintln!("{error:#}");
        }
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let problem = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {problem}");
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts a small disk, which only root may"]
async fn a_full_disk_refuses_jobs_and_loses_none_that_it_took() -> Result<()> {
    let (load, disk) = (Load::new()?, Disk::mount()?);
    let stack = start(StackOptions {
        data: DataFolder::At(disk.path().join("data")),
        ..slow(2)
    })
    .await?;
    redeliver_after(stack.client(), "digits", Duration::from_secs(3)).await?;
    let watch = Watch::stack(&stack)?;
    let client = Client::builder()
        .submit_within(Duration::from_secs(3))
        .connect(stack.nats_url())
        .await?;
    client.run(load.job(0)).await?;
    disk.fill(1)?;
    let mut accepted = Vec::new();
    let refused = loop {
        ensure!(accepted.len() < MOST, "the disk is never full");
        match client.submit(load.job(accepted.len())).await {
            Ok(submitted) => accepted.push(submitted.id),
            Err(error) => break error,
        }
    };
    println!("after {} jobs: {refused}", accepted.len());
    ensure!(
        matches!(
            refused,
            SubmitError::Unconfirmed { .. } | SubmitError::NoStream { .. }
        ),
        "{refused:?}"
    );
    disk.make_room()?;
    stack.nats().stop().await;
    stack.nats().restart().await?;
    stack.wait_ready(PATIENCE).await?;
    let beside = Beside {
        outcomes: 1,
        letters: 0,
    };
    watch
        .ended_once_beside(stack.client(), &load, &accepted, beside)
        .await?;
    Ok(stack.stop().await?)
}
