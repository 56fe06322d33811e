//! Cores that have something else to do.
//!
//! Where all cores are busy it is the kernel that decides when a job goes on, each of the eight times that it passes
//! from one process to the next. What that costs has nothing to do with us, and is measured by itself.

use std::hint::black_box;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};

/// A process for each core that only counts; dropping them ends them.
pub(crate) fn start() -> Result<Vec<Child>> {
    let cores = std::thread::available_parallelism()?.get();
    let program = std::env::current_exe()?;
    let one = |_| {
        let mut command = Command::new(&program);
        command.arg("--count").kill_on_drop(true);
        command.spawn().context("a process cannot be started")
    };
    (0..cores).map(one).collect()
}

/// Counts until it is killed.
pub(crate) fn count() -> ! {
    let mut number = 0_u64;
    loop {
        number = black_box(number.wrapping_add(1));
    }
}
