//! A worker's record in its bucket, from start to stop.

use async_nats::jetstream::kv::Store;
use inferq_schemas::registry::{WorkerRecord, WorkerState};
use inferq_worker::presence::Presence;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::nats::{Nats, eventually};

const ID: &str = "worker-1";

struct Running {
    state: watch::Sender<WorkerState>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn start(nats: &Nats) -> Running {
    let presence = Presence {
        jetstream: nats.jetstream.clone(),
        bucket: nats.assets.workers_kv().to_owned(),
        worker_id: ID.to_owned(),
    };
    let (state, shown) = watch::channel(WorkerState::Starting);
    let stop = CancellationToken::new();
    let ended = stop.clone();
    let seen = shown.clone();
    let task =
        tokio::spawn(async move { presence.run(|| record(*seen.borrow()), shown, ended).await });
    Running { state, stop, task }
}

fn record(state: WorkerState) -> WorkerRecord {
    WorkerRecord {
        id: ID.to_owned(),
        host: "host".to_owned(),
        pid: 1,
        program_version: "0".to_owned(),
        started_unix_ms: 0,
        seen_unix_ms: 0,
        ready: state == WorkerState::Ready,
        state,
        http: None,
        executors: 1,
        room_rows: 64,
        free_rows: 64,
        jobs_done: 0,
        models: Vec::new(),
    }
}

async fn shows(bucket: &Store, state: WorkerState) -> bool {
    let value = bucket.get(ID).await.expect("the bucket answers");
    value.is_some_and(|json| {
        serde_json::from_slice::<WorkerRecord>(&json)
            .expect("a record")
            .state
            == state
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_shows_each_state_at_once_and_vanishes_when_it_stops() {
    let nats = Nats::with_assets().await;
    let running = start(&nats);
    let bucket = nats.workers().await;
    for state in [
        WorkerState::Starting,
        WorkerState::Ready,
        WorkerState::Draining,
    ] {
        running.state.send_replace(state);
        let changed = std::time::Instant::now();
        eventually("the state is shown", async || shows(&bucket, state).await).await;
        assert!(
            changed.elapsed().as_secs() < 3,
            "it waited for the next beat"
        );
    }
    running.stop.cancel();
    running.task.await.expect("no panic");
    assert_eq!(bucket.get(ID).await.expect("the bucket answers"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_a_missing_bucket_and_does_not_make_it() {
    let nats = Nats::start().await;
    let running = start(&nats);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(
        nats.jetstream
            .get_key_value(nats.assets.workers_kv())
            .await
            .is_err(),
        "somebody made the bucket"
    );
    nats.add_workers_bucket().await;
    let bucket = nats.workers().await;
    eventually("the record is there", async || {
        shows(&bucket, WorkerState::Starting).await
    })
    .await;
    running.stop.cancel();
    running.task.await.expect("no panic");
}
