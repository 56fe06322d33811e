//! Are the workers of a stack ready? Each says so itself, in the bucket of workers.

use std::{sync::Arc, time::Duration};

use inferq_schemas::{ModelName, WorkerRecord};
use tokio::time::Instant;

use super::{StackError, workers::WorkerProcess};
use crate::client::Client;

const LOOK: Duration = Duration::from_millis(100);

/// Waits until every running worker is ready and serves all of `models`.
pub(super) async fn wait(
    client: &Client,
    workers: &[Arc<WorkerProcess>],
    models: &[ModelName],
    within: Duration,
) -> Result<(), StackError> {
    let until = Instant::now() + within;
    loop {
        // The bucket may be silent for a moment; that is "not yet" too.
        let records = client.workers().await.unwrap_or_default();
        let waiting_for: Vec<String> = workers
            .iter()
            .filter_map(|worker| lacks(&records, worker.id(), worker.pid(), models))
            .collect();
        if waiting_for.is_empty() {
            return Ok(());
        }
        for worker in workers {
            if let Some(status) = worker.wait(Duration::ZERO).await {
                return Err(StackError::WorkerEnded {
                    worker: worker.id().to_owned(),
                    status,
                    lines: worker.last_lines(),
                });
            }
        }
        if Instant::now() > until {
            return Err(StackError::NotReady {
                within,
                waiting_for,
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What a worker lacks, as a phrase; `None` if it is ready.
///
/// The process number counts as well as the id: the record of one that was killed stays for 20 s.
fn lacks(records: &[WorkerRecord], id: &str, pid: u32, models: &[ModelName]) -> Option<String> {
    let record = records
        .iter()
        .find(|record| record.id == id && record.pid == pid);
    let Some(record) = record else {
        return Some(format!("{id} has not reported"));
    };
    let missing: Vec<&str> = models
        .iter()
        .filter(|model| !record.models.iter().any(|served| served.name == **model))
        .map(ModelName::as_str)
        .collect();
    if !missing.is_empty() {
        return Some(format!("{id} does not serve {}", missing.join(", ")));
    }
    (!record.ready).then(|| format!("{id} is {}", record.state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(pid: u32, ready: bool, models: &[&str]) -> WorkerRecord {
        let served = |name: &&str| json!({"name": name, "versions": [], "digests": {}, "batching": true, "inputs": [], "outputs": []});
        serde_json::from_value(json!({
            "id": "worker-1", "host": "h", "pid": pid, "program_version": "0", "started_unix_ms": 0,
            "seen_unix_ms": 0, "ready": ready, "state": "starting", "executors": 1, "room_rows": 1,
            "free_rows": 1, "jobs_done": 0, "models": models.iter().map(served).collect::<Vec<_>>(),
        }))
        .expect("a complete record")
    }

    fn lacking(record: WorkerRecord) -> Option<String> {
        let digits = "digits".parse().expect("a valid name");
        lacks(&[record], "worker-1", 7, &[digits])
    }

    #[test]
    fn a_worker_is_ready_when_it_says_so_and_serves_every_model() {
        assert_eq!(lacking(report(7, true, &["other", "digits"])), None);
        assert_eq!(
            lacking(report(7, true, &["other"])).as_deref(),
            Some("worker-1 does not serve digits")
        );
        assert_eq!(
            lacking(report(7, false, &["digits"])).as_deref(),
            Some("worker-1 is starting")
        );
    }

    #[test]
    fn the_record_of_a_killed_predecessor_does_not_count() {
        assert_eq!(
            lacking(report(6, true, &["digits"])).as_deref(),
            Some("worker-1 has not reported")
        );
    }
}
