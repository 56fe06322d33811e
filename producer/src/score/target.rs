//! Which version of a model a run uses, as the living workers tell it.

use std::collections::{BTreeMap, BTreeSet};

use inferq_schemas::{Dim, ModelName, ServedModel, TensorSpec, WorkerRecord, nearest};

use super::error::ScoreError;

/// A version of a model that every worker which serves it serves alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) version: u64,
    pub(super) digest: String,
    pub(super) inputs: Vec<TensorSpec>,
    pub(super) outputs: Vec<TensorSpec>,
    pub(super) columns: BTreeMap<String, Vec<String>>,
    /// Whether a job may have any number of rows; else one.
    pub(super) takes_many_rows: bool,
    /// Threads that run models, of all workers that serve it.
    pub(super) executors: u32,
}

/// The version asked for, else the highest that a worker serves.
pub(super) fn find(
    workers: &[WorkerRecord],
    model: &ModelName,
    version: Option<u64>,
) -> Result<Served, ScoreError> {
    let ready = workers.iter().filter(|worker| worker.ready);
    let serving: Vec<(&WorkerRecord, &ServedModel)> = ready
        .flat_map(|worker| worker.models.iter().map(move |served| (worker, served)))
        .filter(|(_, served)| served.name == *model && !served.versions.is_empty())
        .collect();
    let all = || serving.iter().flat_map(|(_, served)| &served.versions);
    let Some(newest) = all().max().copied() else {
        return Err(not_served(workers, model));
    };
    let version = version.unwrap_or(newest);
    let serving: Vec<_> = serving
        .iter()
        .filter(|(_, served)| served.versions.contains(&version))
        .collect();
    let Some((_, first)) = serving.first() else {
        let mut versions: Vec<u64> = all().copied().collect();
        versions.sort_unstable();
        versions.dedup();
        return Err(ScoreError::NoVersion {
            model: model.clone(),
            version,
            versions,
        });
    };
    let mut digests: Vec<String> = serving
        .iter()
        .filter_map(|(_, served)| served.digests.get(&version).map(ToString::to_string))
        .collect();
    digests.sort();
    digests.dedup();
    let [digest] = digests.as_slice() else {
        return Err(ScoreError::Digests {
            model: model.clone(),
            version,
            digests,
        });
    };
    Ok(Served {
        version,
        digest: digest.clone(),
        inputs: first.inputs.clone(),
        outputs: first.outputs.clone(),
        columns: first.columns.clone(),
        takes_many_rows: takes_many_rows(model, &first.inputs)?,
        executors: serving.iter().map(|(worker, _)| worker.executors).sum(),
    })
}

/// Refuses outputs that the model does not have.
pub(super) fn check_outputs(
    served: &Served,
    model: &ModelName,
    wanted: &[String],
) -> Result<(), ScoreError> {
    let has = |name: &String| served.outputs.iter().any(|output| output.name == *name);
    match wanted.iter().find(|name| !has(name)) {
        None => Ok(()),
        Some(output) => Err(ScoreError::NoOutput {
            model: model.clone(),
            output: output.clone(),
            outputs: served.outputs.iter().map(ToString::to_string).collect(),
        }),
    }
}

/// A free first axis is the row. A model for exactly one row at a time can be scored too, row by row.
fn takes_many_rows(model: &ModelName, inputs: &[TensorSpec]) -> Result<bool, ScoreError> {
    let axes = inputs.iter().map(|input| input.shape.first().copied());
    let fixed = axes.clone().find(|axis| *axis != Some(Dim::Any));
    match fixed {
        None => Ok(true),
        Some(_) if axes.clone().all(|axis| axis == Some(Dim::Fixed(1))) => Ok(false),
        Some(_) => Err(ScoreError::NoRows {
            model: model.clone(),
            inputs: inputs.iter().map(ToString::to_string).collect(),
        }),
    }
}

fn not_served(workers: &[WorkerRecord], model: &ModelName) -> ScoreError {
    let models = workers.iter().flat_map(|worker| &worker.models);
    let names: BTreeSet<&str> = models.map(|served| served.name.as_str()).collect();
    let nearest = nearest(model.as_str(), names.iter().copied());
    let others = names.iter().copied().filter(|name| Some(*name) != nearest);
    let served = nearest.into_iter().chain(others);
    ScoreError::NotServed {
        model: model.clone(),
        served: served.map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn worker(versions: &[u64], digest: &str, first_axis: i64) -> WorkerRecord {
        let digests: BTreeMap<u64, String> = versions
            .iter()
            .map(|version| (*version, digest.repeat(64)))
            .collect();
        serde_json::from_value(json!({
            "id": "w", "host": "h", "pid": 1, "program_version": "0", "started_unix_ms": 1,
            "seen_unix_ms": 1, "ready": true, "state": "ready", "executors": 2, "room_rows": 1,
            "free_rows": 1, "jobs_done": 0, "models": [{"name": "m", "versions": versions,
            "digests": digests, "batching": true, "outputs": [], "columns": {"x": ["a", "b"]},
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [first_axis, 2]}]}],
        }))
        .expect("a complete record")
    }

    fn model() -> ModelName {
        ModelName::new("m").expect("a good name")
    }

    #[test]
    fn the_highest_version_is_taken_and_the_executors_of_all_who_serve_it_count() {
        let workers = [
            worker(&[1, 2], "a", -1),
            worker(&[2], "a", -1),
            worker(&[1], "a", -1),
        ];
        let served = find(&workers, &model(), None).expect("it is served");
        assert_eq!((served.version, served.executors), (2, 4));
        assert_eq!(served.columns["x"], ["a", "b"]);
        assert_eq!(find(&workers, &model(), Some(1)).expect("too").executors, 4);
        let missing = find(&workers, &model(), Some(7)).expect_err("nobody has it");
        assert!(missing.to_string().contains("1, 2"), "{missing}");
    }

    #[test]
    fn workers_that_differ_in_what_they_call_a_version_are_refused() {
        let workers = [worker(&[1], "a", -1), worker(&[1], "b", -1)];
        assert!(matches!(
            find(&workers, &model(), None),
            Err(ScoreError::Digests { .. })
        ));
    }

    #[test]
    fn one_row_at_a_time_is_possible_and_seven_are_not() {
        let one = find(&[worker(&[1], "a", 1)], &model(), None).expect("row by row");
        assert!(!one.takes_many_rows);
        let seven = find(&[worker(&[1], "a", 7)], &model(), None);
        assert!(matches!(seven, Err(ScoreError::NoRows { .. })));
    }

    #[test]
    fn a_model_nobody_serves_is_named_with_the_nearest() {
        let name = ModelName::new("n").expect("a good name");
        let error = find(&[worker(&[1], "a", -1)], &name, None).expect_err("nobody");
        assert!(error.to_string().contains("`m`"), "{error}");
        let error = find(&[], &name, None).expect_err("nobody at all");
        assert!(error.to_string().contains("no worker is there"), "{error}");
    }
}
