//! `inferq workers`: who works, on what.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use inferq::WorkerRecord;

use super::{
    Ended, Global,
    output::{Output, seconds},
};

/// A worker reports each 5 s; one that missed two reports is doubtful.
const DOUBTFUL: Duration = Duration::from_secs(15);

/// List the workers that live, with the models they serve.
#[derive(Debug, clap::Args)]
pub(super) struct Workers {}

impl Workers {
    pub(super) async fn run(self, global: &Global, output: &Output) -> anyhow::Result<Ended> {
        let client = global.connect().await?;
        let workers = client.workers().await?;
        if output.is_json() {
            for worker in &workers {
                output.line(worker)?;
            }
            return Ok(Ended::Well);
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let rows = workers
            .iter()
            .map(|worker| row(worker, now, output))
            .collect();
        output.table(
            &[
                "worker", "host", "state", "models", "room", "done", "age", "seen",
            ],
            rows,
        );
        for line in refusals(&workers) {
            output.note(&line);
        }
        if workers.is_empty() {
            output.note(
                "no worker lives; start one with `inferq-worker --models DIR` or `inferq up`",
            );
        }
        Ok(Ended::Well)
    }
}

fn row(worker: &WorkerRecord, now: Duration, output: &Output) -> Vec<String> {
    let seen = now.saturating_sub(Duration::from_millis(worker.seen_unix_ms));
    let age = now.saturating_sub(Duration::from_millis(worker.started_unix_ms));
    let state = if seen > DOUBTFUL {
        output.bad("silent")
    } else if worker.ready {
        output.good(worker.state.as_str())
    } else {
        output.bad(&format!("{}, not ready", worker.state))
    };
    vec![
        worker.id.clone(),
        format!("{}:{}", worker.host, worker.pid),
        state,
        models(worker),
        format!("{}/{}", worker.free_rows, worker.room_rows),
        worker.jobs_done.to_string(),
        seconds(age),
        format!("{} ago", seconds(seen)),
    ]
}

fn models(worker: &WorkerRecord) -> String {
    let served = worker.models.iter().map(|model| {
        let versions: Vec<String> = model.versions.iter().map(ToString::to_string).collect();
        let alone = if model.batching { "" } else { " (not batched)" };
        format!("{} v{}{alone}", model.name, versions.join(","))
    });
    served.collect::<Vec<_>>().join("\n")
}

/// Why models are not batched, each once.
fn refusals(workers: &[WorkerRecord]) -> Vec<String> {
    let mut lines: Vec<String> = workers
        .iter()
        .flat_map(|worker| &worker.models)
        .filter_map(|model| {
            let reason = model.batching_refused.as_deref()?;
            Some(format!("{} is not batched: {reason}", model.name))
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn worker(refused: Option<&str>) -> WorkerRecord {
        serde_json::from_value(json!({
            "id": "w", "host": "h", "pid": 1, "program_version": "0", "started_unix_ms": 1_000,
            "seen_unix_ms": 61_000, "ready": true, "state": "ready", "executors": 1, "room_rows": 8,
            "free_rows": 5, "jobs_done": 7, "models": [{"name": "m", "versions": [], "digests": {},
            "batching": refused.is_none(), "batching_refused": refused, "inputs": [], "outputs": []}],
        }))
        .expect("a complete record")
    }

    #[test]
    fn a_row_tells_room_work_and_age() {
        let row = row(&worker(None), Duration::from_secs(62), &Output::new(false));
        assert_eq!(row[4..], ["5/8", "7", "1m 1s", "1s ago"]);
    }

    #[test]
    fn a_reason_against_batching_is_told_once() {
        let workers = [
            worker(Some("softmax over axis 0")),
            worker(Some("softmax over axis 0")),
        ];
        assert_eq!(
            refusals(&workers),
            ["m is not batched: softmax over axis 0"]
        );
    }
}
