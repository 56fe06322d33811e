//! What the key-value buckets hold, as JSON: the models that are known and the workers that live.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::identity::Digest;
use crate::subjects::ModelName;
use crate::tensor::TensorSpec;

/// A known model, in the bucket `infer_models` under its name: it has consumers, so jobs for it
/// will be found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Its name.
    pub name: ModelName,
    /// Its versions, ascending.
    pub versions: Vec<u64>,
    /// Where it comes from, such as `folder` or `nats`.
    pub source: String,
    /// Its inputs in the model's order, once a worker has loaded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<TensorSpec>>,
    /// Its outputs in the model's order, once a worker has loaded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<TensorSpec>>,
}

/// Whether a worker takes jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// It serves no model yet, or is not connected.
    Starting,
    /// It takes jobs.
    Ready,
    /// It finishes what it holds and takes no more.
    Draining,
}

impl WorkerState {
    /// The word in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

impl std::fmt::Display for WorkerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A model as one worker serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedModel {
    /// Its name.
    pub name: ModelName,
    /// Its versions that are loaded, ascending.
    pub versions: Vec<u64>,
    /// For each of them the digest of everything that determines its answers.
    pub digests: BTreeMap<u64, Digest>,
    /// Whether jobs may share a forward pass.
    pub batching: bool,
    /// Why not, if they may not: the tensor that failed the proof, or the setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batching_refused: Option<String>,
    /// Its inputs in the model's order.
    pub inputs: Vec<TensorSpec>,
    /// Its outputs in the model's order.
    pub outputs: Vec<TensorSpec>,
    /// By input, the names of the values of a row in order, where `model.toml` gives them: how tables
    /// are read into it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, Vec<String>>,
}

/// A live worker, in the bucket `infer_workers` under its id; written anew every 5 s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Its id.
    pub id: String,
    /// The machine it runs on.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// Version of the program.
    pub program_version: String,
    /// When it started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// When it wrote this, in milliseconds since 1970.
    pub seen_unix_ms: u64,
    /// Whether it is fit to work, as its readiness endpoint says.
    pub ready: bool,
    /// Whether it takes jobs.
    pub state: WorkerState,
    /// Where it answers metrics and health, such as `127.0.0.1:9100`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Threads that run models.
    pub executors: u32,
    /// Rows it has room for in all.
    pub room_rows: u64,
    /// Rows it has room for now.
    pub free_rows: u64,
    /// Jobs it has settled since it started.
    pub jobs_done: u64,
    /// What it serves.
    pub models: Vec<ServedModel>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{DataType, Dim};

    #[test]
    fn a_worker_record_reads_back_and_dims_are_numbers() {
        let input = TensorSpec {
            name: "pixels".into(),
            datatype: DataType::Fp32,
            shape: vec![Dim::Any, Dim::Fixed(64)],
        };
        let record = WorkerRecord {
            id: "w-1".into(),
            host: "h".into(),
            pid: 1,
            program_version: "0.1.0".into(),
            started_unix_ms: 1,
            seen_unix_ms: 2,
            ready: true,
            state: WorkerState::Ready,
            http: None,
            executors: 2,
            room_rows: 128,
            free_rows: 64,
            jobs_done: 0,
            models: vec![ServedModel {
                name: ModelName::new("digits").expect("a good name"),
                versions: vec![1],
                digests: [(1, Digest::of(b"m"))].into(),
                batching: true,
                batching_refused: None,
                inputs: vec![input],
                outputs: vec![],
                columns: [("pixels".into(), vec!["pixel_0".into()])].into(),
            }],
        };
        let json = serde_json::to_value(&record).expect("serializable");
        assert_eq!(
            json["models"][0]["inputs"][0]["shape"],
            serde_json::json!([-1, 64])
        );
        assert_eq!(json["state"], "ready");
        let back: WorkerRecord = serde_json::from_value(json).expect("our own");
        assert_eq!(back, record);
    }
}
