//! Keeps the loaded models in step with a folder, looking at it once a second.
//!
//! A version is loaded once it is complete: two looks saw the same files. Loading happens on a thread of its own, one
//! version at a time, and a version that does not load disturbs no other.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use inferq_schemas::identity::Digest;
use inferq_schemas::subjects::ModelName;
use tracing::{error, info, warn};

use super::Models;
use super::layout::{self, Files, Listing, VersionId};
use super::load::{self, Loader, VersionError};
use crate::config::ServeFilter;
use crate::metrics::Metrics;

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// At the very first look a version counts as complete at once if nothing in it was written to for this long.
const QUIET: Duration = Duration::from_secs(3);

/// A folder of models and how to serve it.
pub struct FolderSource {
    /// The folder.
    pub folder: PathBuf,
    /// Which models of it are served.
    pub serve: ServeFilter,
    /// What makes a model of a file.
    pub loader: Loader,
    /// Where loaded models are counted.
    pub metrics: Metrics,
}

/// The watching thread; dropping this ends it after the version it may be loading.
pub struct FolderWatch {
    _stop: mpsc::Sender<()>,
}

impl FolderSource {
    /// Starts a thread that keeps `models` in step with the folder. Returns at once.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn watch(self, models: Models) -> std::io::Result<FolderWatch> {
        let (stop, stopped) = mpsc::channel();
        let mut keeper = Keeper {
            source: self,
            models,
            progress: Progress::default(),
            told: HashSet::new(),
        };
        std::thread::Builder::new()
            .name("models".to_owned())
            .spawn(move || {
                loop {
                    keeper.look();
                    match stopped.recv_timeout(LOOK_EVERY) {
                        Err(RecvTimeoutError::Timeout) => {}
                        Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            })?;
        Ok(FolderWatch { _stop: stop })
    }
}

/// What is known of the folder from earlier looks. Knows no clock and reads no file.
#[derive(Default)]
struct Progress {
    looked: bool,
    /// As the last look saw it.
    seen: BTreeMap<VersionId, Files>,
    /// Files that were tried, loaded or not.
    tried: BTreeMap<VersionId, (Files, Digest)>,
    /// Looks in a row that saw an oddity.
    oddities: BTreeMap<String, u32>,
}

/// What a look asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Steps {
    load: Vec<(VersionId, Files)>,
    unload: Vec<VersionId>,
    tell: Vec<String>,
}

impl Progress {
    /// What has changed, given what the folder looks like `now`.
    fn next(&mut self, listing: Listing, now: SystemTime) -> Steps {
        let mut steps = Steps::default();
        let quiet_since = now.checked_sub(QUIET).unwrap_or(SystemTime::UNIX_EPOCH);
        for (id, files) in &listing.versions {
            let complete = match self.seen.get(id) {
                Some(before) => before == files,
                None => !self.looked && files.are_older_than(quiet_since),
            };
            if complete && self.tried.get(id).is_none_or(|(tried, _)| tried != files) {
                steps.load.push((id.clone(), files.clone()));
            }
        }
        let gone = self
            .tried
            .keys()
            .filter(|id| !listing.versions.contains_key(id));
        steps.unload = gone.cloned().collect();
        for id in &steps.unload {
            self.tried.remove(id);
        }
        let looks = |oddity: String| {
            let before = self.oddities.get(&oddity).copied().unwrap_or(0);
            (oddity, before.saturating_add(1))
        };
        self.oddities = listing.oddities.into_iter().map(looks).collect();
        // A copy under way looks odd at first, so an oddity is told at its second look, and once.
        let told_now = self.oddities.iter().filter(|(_, looks)| **looks == 2);
        steps.tell = told_now.map(|(oddity, _)| oddity.clone()).collect();
        self.seen = listing.versions;
        self.looked = true;
        steps
    }
}

struct Keeper {
    source: FolderSource,
    models: Models,
    progress: Progress,
    /// Problems with reading that were told.
    told: HashSet<String>,
}

impl Keeper {
    fn look(&mut self) {
        let listing = match layout::list(&self.source.folder, &self.source.serve) {
            Ok(listing) => listing,
            Err(error) => {
                // An unmounted volume must not take the models away that are served from it.
                self.tell_once(format!("cannot read the models folder: {error}"));
                return;
            }
        };
        let steps = self.progress.next(listing, SystemTime::now());
        for oddity in steps.tell {
            warn!(problem = oddity, "found in the models folder");
        }
        for (model, number) in steps.unload {
            self.unload(&model, number);
        }
        for (id, files) in steps.load {
            self.load(id, files);
        }
    }

    fn load(&mut self, id: VersionId, files: Files) {
        let (model, number) = (&id.0, id.1);
        let digest = match files.digest() {
            Ok(digest) => digest,
            // A file vanished or cannot be read; the next look says more.
            Err(error) => {
                return self
                    .tell_once(format!("cannot read {}: {error}", files.folder().display()));
            }
        };
        let before = self
            .progress
            .tried
            .insert(id.clone(), (files.clone(), digest));
        if before.is_some_and(|(_, tried)| tried == digest) {
            return;
        }
        let started = Instant::now();
        match load::load_files((model, number), &files, digest, &self.source.loader) {
            Ok(version) => {
                let batching = version.batching.clone().err();
                let batching = batching.as_deref().unwrap_or("proven");
                info!(%model, version = number, took = ?started.elapsed(), batching, "model loaded");
                self.models.insert(version);
                self.report(model);
            }
            Err(VersionError::Changed) => {
                self.progress.tried.remove(&id);
            }
            Err(error) => self.failed(model, number, files.folder(), &error),
        }
    }

    fn failed(&self, model: &ModelName, number: u64, folder: &Path, error: &VersionError) {
        self.source.metrics.model_load_failed(model);
        let still = self
            .models
            .snapshot()
            .get(model)
            .is_some_and(|versions| versions.contains_key(&number));
        let next = if still {
            "the files loaded before are still served; mend these, they are tried again when they change"
        } else {
            "mend its files, they are tried again when they change"
        };
        let (folder, reason) = (folder.display(), error.full_text());
        error!(%model, version = number, %folder, reason, next, "model not loaded");
    }

    fn unload(&self, model: &ModelName, number: u64) {
        let loaded = self
            .models
            .snapshot()
            .get(model)
            .is_some_and(|versions| versions.contains_key(&number));
        if loaded {
            self.models.remove(model, number);
            self.report(model);
            info!(%model, version = number, "model unloaded, its files are gone");
        }
    }

    fn report(&self, model: &ModelName) {
        let snapshot = self.models.snapshot();
        let versions = snapshot.get(model);
        let bytes = versions.map_or(0, |versions| {
            versions
                .values()
                .map(|version| version.engine.memory_bytes())
                .sum()
        });
        self.source
            .metrics
            .model_loaded(model, versions.map_or(0, BTreeMap::len), bytes);
    }

    fn tell_once(&mut self, problem: String) {
        if self.told.insert(problem.clone()) {
            warn!(
                problem,
                "cannot read the models folder; looking again every second"
            );
        }
    }
}

#[cfg(test)]
mod tests;
