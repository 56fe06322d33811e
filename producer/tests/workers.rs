//! The records of workers, which change while they are read.

mod common;

use std::time::Duration;

use inferq::AssetPlan;
use serde_json::json;

use common::{SOON, deployment};

fn record(id: &str, beat: u64) -> String {
    json!({
        "id": id, "host": "h", "pid": 1, "program_version": "0", "started_unix_ms": 0,
        "seen_unix_ms": beat, "ready": true, "state": "ready", "executors": 1, "room_rows": 1,
        "free_rows": 1, "jobs_done": 0, "models": [],
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_listed_while_all_of_them_report() {
    let deployment = deployment(AssetPlan::default()).await;
    let jetstream = async_nats::jetstream::new(deployment.client.nats().clone());
    let bucket = jetstream.get_key_value("infer_workers").await;
    let bucket = bucket.expect("the bucket exists");
    let ids = ["w1", "w2", "w3"];
    for id in ids {
        let written = bucket.put(id, record(id, 0).into()).await;
        written.expect("it fits");
    }
    // A key that was deleted leaves a marker behind, and is no worker.
    bucket
        .put("gone", record("gone", 0).into())
        .await
        .expect("it fits");
    bucket.delete("gone").await.expect("it is there");
    let reports = tokio::spawn(async move {
        for beat in 1.. {
            for id in ids {
                bucket.put(id, record(id, beat).into()).await.ok();
            }
            tokio::time::sleep(Duration::from_micros(beat % 7 * 100)).await;
        }
    });
    for _ in 0..300 {
        let listed = tokio::time::timeout(SOON, deployment.client.workers()).await;
        let listed = listed.expect("the list ends").expect("the bucket is there");
        let listed: Vec<&str> = listed.iter().map(|worker| worker.id.as_str()).collect();
        assert_eq!(listed, ids);
    }
    reports.abort();
    assert_eq!(
        deployment.client.models().await.expect("it is there"),
        ["digits"]
    );
}
