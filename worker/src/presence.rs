//! Tells the system that this worker lives: its record in the key-value bucket `infer_workers`.
//!
//! Written every few seconds and at each change; entries of the bucket expire by themselves, so a worker that was
//! killed vanishes too. Workers never create the bucket.

use std::time::Duration;

use async_nats::jetstream::{self, kv};
use bytes::Bytes;
use inferq_schemas::registry::WorkerRecord;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often the record is written: entries expire after 20 s, so three writes may be lost.
const BEAT: Duration = Duration::from_secs(5);

/// Longest one exchange with the server may take.
const LIMIT: Duration = Duration::from_secs(3);

/// Where the record is kept.
pub struct Presence {
    /// The connection.
    pub jetstream: jetstream::Context,
    /// The bucket's name.
    pub bucket: String,
    /// This worker's id, the record's key.
    pub worker_id: String,
}

impl Presence {
    /// Writes what `record` says, each beat and at each change of `changed`, until `stop`; then removes it.
    pub async fn run<T>(
        self,
        record: impl Fn() -> WorkerRecord,
        mut changed: watch::Receiver<T>,
        stop: CancellationToken,
    ) {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lost = false;
        let mut watching = true;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                change = changed.changed(), if watching => watching = change.is_ok(),
                _ = beat.tick() => {}
            }
            let problem = self.write(&record()).await.err();
            match &problem {
                Some(problem) if !lost => {
                    warn!(
                        bucket = self.bucket,
                        problem, "worker record not kept, trying again every {BEAT:?}"
                    );
                }
                None if lost => info!(bucket = self.bucket, "worker record is kept again"),
                _ => {}
            }
            lost = problem.is_some();
        }
        self.remove().await;
    }

    async fn write(&self, record: &WorkerRecord) -> Result<(), String> {
        let json = serde_json::to_vec(record).map_err(|error| error.to_string())?;
        let bucket = self.bucket().await?;
        let written = timeout(LIMIT, bucket.put(&self.worker_id, Bytes::from(json))).await;
        written
            .map_err(|_| "no answer".to_owned())?
            .map(drop)
            .map_err(|error| error.to_string())
    }

    async fn remove(&self) {
        let Ok(bucket) = self.bucket().await else {
            return;
        };
        if !matches!(
            timeout(LIMIT, bucket.delete(&self.worker_id)).await,
            Ok(Ok(()))
        ) {
            info!(
                bucket = self.bucket,
                "worker record not removed, it will expire"
            );
        }
    }

    async fn bucket(&self) -> Result<kv::Store, String> {
        use async_nats::jetstream::context::KeyValueErrorKind;
        match timeout(LIMIT, self.jetstream.get_key_value(&self.bucket)).await {
            Err(_) => Err("no answer".to_owned()),
            Ok(Ok(bucket)) => Ok(bucket),
            Ok(Err(error)) if error.kind() == KeyValueErrorKind::GetBucket => Err(format!(
                "{error}; if the bucket is missing, run `inferq init`"
            )),
            Ok(Err(error)) => Err(error.to_string()),
        }
    }
}
