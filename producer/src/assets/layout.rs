//! Each asset as the exact configuration asked of the server.
//!
//! Key-value and object buckets are streams with fixed subjects. They are written out here, since
//! the client's own helpers fail on servers before 2.10.

use std::time::Duration;

use inferq_schemas::{Assets, Lane, ModelName, Subjects};
use serde_json::{Value, json};

use super::plan::{AssetPlan, CANCEL_KV_BYTES, MODELS_KV_BYTES, Storage, WORKERS_KV_BYTES};
use crate::size::ByteSize;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a job may wait in its stream.
pub const JOBS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Publishes with the same `Nats-Msg-Id` within this time are one message.
const DEDUPE: Duration = Duration::from_secs(120);
/// A waiting RPC older than this helps nobody: its caller has left.
const RPC_AGE: Duration = MINUTE;
const RPC_DEPTH: usize = 2_000;
/// A worker that has not reported for this long is gone; it reports each 5 s.
const WORKER_AGE: Duration = Duration::from_secs(20);

/// Every stream of a deployment, those behind the buckets included.
pub(super) fn streams(names: &Assets, plan: &AssetPlan) -> Vec<Value> {
    let results = json!({
        "max_msgs_per_subject": 1,
        "max_msgs": plan.max_results.get(),
    });
    vec![
        queue(
            names.jobs(),
            names.jobs_subjects(),
            plan,
            (Storage::File, plan.jobs_bytes),
        ),
        queue(
            names.bulk(),
            names.bulk_subjects(),
            plan,
            (plan.bulk_storage, plan.bulk_bytes),
        ),
        rpc(names, plan),
        stream(
            names.results(),
            names.results_subjects(),
            plan,
            plan.results_bytes,
            plan.keep_results,
            results,
        ),
        stream(
            names.dead(),
            names.dead_subjects(),
            plan,
            plan.dead_bytes,
            30 * DAY,
            json!({}),
        ),
        key_value(
            names.models_kv(),
            plan,
            MODELS_KV_BYTES,
            Duration::ZERO,
            json!({"max_msgs_per_subject": 10}),
        ),
        key_value(
            names.workers_kv(),
            plan,
            WORKERS_KV_BYTES,
            WORKER_AGE,
            json!({"storage": plan.passing_storage().as_str()}),
        ),
        key_value(names.cancel_kv(), plan, CANCEL_KV_BYTES, 7 * DAY, json!({})),
        object(names.models_obj(), plan, plan.models_bytes, Duration::ZERO),
        object(names.blobs_obj(), plan, plan.blobs_bytes, DAY),
    ]
}

/// Fields of a stream that newer servers know and older ones may do without.
///
/// Dead letters are written seldom and kept for weeks, so for them disk is worth more than time.
pub(super) fn optional(names: &Assets, stream: &str) -> Value {
    if stream == names.dead() {
        json!({ "compression": "s2" })
    } else {
        json!({})
    }
}

/// The consumers of one model, each with the name of its stream.
pub(super) fn consumers(
    subjects: &Subjects,
    names: &Assets,
    model: &ModelName,
) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for lane in Lane::ALL {
        let name = names.consumer(model, lane);
        let job = subjects.job(model, lane);
        all.push((
            names.stream_of(lane).to_owned(),
            consumer(&name, &job, Duration::from_secs(30), -1),
        ));
        // A caller waits at most a minute, so a lost RPC is tried once more and then dropped.
        let rpc = subjects.queued_rpc(model, lane);
        all.push((
            names.rpc().to_owned(),
            consumer(&name, &rpc, Duration::from_secs(10), 2),
        ));
    }
    all
}

fn queue(
    name: &str,
    subjects: Vec<String>,
    plan: &AssetPlan,
    (storage, max_bytes): (Storage, ByteSize),
) -> Value {
    let queue = json!({
        "retention": "workqueue",
        "storage": storage.as_str(),
        "discard": "new",
        "discard_new_per_subject": true,
        "max_msgs_per_subject": plan.queue_depth.get(),
    });
    stream(name, subjects, plan, max_bytes, JOBS_KEPT, queue)
}

fn rpc(names: &Assets, plan: &AssetPlan) -> Value {
    let queue = json!({
        "retention": "workqueue",
        "storage": plan.passing_storage().as_str(),
        "discard": "new",
        "discard_new_per_subject": true,
        "max_msgs_per_subject": RPC_DEPTH,
    });
    stream(
        names.rpc(),
        names.rpc_subjects(),
        plan,
        plan.rpc_bytes,
        RPC_AGE,
        queue,
    )
}

fn key_value(
    bucket: &str,
    plan: &AssetPlan,
    max_bytes: ByteSize,
    max_age: Duration,
    more: Value,
) -> Value {
    let mut config = stream(
        &format!("KV_{bucket}"),
        vec![format!("$KV.{bucket}.>")],
        plan,
        max_bytes,
        max_age,
        json!({
            "max_msgs_per_subject": 1,
            "discard": "new",
            "allow_rollup_hdrs": true,
            "deny_delete": true,
        }),
    );
    merge(&mut config, more);
    config
}

fn object(bucket: &str, plan: &AssetPlan, max_bytes: ByteSize, max_age: Duration) -> Value {
    stream(
        &format!("OBJ_{bucket}"),
        vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
        plan,
        max_bytes,
        max_age,
        json!({ "discard": "new", "allow_rollup_hdrs": true }),
    )
}

/// What all streams share; `more` replaces or adds fields.
fn stream(
    name: &str,
    subjects: Vec<String>,
    plan: &AssetPlan,
    max_bytes: ByteSize,
    max_age: Duration,
    more: Value,
) -> Value {
    // The server shortens a window that is longer than the messages live, so ask for what it gives.
    let dedupe = if max_age.is_zero() {
        DEDUPE
    } else {
        DEDUPE.min(max_age)
    };
    let mut config = json!({
        "name": name,
        "subjects": subjects,
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "num_replicas": plan.replicas.get(),
        "max_consumers": -1,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_bytes": max_bytes.as_u64(),
        "max_age": nanos(max_age),
        "max_msg_size": -1,
        "duplicate_window": nanos(dedupe),
        "allow_direct": true,
    });
    merge(&mut config, more);
    config
}

/// Only the worker ends a job, so durable consumers never give up (`max_deliver` -1); redelivery
/// delays come from the worker, so there is no `backoff`, which would distort them.
fn consumer(name: &str, subject: &str, ack_wait: Duration, max_deliver: i64) -> Value {
    json!({
        "durable_name": name,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "replay_policy": "instant",
        "filter_subject": subject,
        "ack_wait": nanos(ack_wait),
        "max_deliver": max_deliver,
        "max_ack_pending": 65_536,
        "max_waiting": 4_096,
    })
}

fn merge(config: &mut Value, more: Value) {
    if let (Value::Object(config), Value::Object(more)) = (config, more) {
        config.extend(more);
    }
}

/// Durations cross the JetStream API in nanoseconds; the longest one here is 30 days.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_and_bucket_is_bounded() {
        let subjects = Subjects::default();
        let choices =
            [1, 3].map(|replicas| [Storage::File, Storage::Memory].map(|bulk| (replicas, bulk)));
        for (replicas, bulk_storage) in choices.into_iter().flatten() {
            let plan = AssetPlan {
                replicas: replicas.try_into().expect("not zero"),
                bulk_storage,
                ..AssetPlan::default()
            };
            let all = streams(&Assets::new(&subjects), &plan);
            assert_eq!(all.len(), 10);
            for config in &all {
                let bytes = config["max_bytes"]
                    .as_u64()
                    .expect("every stream says its size");
                assert!(bytes > 0, "{config}");
            }
            let sum = |storage: &str| -> u64 {
                let of_storage = all.iter().filter(|config| config["storage"] == storage);
                of_storage
                    .filter_map(|config| config["max_bytes"].as_u64())
                    .sum()
            };
            assert_eq!(sum("file"), plan.file_bytes().as_u64());
            assert_eq!(sum("memory"), plan.memory_bytes().as_u64());
        }
    }

    #[test]
    fn no_window_is_longer_than_its_stream_remembers() {
        let subjects = Subjects::default();
        for config in streams(&Assets::new(&subjects), &AssetPlan::default()) {
            let age = config["max_age"].as_u64().unwrap_or_default();
            let window = config["duplicate_window"].as_u64().unwrap_or_default();
            assert!(age == 0 || window <= age, "{config}");
        }
    }

    #[test]
    fn a_model_has_a_consumer_per_lane_on_jobs_and_on_rpc() {
        let subjects = Subjects::default();
        let model: ModelName = "digits".parse().expect("a valid name");
        let all = consumers(&subjects, &Assets::new(&subjects), &model);
        let on = |stream: &str| all.iter().filter(|(name, _)| name == stream).count();
        assert_eq!(
            (on("INFER_JOBS"), on("INFER_BULK"), on("INFER_RPC")),
            (2, 1, 3)
        );
        assert!(all.iter().all(|(_, config)| config["max_waiting"] == 4_096));
    }
}
