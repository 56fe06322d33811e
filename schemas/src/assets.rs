//! Names of the streams, buckets and consumers of one deployment, and which subjects a stream holds.
//!
//! Only names: their configuration belongs to whoever creates them. With a prefix other than
//! `infer` the names follow it (`acme.eu` gives `ACME_EU_JOBS` and `acme_eu_models`), so two
//! deployments may share an account as long as their prefixes differ by more than dots and case.

use data_encoding::BASE64URL;

use crate::subjects::{Lane, ModelName, Subjects};

/// The names of one deployment's streams, buckets and consumers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assets {
    prefix: String,
    jobs: String,
    bulk: String,
    rpc: String,
    results: String,
    dead: String,
    models: String,
    workers: String,
    cancel: String,
    blobs: String,
}

impl Assets {
    /// The names that go with `subjects`.
    pub fn new(subjects: &Subjects) -> Self {
        let upper = subjects.prefix().to_ascii_uppercase().replace('.', "_");
        let lower = subjects.prefix().to_ascii_lowercase().replace('.', "_");
        Self {
            prefix: subjects.prefix().to_owned(),
            jobs: format!("{upper}_JOBS"),
            bulk: format!("{upper}_BULK"),
            rpc: format!("{upper}_RPC"),
            results: format!("{upper}_RESULTS"),
            dead: format!("{upper}_DEAD"),
            models: format!("{lower}_models"),
            workers: format!("{lower}_workers"),
            cancel: format!("{lower}_cancel"),
            blobs: format!("{lower}_blobs"),
        }
    }

    /// Stream of the lanes `high` and `normal`.
    pub fn jobs(&self) -> &str {
        &self.jobs
    }

    /// Stream of the lane `low`, apart so that bulk work cannot fill the way of live traffic.
    pub fn bulk(&self) -> &str {
        &self.bulk
    }

    /// Stream of requests that wait for a free worker.
    pub fn rpc(&self) -> &str {
        &self.rpc
    }

    /// Stream of outcomes.
    pub fn results(&self) -> &str {
        &self.results
    }

    /// Stream of dead letters.
    pub fn dead(&self) -> &str {
        &self.dead
    }

    /// Key-value bucket of known models: [`crate::ModelRecord`] by model name.
    pub fn models_kv(&self) -> &str {
        &self.models
    }

    /// Key-value bucket of live workers: [`crate::WorkerRecord`] by worker id.
    pub fn workers_kv(&self) -> &str {
        &self.workers
    }

    /// Key-value bucket of cancelled jobs.
    pub fn cancel_kv(&self) -> &str {
        &self.cancel
    }

    /// Object store of model files.
    pub fn models_obj(&self) -> &str {
        &self.models
    }

    /// Object store of bodies too large for a message.
    pub fn blobs_obj(&self) -> &str {
        &self.blobs
    }

    /// The stream behind [`Self::blobs_obj`].
    pub fn blobs_stream(&self) -> String {
        format!("OBJ_{}", self.blobs)
    }

    /// Subject of the record of a body that is stored as the object `name`.
    pub fn blob_record(&self, name: &str) -> String {
        let name = BASE64URL.encode(name.as_bytes());
        format!("$O.{}.M.{name}", self.blobs)
    }

    /// Subject of the parts of a body, whose record calls them `parts`.
    pub fn blob_parts(&self, parts: &str) -> String {
        format!("$O.{}.C.{parts}", self.blobs)
    }

    /// The stream that holds the jobs of a lane.
    pub fn stream_of(&self, lane: Lane) -> &str {
        match lane {
            Lane::High | Lane::Normal => &self.jobs,
            Lane::Low => &self.bulk,
        }
    }

    /// Subjects of [`Self::jobs`].
    pub fn jobs_subjects(&self) -> Vec<String> {
        [Lane::High, Lane::Normal]
            .map(|lane| format!("{}.jobs.*.{lane}", self.prefix))
            .to_vec()
    }

    /// Subjects of [`Self::bulk`].
    pub fn bulk_subjects(&self) -> Vec<String> {
        vec![format!("{}.jobs.*.{}", self.prefix, Lane::Low)]
    }

    /// Subjects of [`Self::rpc`].
    pub fn rpc_subjects(&self) -> Vec<String> {
        vec![format!("{}.rpcq.*.*", self.prefix)]
    }

    /// Subjects of [`Self::results`].
    pub fn results_subjects(&self) -> Vec<String> {
        vec![format!("{}.results.*", self.prefix)]
    }

    /// Subjects of [`Self::dead`].
    pub fn dead_subjects(&self) -> Vec<String> {
        vec![format!("{}.dead.>", self.prefix)]
    }

    /// The durable consumer of a model's lane, on its job stream and on [`Self::rpc`].
    pub fn consumer(&self, model: &ModelName, lane: Lane) -> String {
        format!("{model}__{lane}")
    }

    /// Reads a consumer's name; `None` if it is not one of ours.
    pub fn parse_consumer(&self, name: &str) -> Option<(ModelName, Lane)> {
        let (model, lane) = name.rsplit_once("__")?;
        Some((ModelName::new(model).ok()?, lane.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_names_are_those_of_the_design() {
        let assets = Assets::new(&Subjects::default());
        assert_eq!(assets.stream_of(Lane::High), "INFER_JOBS");
        assert_eq!(assets.stream_of(Lane::Low), "INFER_BULK");
        assert_eq!(assets.models_kv(), "infer_models");
        assert_eq!(
            assets.jobs_subjects(),
            ["infer.jobs.*.high", "infer.jobs.*.normal"]
        );
        assert_eq!(assets.bulk_subjects(), ["infer.jobs.*.low"]);
        assert_eq!(assets.dead_subjects(), ["infer.dead.>"]);
    }

    #[test]
    fn another_prefix_gives_other_names() {
        let assets = Assets::new(&Subjects::new("acme.Eu").expect("a good prefix"));
        assert_eq!(assets.results(), "ACME_EU_RESULTS");
        assert_eq!(assets.blobs_obj(), "acme_eu_blobs");
        assert_eq!(assets.blobs_stream(), "OBJ_acme_eu_blobs");
        // As the object stores of all client libraries write them.
        assert_eq!(assets.blob_record("a-1"), "$O.acme_eu_blobs.M.YS0x");
        assert_eq!(assets.blob_parts("x"), "$O.acme_eu_blobs.C.x");
        assert_eq!(assets.results_subjects(), ["acme.Eu.results.*"]);
    }

    #[test]
    fn a_consumer_name_reads_back_even_if_the_model_has_underscores() {
        let assets = Assets::new(&Subjects::default());
        for name in ["digits", "a_", "a__b", "__"] {
            let model = ModelName::new(name).expect("a good name");
            let consumer = assets.consumer(&model, Lane::Normal);
            assert_eq!(
                assets.parse_consumer(&consumer),
                Some((model, Lane::Normal)),
                "{name}"
            );
        }
        assert_eq!(assets.parse_consumer("sweeper"), None);
        assert_eq!(assets.parse_consumer("digits__urgent"), None);
    }
}
