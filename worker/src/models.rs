//! The models this worker serves, and which version answers a job.
//!
//! The set is an immutable snapshot that is swapped whole: a stage that resolved a version keeps it for as long as it
//! needs it, whatever is loaded or unloaded meanwhile.

pub mod folder;
pub(crate) mod layout;
pub mod load;
pub mod pace;
pub mod settings;
pub mod specs;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use inferq_schemas::headers::VersionSelector;
use inferq_schemas::identity::Digest;
use inferq_schemas::registry::ServedModel;
use inferq_schemas::subjects::ModelName;
use inferq_schemas::tensor::TensorSpec;
use inferq_schemas::{ErrorCode, Failure, nearest};
use tokio::sync::watch;

use pace::Pace;
use settings::ModelSettings;

/// One loaded version of a model. Nothing of it changes but what is measured; changed files make a new one.
pub struct Version {
    /// Its model's name.
    pub model: ModelName,
    /// Its number, the name of its folder.
    pub number: u64,
    /// BLAKE3 over all its files: equal digests mean equal answers on equal devices.
    pub digest: Digest,
    /// What its `model.toml` says.
    pub settings: ModelSettings,
    /// Inputs in the model's order.
    pub inputs: Vec<TensorSpec>,
    /// Outputs in the model's order.
    pub outputs: Vec<TensorSpec>,
    /// The model itself.
    pub engine: Arc<dyn inferq_engine::Model>,
    /// `Ok` if rows of different jobs may share a forward pass, else why each job runs by itself.
    pub batching: Result<(), String>,
    /// Whether equal inputs may be answered from the cache.
    pub cacheable: bool,
    /// How long its forward passes take in this process.
    pub pace: Pace,
}

impl Version {
    /// Whether an answer that `device` gave, a numeric class, may be taken for one of this version's.
    pub fn accepts(&self, device: &str) -> bool {
        !self.settings.engine.deterministic || device == self.engine.numeric_class()
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Version({}/{}, {})",
            self.model, self.number, self.digest
        )
    }
}

/// The versions of all models that are loaded at one moment.
pub type Snapshot = BTreeMap<ModelName, BTreeMap<u64, Arc<Version>>>;

/// The loaded models; cloning shares them.
#[derive(Clone)]
pub struct Models(Arc<Shared>);

struct Shared {
    current: ArcSwap<Snapshot>,
    /// Held while a snapshot is replaced, so that two changes at once are both kept.
    changing: Mutex<()>,
    changes: watch::Sender<u64>,
}

impl Default for Models {
    fn default() -> Self {
        Self::new()
    }
}

impl Models {
    /// No models yet.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            current: ArcSwap::default(),
            changing: Mutex::new(()),
            changes: watch::Sender::new(0),
        }))
    }

    /// The version that answers a job for `model`; the highest number unless the job names one.
    ///
    /// # Errors
    /// 404, naming the nearest model or the versions there are.
    pub fn resolve(
        &self,
        model: &ModelName,
        selector: &VersionSelector,
    ) -> Result<Arc<Version>, Failure> {
        let snapshot = self.snapshot();
        let Some(versions) = snapshot.get(model) else {
            let names = snapshot.keys().map(ModelName::as_str);
            return Err(not_found(match nearest(model.as_str(), names) {
                Some(near) => format!("unknown model `{model}`; did you mean `{near}`?"),
                None => format!("unknown model `{model}`"),
            }));
        };
        let present = || {
            versions
                .keys()
                .map(u64::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        match selector {
            VersionSelector::Default => versions
                .last_key_value()
                .map(|(_, version)| version.clone()),
            VersionSelector::Version(number) => versions.get(number).cloned(),
            VersionSelector::Label(label) => {
                let message = format!(
                    "model `{model}` has no label `{label}`; its versions are {}",
                    present()
                );
                return Err(not_found(message));
            }
        }
        .ok_or_else(|| match selector {
            VersionSelector::Version(number) => not_found(format!(
                "model `{model}` has no version {number}; its versions are {}",
                present()
            )),
            VersionSelector::Default | VersionSelector::Label(_) => {
                not_found(format!("model `{model}` has no version"))
            }
        })
    }

    /// The names of the loaded models, in order.
    pub fn names(&self) -> Vec<ModelName> {
        self.0.current.load().keys().cloned().collect()
    }

    /// All loaded versions, as they are now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.current.load_full()
    }

    /// A number that goes up with each change of the set.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Puts a version in the place of any with its name and number.
    pub fn insert(&self, version: Version) {
        self.change(|snapshot| {
            let versions = snapshot.entry(version.model.clone()).or_default();
            versions.insert(version.number, Arc::new(version));
        });
    }

    /// Takes a version out. Jobs that resolved it before keep it until they are done.
    pub fn remove(&self, model: &ModelName, number: u64) {
        self.change(|snapshot| {
            if let Some(versions) = snapshot.get_mut(model) {
                versions.remove(&number);
                if versions.is_empty() {
                    snapshot.remove(model);
                }
            }
        });
    }

    /// What this worker serves, as its record in the workers' bucket tells it. Signature and batching are those of
    /// the highest version.
    pub fn served(&self) -> Vec<ServedModel> {
        let snapshot = self.snapshot();
        let newest = |(_, versions): (_, &BTreeMap<u64, Arc<Version>>)| {
            let (_, newest) = versions.last_key_value()?;
            Some(ServedModel {
                name: newest.model.clone(),
                versions: versions.keys().copied().collect(),
                digests: versions
                    .iter()
                    .map(|(number, version)| (*number, version.digest))
                    .collect(),
                batching: newest.batching.is_ok(),
                batching_refused: newest.batching.clone().err(),
                inputs: newest.inputs.clone(),
                outputs: newest.outputs.clone(),
                columns: columns(&newest.settings),
            })
        };
        snapshot.iter().filter_map(newest).collect()
    }

    fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        let changing = self
            .0
            .changing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut snapshot = Snapshot::clone(&self.0.current.load());
        change(&mut snapshot);
        self.0.current.store(Arc::new(snapshot));
        drop(changing);
        self.0.changes.send_modify(|count| *count += 1);
    }
}

/// The columns of each input that has a list of them.
fn columns(settings: &ModelSettings) -> BTreeMap<String, Vec<String>> {
    let named = settings.inputs.iter();
    let named = named.filter(|(_, input)| !input.columns.is_empty());
    named
        .map(|(name, input)| (name.clone(), input.columns.clone()))
        .collect()
}

fn not_found(message: String) -> Failure {
    Failure {
        code: ErrorCode::NotFound,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::load::testing::version;
    use super::*;

    fn name(name: &str) -> ModelName {
        ModelName::new(name).expect("fits")
    }

    fn loaded() -> Models {
        let models = Models::new();
        for (model, number) in [("digits", 2), ("digits", 10), ("wine", 1)] {
            models.insert(version(model, number));
        }
        models
    }

    #[test]
    fn a_job_that_names_no_version_gets_the_highest_number() {
        let found = loaded()
            .resolve(&name("digits"), &VersionSelector::Default)
            .expect("there");
        assert_eq!(found.number, 10);
    }

    #[test]
    fn a_job_gets_the_version_it_names() {
        let found = loaded()
            .resolve(&name("digits"), &VersionSelector::Version(2))
            .expect("there");
        assert_eq!(found.number, 2);
    }

    #[test]
    fn what_is_not_there_is_404_and_says_what_is() {
        let models = loaded();
        let refused = |model: &str, selector| {
            models
                .resolve(&name(model), &selector)
                .expect_err("not there")
        };
        let mistyped = refused("digit", VersionSelector::Default);
        assert_eq!(mistyped.code, ErrorCode::NotFound);
        assert!(mistyped.message.contains("`digits`"), "{mistyped}");
        let version = refused("digits", VersionSelector::Version(3));
        assert!(version.message.ends_with("2, 10"), "{version}");
        let label = refused("digits", VersionSelector::Label("canary".to_owned()));
        assert!(label.message.contains("`canary`"), "{label}");
    }

    #[test]
    fn a_version_that_was_resolved_outlives_its_removal() {
        let models = loaded();
        let held = models
            .resolve(&name("wine"), &VersionSelector::Default)
            .expect("there");
        models.remove(&name("wine"), 1);
        assert_eq!(models.names(), [name("digits")]);
        assert_eq!(held.number, 1);
        assert!(
            models
                .resolve(&name("wine"), &VersionSelector::Default)
                .is_err()
        );
    }

    #[test]
    fn every_change_is_announced() {
        let models = loaded();
        let mut changes = models.changes();
        changes.mark_unchanged();
        models.remove(&name("digits"), 2);
        assert!(changes.has_changed().expect("the models are still there"));
    }

    #[test]
    fn the_record_tells_the_signature_of_the_highest_version() {
        let served = loaded().served();
        assert_eq!(served.len(), 2);
        assert_eq!(served[0].versions, [2, 10]);
        assert_eq!(served[0].digests.len(), 2);
        assert!(served[0].batching && served[0].batching_refused.is_none());
    }
}
