//! What lies in a folder of models: `<name>/<version>/model.onnx`, and whatever does not fit that.
//!
//! Only looks; loads and remembers nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use inferq_schemas::identity::Digest;
use inferq_schemas::subjects::ModelName;

use crate::config::ServeFilter;

/// The file that makes a folder a version.
pub(crate) const MODEL_FILE: &str = "model.onnx";

/// The file with settings, of a version or of all versions of a model.
pub(super) const SETTINGS_FILE: &str = "model.toml";

/// The name under which a model's defaults belong to each of its versions.
const DEFAULTS: &str = "../model.toml";

/// Folders inside a version are followed this deep; deeper ones are a loop of links.
const MAX_DEPTH: usize = 8;

/// Which version of which model.
pub(super) type VersionId = (ModelName, u64);

/// What was found at one look.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Versions that have a model file.
    pub(super) versions: BTreeMap<VersionId, Files>,
    /// What looks like a mistake, each with what to do about it.
    pub(super) oddities: Vec<String>,
}

/// All files that determine a version's answers, by their names relative to its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    folder: PathBuf,
    stamps: BTreeMap<String, Stamp>,
}

/// What changes when a file is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: SystemTime,
}

/// Looks at a folder of models.
///
/// # Errors
/// If the folder itself cannot be read; what is wrong further down is an oddity.
pub(super) fn list(models: &Path, serve: &ServeFilter) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for folder in subfolders(models)? {
        let text = file_name(&folder);
        match ModelName::new(&text) {
            Ok(name) if serve.serves(&name) => listing.add_model(&name, &folder),
            Ok(_) => {}
            Err(_) => listing.oddities.push(format!(
                "`{}` is not served: a model's name is 1 to 64 of the characters a-z 0-9 _ -; rename the folder",
                folder.display()
            )),
        }
    }
    Ok(listing)
}

impl Listing {
    fn add_model(&mut self, name: &ModelName, folder: &Path) {
        match subfolders(folder) {
            Ok(versions) => {
                for version in &versions {
                    self.add_version(name, version);
                }
                if folder.join(MODEL_FILE).is_file() {
                    let (file, place) =
                        (folder.join(MODEL_FILE), folder.join("1").join(MODEL_FILE));
                    let (file, place) = (file.display(), place.display());
                    self.oddities.push(format!(
                        "`{file}` is not served: move it into a version, such as `{place}`"
                    ));
                }
            }
            Err(error) => self
                .oddities
                .push(format!("cannot read `{}`: {error}", folder.display())),
        }
    }

    fn add_version(&mut self, name: &ModelName, folder: &Path) {
        let has_model = folder.join(MODEL_FILE).is_file();
        match (version_number(&file_name(folder)), has_model) {
            (Some(number), true) => match Files::of(folder) {
                Ok(files) => {
                    self.versions.insert((name.clone(), number), files);
                }
                Err(error) => self.oddities.push(format!("cannot read `{}`: {error}", folder.display())),
            },
            (Some(_), false) => self.oddities.push(format!(
                "`{}` is not served: it has no {MODEL_FILE}; name the model's file so",
                folder.display()
            )),
            (None, true) => self.oddities.push(format!(
                "`{}` is not served: a version is a whole number from 1, without leading zeros; rename the folder",
                folder.display()
            )),
            // Folders beside the versions may hold anything else.
            (None, false) => {}
        }
    }
}

impl Files {
    /// The files of the version in `folder`, and its model's defaults beside it.
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let mut stamps = BTreeMap::new();
        collect(folder, "", 0, &mut stamps)?;
        if let Ok(metadata) = fs::metadata(folder.join(DEFAULTS)) {
            stamps.insert(DEFAULTS.to_owned(), Stamp::of(&metadata)?);
        }
        Ok(Self {
            folder: folder.to_owned(),
            stamps,
        })
    }

    /// The folder of the version.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether no file was written to at or after `moment`.
    pub(super) fn are_older_than(&self, moment: SystemTime) -> bool {
        self.stamps.values().all(|stamp| stamp.modified < moment)
    }

    /// Texts of the settings files there are, defaults first, each with the name people know it by.
    pub(super) fn settings(&self) -> io::Result<Vec<(String, String)>> {
        let known_as = |name: &str| match name {
            DEFAULTS => self
                .folder
                .parent()
                .unwrap_or(&self.folder)
                .join(SETTINGS_FILE),
            _ => self.folder.join(name),
        };
        [DEFAULTS, SETTINGS_FILE]
            .into_iter()
            .filter(|name| self.stamps.contains_key(*name))
            .map(|name| {
                Ok((
                    known_as(name).display().to_string(),
                    fs::read_to_string(self.folder.join(name))?,
                ))
            })
            .collect()
    }

    /// BLAKE3 over the names and contents of all files, in the order of their names.
    pub(super) fn digest(&self) -> io::Result<Digest> {
        let mut hasher = blake3::Hasher::new();
        for name in self.stamps.keys() {
            let content = file_hash(&self.folder.join(name))?;
            // Both parts have a length of their own, so no two sets of files hash alike.
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(content.as_bytes());
        }
        Ok(Digest::from_bytes(*hasher.finalize().as_bytes()))
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> io::Result<Self> {
        Ok(Self {
            bytes: metadata.len(),
            modified: metadata.modified()?,
        })
    }
}

fn file_hash(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(path)?)?;
    Ok(hasher.finalize())
}

/// A version's number: `1`, `2`, ... and no other spelling of it, so that two folders are never one version.
pub(crate) fn version_number(name: &str) -> Option<u64> {
    let number: u64 = name.parse().ok()?;
    (number > 0 && number.to_string() == name).then_some(number)
}

/// All files below `folder`, hidden ones left out: editors, copiers and volume mounts keep their own there.
fn collect(
    folder: &Path,
    prefix: &str,
    depth: usize,
    stamps: &mut BTreeMap<String, Stamp>,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!(
            "`{}` is deeper than {MAX_DEPTH} folders",
            folder.display()
        )));
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = file_name(&path);
        if name.starts_with('.') {
            continue;
        }
        let relative = format!("{prefix}{name}");
        // Follows links: a mounted volume consists of them.
        let metadata = fs::metadata(&path)?;
        if metadata.is_dir() {
            collect(&path, &format!("{relative}/"), depth + 1, stamps)?;
        } else {
            stamps.insert(relative, Stamp::of(&metadata)?);
        }
    }
    Ok(())
}

/// The folders in `folder`, hidden ones left out, in the order of their names.
pub(crate) fn subfolders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !file_name(&path).starts_with('.') {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// The last part of a path, as text.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests;
