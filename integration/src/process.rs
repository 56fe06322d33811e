//! Processes that others have started.

use std::process::Command;

use anyhow::{Result, ensure};

/// The first child of `parent` whose program is `name`, if it has one that still runs.
///
/// # Errors
/// If there is no `/proc`.
pub fn child_of(parent: u32, name: &str) -> Result<Option<u32>> {
    let parent = parent.to_string();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let pid = path.file_name().and_then(|name| name.to_str());
        let Some(pid) = pid.and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that ends meanwhile is none.
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let field = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line.map(str::trim)
        };
        let runs = !field("State:").is_some_and(|state| state.starts_with('Z'));
        if runs && field("PPid:") == Some(&parent) && field("Name:") == Some(name) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// Sends `signal`, such as `-KILL`.
///
/// # Errors
/// If the process is there no more.
pub fn signal(pid: u32, signal: &str) -> Result<()> {
    let sent = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status()?;
    ensure!(sent.success(), "{signal} could not be sent to {pid}");
    Ok(())
}
