//! The memory of a process, as the kernel counts it.

use anyhow::{Context, Result};

/// Bytes that it has in memory now.
///
/// # Errors
/// If there is no such process.
pub fn resident(pid: u32) -> Result<usize> {
    status(pid, "VmRSS:")
}

/// The most bytes that it has ever had in memory.
///
/// # Errors
/// If there is no such process.
pub fn peak(pid: u32) -> Result<usize> {
    status(pid, "VmHWM:")
}

fn status(pid: u32, field: &str) -> Result<usize> {
    let file = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&file).with_context(|| file.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib = kib.with_context(|| format!("{file} has no {field}"))?;
    Ok(kib.parse::<usize>()? * 1024)
}
