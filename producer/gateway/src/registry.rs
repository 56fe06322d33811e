//! The workers' records: who is ready, and what is served.

use std::{sync::Arc, time::Duration};

use inferq::{Client, ModelError, WorkerRecord};
use inferq_schemas::{ModelName, ServedModel, TensorSpec, WorkerState, nearest};
use tokio::{sync::Mutex, time::Instant};

use crate::refusal::Refusal;

/// Workers report each 5 s, so a second more is not noticed, and probes cost the server little.
const REMEMBERED: Duration = Duration::from_secs(1);
const READ_WITHIN: Duration = Duration::from_secs(5);

/// Reads the records, at most once a second, however many ask.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    client: Client,
    seen: Arc<Mutex<Option<Seen>>>,
}

#[derive(Debug)]
struct Seen {
    at: Instant,
    ready: Arc<[WorkerRecord]>,
}

/// A model as all ready workers together serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Served {
    /// Ascending.
    pub(crate) versions: Vec<u64>,
    /// Of the newest version.
    pub(crate) inputs: Vec<TensorSpec>,
    /// Of the newest version.
    pub(crate) outputs: Vec<TensorSpec>,
}

impl Registry {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            seen: Arc::default(),
        }
    }

    /// The workers that take jobs.
    ///
    /// # Errors
    /// 503 if the records cannot be read.
    pub(crate) async fn ready(&self) -> Result<Arc<[WorkerRecord]>, Refusal> {
        // Held while reading: who comes meanwhile waits for this read instead of making one.
        let mut seen = self.seen.lock().await;
        if let Some(seen) = seen.as_ref()
            && seen.at.elapsed() < REMEMBERED
        {
            return Ok(Arc::clone(&seen.ready));
        }
        let mut records = within(self.client.workers()).await?;
        records.retain(|worker| worker.ready && worker.state == WorkerState::Ready);
        let ready: Arc<[WorkerRecord]> = records.into();
        *seen = Some(Seen {
            at: Instant::now(),
            ready: Arc::clone(&ready),
        });
        Ok(ready)
    }

    /// What is served under a name.
    ///
    /// # Errors
    /// 404 for a model nobody knows, 503 for one that no worker serves at the moment.
    pub(crate) async fn model(&self, model: &ModelName) -> Result<Served, Refusal> {
        let ready = self.ready().await?;
        if let Some(served) = served(&ready, model) {
            return Ok(served);
        }
        let known = within(self.client.models()).await?;
        if known.iter().any(|name| name == model.as_str()) {
            return Err(Refusal::unavailable(format!(
                "no worker serves model `{model}` at the moment"
            )));
        }
        let near = nearest(model.as_str(), known.iter().map(String::as_str));
        Err(ModelError::Unknown {
            model: model.clone(),
            nearest: near.map(str::to_owned),
        }
        .into())
    }
}

async fn within<T>(read: impl Future<Output = Result<T, ModelError>>) -> Result<T, Refusal> {
    match tokio::time::timeout(READ_WITHIN, read).await {
        Ok(read) => Ok(read?),
        Err(_) => Err(Refusal::unavailable("the NATS server does not answer")),
    }
}

/// All versions of a model, and the signature of the newest.
fn served(workers: &[WorkerRecord], model: &ModelName) -> Option<Served> {
    let models: Vec<&ServedModel> = workers
        .iter()
        .flat_map(|worker| &worker.models)
        .filter(|served| served.name == *model && !served.versions.is_empty())
        .collect();
    let newest = models.iter().max_by_key(|served| served.versions.last())?;
    let mut versions: Vec<u64> = models
        .iter()
        .flat_map(|served| served.versions.iter().copied())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    Some(Served {
        versions,
        inputs: newest.inputs.clone(),
        outputs: newest.outputs.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn worker(versions: &[u64], input: &str) -> WorkerRecord {
        serde_json::from_value(json!({
            "id": "w", "host": "h", "pid": 1, "program_version": "0", "started_unix_ms": 1,
            "seen_unix_ms": 1, "ready": true, "state": "ready", "executors": 1, "room_rows": 1,
            "free_rows": 1, "jobs_done": 0, "models": [{"name": "m", "versions": versions, "digests": {},
            "batching": true, "inputs": [{"name": input, "datatype": "FP32", "shape": [-1, 4]}], "outputs": []}],
        }))
        .expect("a complete record")
    }

    #[test]
    fn versions_are_those_of_all_workers_and_the_signature_that_of_the_newest() {
        let workers = [worker(&[1, 3], "new"), worker(&[1, 2], "old")];
        let model = ModelName::new("m").expect("a good name");
        let served = served(&workers, &model).expect("both serve it");
        assert_eq!(served.versions, [1, 2, 3]);
        assert_eq!(served.inputs[0].name, "new");
    }

    #[test]
    fn a_model_without_versions_is_not_served() {
        let model = ModelName::new("m").expect("a good name");
        assert_eq!(served(&[worker(&[], "none")], &model), None);
        assert_eq!(served(&[], &model), None);
    }
}
