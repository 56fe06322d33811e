//! Cores that have something else to do.
//!
//! Where all cores are busy it is the kernel that decides when a job goes on, each of the eight times that it passes
//! from one process to the next. What that costs has nothing to do with us, and is measured by itself.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::process::{Child, Command};

/// A process for each core that only counts, for a time at most, whatever becomes of us; dropping them ends them.
pub(crate) fn start(most: Duration) -> Result<Vec<Child>> {
    let cores = std::thread::available_parallelism()?.get();
    let program = std::env::current_exe()?;
    let one = |_| {
        let mut command = Command::new(&program);
        let seconds = most.as_secs().to_string();
        command.args(["--count", &seconds]).kill_on_drop(true);
        command.spawn().context("a process cannot be started")
    };
    (0..cores).map(one).collect()
}

/// Counts until it is killed, or `seconds` are over.
pub(crate) fn count(seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        for number in 0..1_000_000_u32 {
            black_box(number);
        }
    }
}
