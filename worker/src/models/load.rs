//! Makes a [`Version`] of a version's folder: digest, settings, engine, and the rules that join them.

use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inferq_engine::{BatchProof, CardSettings, LoadError, LoadLimits, Model};
use inferq_schemas::identity::Digest;
use inferq_schemas::subjects::ModelName;

use super::Version;
use super::layout::{Files, MODEL_FILE};
use super::pace::Pace;
use super::settings::{BatchingSettings, EngineSettings, ModelSettings, SettingsError};
use super::specs::wire_spec;

/// Why a version is not served. The text says what to change.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// `model.toml` has mistakes.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The engine does not run this model.
    #[error(transparent)]
    Engine(#[from] LoadError),
    /// The engine panicked while it loaded; other models go on.
    #[error("the engine panicked while loading it")]
    Panicked,
    /// Files changed while they were read; the next look sees the new ones.
    #[error("its files changed while they were read")]
    Changed,
}

impl VersionError {
    /// The error with all its causes, on one line for each mistake.
    pub fn full_text(&self) -> String {
        let causes = std::iter::successors(self.source(), |&cause| cause.source());
        causes.fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }
}

/// Turns a model file into a running model, computed as the settings say; blocks for as long as that takes.
pub type Loader =
    Arc<dyn Fn(&Path, EngineSettings) -> Result<Arc<dyn Model>, LoadError> + Send + Sync>;

/// The loader that workers use: ONNX by tract.
pub fn onnx_loader(limits: LoadLimits) -> Loader {
    Arc::new(move |path, settings| {
        let limits = LoadLimits {
            card: CardSettings {
                weights: settings.weights,
                deterministic: settings.deterministic,
            },
            ..limits.clone()
        };
        Ok(Arc::new(inferq_engine::load_file(path, &limits)?))
    })
}

/// Loads the version in `folder` and proves what can be proven of it. Blocks.
///
/// # Errors
/// [`VersionError`], which names the file and what to change.
pub fn load_version(
    model: &ModelName,
    number: u64,
    folder: &Path,
    loader: &Loader,
) -> Result<Version, VersionError> {
    let files = Files::of(folder).map_err(unreadable(folder))?;
    let digest = files.digest().map_err(unreadable(folder))?;
    load_files((model, number), &files, digest, loader)
}

/// As [`load_version`], for files that were looked at and hashed before.
pub(super) fn load_files(
    (model, number): (&ModelName, u64),
    files: &Files,
    digest: Digest,
    loader: &Loader,
) -> Result<Version, VersionError> {
    let texts = files.settings().map_err(unreadable(files.folder()))?;
    let texts: Vec<(&str, &str)> = texts
        .iter()
        .map(|(file, text)| (file.as_str(), text.as_str()))
        .collect();
    let settings = ModelSettings::read(&texts)?;
    let path = files.folder().join(MODEL_FILE);
    let engine = catch_unwind(AssertUnwindSafe(|| loader(&path, settings.engine)))
        .map_err(|_| VersionError::Panicked)??;
    // Loading takes a while, and a version must be what its digest says.
    let now = Files::of(files.folder()).map_err(unreadable(files.folder()))?;
    if now != *files {
        return Err(VersionError::Changed);
    }
    Ok(assemble((model, number), digest, settings, engine)?)
}

/// Joins a model and its settings.
fn assemble(
    (model, number): (&ModelName, u64),
    digest: Digest,
    settings: ModelSettings,
    engine: Arc<dyn Model>,
) -> Result<Version, SettingsError> {
    let inputs: Vec<_> = engine.inputs().iter().map(wire_spec).collect();
    let outputs = engine.outputs().iter().map(wire_spec).collect();
    settings.fit(&inputs)?;
    Ok(Version {
        model: model.clone(),
        number,
        digest,
        batching: batching(settings.batching, engine.batch_proof()),
        cacheable: settings.cache.enabled && engine.is_deterministic(),
        settings,
        inputs,
        outputs,
        engine,
        pace: Pace::default(),
    })
}

/// Whether rows of different jobs may share a forward pass; else why not.
fn batching(settings: BatchingSettings, proof: &BatchProof) -> Result<(), String> {
    match proof {
        _ if !settings.enabled => Err("`batching.enabled = false` in model.toml".to_owned()),
        BatchProof::Proven => Ok(()),
        BatchProof::Refused { .. } if settings.trust => Ok(()),
        BatchProof::Refused { tensor, reason } => Err(format!("`{tensor}`: {reason}")),
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> VersionError {
    move |source| VersionError::Read {
        path: path.to_owned(),
        source,
    }
}

/// Models without an engine, for tests of everything around one.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use inferq_engine::{Element, RunError, Session, TensorSpec};

    /// One input and one output of two values a row; it cannot be run.
    pub(crate) struct Still {
        specs: Vec<TensorSpec>,
        proof: BatchProof,
    }

    impl Still {
        pub(crate) fn new() -> Self {
            let spec = TensorSpec {
                name: "x".to_owned(),
                element: Element::F32,
                shape: vec![None, Some(2)],
            };
            Self {
                specs: vec![spec],
                proof: BatchProof::Proven,
            }
        }
    }

    impl Model for Still {
        fn inputs(&self) -> &[TensorSpec] {
            &self.specs
        }

        fn outputs(&self) -> &[TensorSpec] {
            &self.specs
        }

        fn batch_proof(&self) -> &BatchProof {
            &self.proof
        }

        fn is_deterministic(&self) -> bool {
            true
        }

        fn memory_bytes(&self) -> u64 {
            1_024
        }

        fn session(&self) -> Result<Box<dyn Session>, RunError> {
            unreachable!("no test runs it")
        }
    }

    /// A version of such a model.
    pub(crate) fn version(model: &str, number: u64) -> Version {
        let name = ModelName::new(model).expect("a good name");
        let digest = Digest::of(format!("{model}/{number}").as_bytes());
        assemble(
            (&name, number),
            digest,
            ModelSettings::default(),
            Arc::new(Still::new()),
        )
        .expect("default settings fit")
    }

    /// Loads any file whose content is not `broken`; panics at `panic`.
    pub(crate) fn loader() -> Loader {
        Arc::new(|path, _| {
            let content = std::fs::read_to_string(path).expect("the file is there");
            assert_ne!(content, "panic", "asked to panic");
            if content == "broken" {
                return Err(LoadError::Malformed {
                    reason: "asked to fail".to_owned(),
                });
            }
            Ok(Arc::new(Still::new()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> BatchProof {
        BatchProof::Refused {
            tensor: "probabilities".to_owned(),
            reason: "its rows depend on each other".to_owned(),
        }
    }

    #[test]
    fn only_proof_or_trust_merges_rows_and_a_switch_overrides_both() {
        let settings = |enabled, trust| BatchingSettings { enabled, trust };
        assert_eq!(batching(settings(true, false), &BatchProof::Proven), Ok(()));
        assert_eq!(batching(settings(true, true), &refused()), Ok(()));
        let untrusted = batching(settings(true, false), &refused()).expect_err("no proof");
        assert_eq!(untrusted, "`probabilities`: its rows depend on each other");
        assert!(batching(settings(false, true), &BatchProof::Proven).is_err());
    }

    #[test]
    fn a_deterministic_version_accepts_the_answers_of_its_own_class_alone() {
        let mut version = testing::version("m", 1);
        assert!(version.accepts("cpu") && version.accepts("gpu:card"));
        version.settings.engine.deterministic = true;
        assert!(version.accepts("cpu") && !version.accepts("gpu:card"));
    }

    #[test]
    fn a_version_has_the_settings_of_its_folder_and_mistakes_name_the_file() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = root.path().join("m").join("1");
        std::fs::create_dir_all(&folder).expect("writable");
        std::fs::write(folder.join("model.onnx"), "fine").expect("writable");
        std::fs::write(root.path().join("m/model.toml"), "[cache]\nenabled = false")
            .expect("writable");
        let model = ModelName::new("m").expect("a good name");
        let load = || load_version(&model, 1, &folder, &testing::loader());
        assert!(!load().expect("loads").cacheable);
        std::fs::write(folder.join("model.toml"), "[inputs.y]\ncolumns = []").expect("writable");
        let text = load().expect_err("no such input").full_text();
        assert!(text.contains("inputs.y"), "{text}");
        std::fs::write(folder.join("model.toml"), "cash = 1").expect("writable");
        let text = load().expect_err("no such key").full_text();
        assert!(text.contains("m/1/model.toml: cash"), "{text}");
    }
}
