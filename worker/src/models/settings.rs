//! `model.toml`: what the people who made a model say about serving it.
//!
//! `<name>/model.toml` gives defaults, `<name>/<version>/model.toml` overrides them key by key. A key nobody knows is
//! a mistake, never ignored; all mistakes of a file come in one message.

mod reader;

use std::collections::BTreeMap;
use std::time::Duration;

use inferq_engine::gpu::Weights;
use inferq_schemas::tensor::{Dim, TensorSpec};

use reader::Reader;

/// What `model.toml` says about one version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelSettings {
    /// By the input's name.
    pub inputs: BTreeMap<String, InputSettings>,
    /// Whether jobs may share a forward pass.
    pub batching: BatchingSettings,
    /// Whether and how answers are kept.
    pub cache: CacheSettings,
    /// How it is computed.
    pub engine: EngineSettings,
    /// How far a run may go.
    pub limits: LimitSettings,
}

/// `[inputs.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InputSettings {
    /// Names of the values of a row, in order: how tables are read into this input.
    pub columns: Vec<String>,
}

/// `[batching]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchingSettings {
    /// `false`: each job runs by itself whatever the proof says. Default `true`.
    pub enabled: bool,
    /// `true`: jobs share forward passes even without proof. Default `false`; wrong answers are the owner's risk.
    pub trust: bool,
}

impl Default for BatchingSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            trust: false,
        }
    }
}

/// `[cache]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// Whether answers are kept. Default `true`; off in any case for models that draw random numbers.
    pub enabled: bool,
    /// How long, `1s` to `30d`. Default `1h`.
    pub ttl: Duration,
    /// Who shares them. Default `tenant`.
    pub scope: CacheScopeSetting,
    /// Request parameters that change the answer and so belong to its key. Default none.
    pub parameters: Vec<String>,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            ttl: Duration::from_secs(3_600),
            scope: CacheScopeSetting::Tenant,
            parameters: Vec::new(),
        }
    }
}

/// `[engine]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineSettings {
    /// How a graphics card keeps the weights of dense layers: `f32` (default), `f16` or `int8`, which are read faster
    /// and are less exact; `half` is `f16`, and with `--gpu-cooperative` a card that multiplies such matrices by itself
    /// takes their inputs as f16 too, bounded by 65 504. The CPU keeps them as they are.
    pub weights: Weights,
    /// `true`: a row's answer has the same bits in a batch of any size, wherever it runs, and no answer is taken
    /// from the cache that another kind of device gave. Default `false`: on a card, kernels may differ by batch size.
    pub deterministic: bool,
}

/// `[limits]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSettings {
    /// Longest a forward pass may take, `10ms` to `1h`. Default `60s`. What takes longer is given up and
    /// tried again, and costs its thread: choose several times what the largest batch needs.
    pub run_timeout: Duration,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            run_timeout: Duration::from_secs(60),
        }
    }
}

/// Who may be answered with whose cached answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheScopeSetting {
    /// Each tenant only with its own.
    Tenant,
    /// Everybody with everybody's: a caller can then tell by the time taken what others asked.
    Global,
}

/// Every mistake in the settings of one version, one per line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct SettingsError(Vec<String>);

impl ModelSettings {
    /// Reads settings from `(file name, text)` in order; later ones override earlier ones key by key.
    ///
    /// # Errors
    /// [`SettingsError`] naming file and key of each mistake.
    pub fn read(files: &[(&str, &str)]) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        let mut problems = Vec::new();
        for (file, text) in files {
            match text.parse::<toml::Table>() {
                Ok(table) => settings.apply(&mut Reader::new(file, table, &mut problems)),
                Err(error) => problems.push(format!(
                    "{file}: not TOML: {}",
                    error.to_string().trim_end()
                )),
            }
        }
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(SettingsError(problems))
        }
    }

    fn apply(&mut self, root: &mut Reader<'_>) {
        root.only(&["inputs", "batching", "cache", "engine", "limits"]);
        root.table("inputs", |inputs| {
            for name in inputs.keys() {
                let input = self.inputs.entry(name.clone()).or_default();
                inputs.table(&name, |table| {
                    table.only(&["columns"]);
                    table.strings("columns", &mut input.columns);
                });
            }
        });
        root.table("batching", |table| {
            table.only(&["enabled", "trust"]);
            table.flag("enabled", &mut self.batching.enabled);
            table.flag("trust", &mut self.batching.trust);
        });
        root.table("cache", |table| {
            table.only(&["enabled", "ttl", "scope", "parameters"]);
            table.flag("enabled", &mut self.cache.enabled);
            table.duration(
                "ttl",
                Duration::from_secs(1)..=Duration::from_secs(30 * 86_400),
                &mut self.cache.ttl,
            );
            let scopes = [
                ("tenant", CacheScopeSetting::Tenant),
                ("global", CacheScopeSetting::Global),
            ];
            table.choice("scope", &scopes, &mut self.cache.scope);
            table.strings("parameters", &mut self.cache.parameters);
        });
        root.table("engine", |table| {
            table.only(&["weights", "deterministic"]);
            let weights = [
                ("f32", Weights::F32),
                ("f16", Weights::F16),
                ("half", Weights::Half),
                ("int8", Weights::Int8),
            ];
            table.choice("weights", &weights, &mut self.engine.weights);
            table.flag("deterministic", &mut self.engine.deterministic);
        });
        root.table("limits", |table| {
            table.only(&["run_timeout"]);
            table.duration(
                "run_timeout",
                Duration::from_millis(10)..=Duration::from_secs(3_600),
                &mut self.limits.run_timeout,
            );
        });
    }

    /// Whether the settings speak of inputs the model has, with as many columns as a row has values.
    ///
    /// # Errors
    /// [`SettingsError`] naming each input that does not fit.
    pub fn fit(&self, inputs: &[TensorSpec]) -> Result<(), SettingsError> {
        let mut problems = Vec::new();
        for (name, settings) in &self.inputs {
            let Some(spec) = inputs.iter().find(|spec| spec.name == *name) else {
                let known: Vec<_> = inputs
                    .iter()
                    .map(|spec| format!("`{}`", spec.name))
                    .collect();
                problems.push(format!(
                    "model.toml: inputs.{name}: the model's inputs are {}",
                    known.join(", ")
                ));
                continue;
            };
            let columns = settings.columns.len();
            if let Some(values) = row_values(spec)
                && columns > 0
                && columns != values
            {
                problems.push(format!(
                    "model.toml: inputs.{name}.columns: {columns} names, a row has {values} values"
                ));
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(SettingsError(problems))
        }
    }
}

/// Values of one row, if the model fixes how many.
fn row_values(spec: &TensorSpec) -> Option<usize> {
    spec.shape
        .iter()
        .skip(1)
        .try_fold(1_usize, |values, dim| match dim {
            Dim::Fixed(size) => values.checked_mul(*size),
            Dim::Any => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferq_schemas::tensor::DataType;

    fn mistakes(text: &str) -> String {
        ModelSettings::read(&[("model.toml", text)])
            .expect_err("mistakes")
            .to_string()
    }

    #[test]
    fn no_file_means_the_defaults() {
        assert_eq!(ModelSettings::read(&[]), Ok(ModelSettings::default()));
    }

    #[test]
    fn a_version_overrides_the_defaults_key_by_key() {
        let defaults = "[cache]\nttl = \"5m\"\nscope = \"global\"\n[inputs.x]\ncolumns = [\"a\"]";
        let own = "[cache]\nttl = \"10s\"\nparameters = [\"top\"]\n[batching]\ntrust = true\n[limits]\nrun_timeout = \"5s\"";
        let settings = ModelSettings::read(&[("m/model.toml", defaults), ("m/1/model.toml", own)])
            .expect("good");
        assert_eq!(settings.cache.ttl, Duration::from_secs(10));
        assert_eq!(settings.cache.scope, CacheScopeSetting::Global);
        assert_eq!(settings.cache.parameters, ["top"]);
        assert_eq!(settings.inputs["x"].columns, ["a"]);
        assert!(settings.batching.enabled && settings.batching.trust);
        assert_eq!(settings.limits.run_timeout, Duration::from_secs(5));
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_the_nearest_known_key() {
        let message = mistakes(
            "bathcing = 1\n[batching]\nenable = false\ntrust = \"yes\"\n[cache]\nttl = \"0s\"\nscope = \"all\"\nparameters = [1]\n[limits]\nrun_timeout = 60\n\
             [engine]\nweights = \"f8\"\n\
             [inputs.x]\ncolumms = []\n",
        );
        for part in [
            "model.toml: bathcing: unknown, did you mean `batching`?",
            "model.toml: batching.enable: unknown, did you mean `enabled`?",
            "model.toml: batching.trust: write true or false",
            "model.toml: cache.ttl: ",
            "model.toml: cache.scope: write \"tenant\" or \"global\"",
            "model.toml: cache.parameters: write a list of texts",
            "model.toml: engine.weights: write \"f32\" or \"f16\" or \"half\" or \"int8\"",
            "model.toml: limits.run_timeout: write a time from \"10ms\" to \"1h\"",
            "model.toml: inputs.x.columms: unknown, did you mean `columns`?",
        ] {
            assert!(message.contains(part), "{part:?} is missing in:\n{message}");
        }
        assert_eq!(message.lines().count(), 9, "{message}");
    }

    #[test]
    fn what_is_not_toml_is_told_with_its_file() {
        assert!(mistakes("[cache").starts_with("model.toml: not TOML: "));
    }

    #[test]
    fn columns_must_name_an_input_of_the_model_and_all_values_of_a_row() {
        let read = |text| ModelSettings::read(&[("model.toml", text)]).expect("good");
        let spec = TensorSpec {
            name: "x".to_owned(),
            datatype: DataType::Fp32,
            shape: vec![Dim::Any, Dim::Fixed(2)],
        };
        let fits = |text| read(text).fit(std::slice::from_ref(&spec));
        assert_eq!(fits("[inputs.x]\ncolumns = [\"a\", \"b\"]"), Ok(()));
        let few = fits("[inputs.x]\ncolumns = [\"a\"]")
            .expect_err("too few")
            .to_string();
        assert!(few.contains("1 names, a row has 2 values"), "{few}");
        let other = fits("[inputs.y]\ncolumns = [\"a\"]")
            .expect_err("no such input")
            .to_string();
        assert!(other.contains("`x`"), "{other}");
    }
}
