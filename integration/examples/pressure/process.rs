//! CPU time and memory of a process, as the kernel counts them.

use std::time::Duration;

use anyhow::{Context, Result};
use inferq_integration::memory;

/// What `/proc` counts time in, in every Linux of today.
const TICKS_PER_SECOND: u32 = 100;

/// User and system time that `pid` has had.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in brackets, which may have spaces.
    let rest = stat.rsplit_once(") ").context("no name")?.1;
    let ticks = rest.split(' ').skip(11).take(2).map(str::parse::<u32>);
    let ticks = ticks.sum::<Result<u32, _>>()?;
    Ok(Duration::from_secs(1) * ticks / TICKS_PER_SECOND)
}

/// Its memory now, in MB.
pub(crate) fn megabytes(pid: u32) -> Result<f64> {
    Ok(memory::resident(pid)? as f64 / 1e6)
}
