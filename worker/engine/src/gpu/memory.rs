//! The folder in which one process leaves for the next what it found out about a card.
//!
//! A file that is not there, or makes no sense, costs no more than finding it out again.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::adapter::AdapterInfo;

/// The file of `what`, which must have a name of its own for each card, driver and version of ours.
pub(crate) fn path(folder: &Path, card: &AdapterInfo, what: &str, ending: &str) -> PathBuf {
    let mut all = blake3::Hasher::new();
    all.update(env!("CARGO_PKG_VERSION").as_bytes());
    all.update(format!(" {card:?} {what} ").as_bytes());
    for kernel in inferq_shaders::all_kernels() {
        all.update(kernel.source.as_bytes());
    }
    folder.join(format!("{}.{ending}", all.finalize().to_hex()))
}

/// Writes all of `content` or nothing, whoever else writes the same file. Folders are made.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut own = tempfile::NamedTempFile::new_in(folder)?;
    own.write_all(content)?;
    own.persist(path)?;
    Ok(())
}
