//! Tells the system that this worker lives: its record in the key-value bucket `infer_workers`.
//!
//! Written every few seconds and at each change; entries of the bucket expire by themselves, so a worker that was
//! killed vanishes too. Workers never create the bucket. The stamp that the server puts on the record
//! tells what time it is there.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::{self, kv};
use bytes::Bytes;
use inferq_schemas::registry::WorkerRecord;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::clock;

/// How often the record is written: entries expire after 20 s, so three writes may be lost.
const BEAT: Duration = Duration::from_secs(5);

/// The clocks are compared at each so many beats, once a minute: they drift slowly, and are seldom set.
const COMPARE_EACH: u32 = 12;

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

/// A record that was kept.
struct Kept {
    bucket: kv::Store,
    revision: u64,
    /// When, by our own clock.
    between: RangeInclusive<u64>,
}

impl Presence {
    /// Writes `record` once and compares the clocks, before anything depends on them.
    pub async fn announce(&self, record: &WorkerRecord) {
        // Without a record the clocks are taken to agree; that it cannot be kept is said by `run`.
        if let Ok(kept) = self.write(record).await {
            self.compare_clocks(&kept).await;
        }
    }

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
        let mut beats = 0_u32;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                change = changed.changed(), if watching => watching = change.is_ok(),
                _ = beat.tick() => beats = beats.wrapping_add(1),
            }
            let written = self.write(&record()).await;
            if let Ok(kept) = &written
                && beats.is_multiple_of(COMPARE_EACH)
            {
                self.compare_clocks(kept).await;
            }
            let problem = written.err();
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

    async fn write(&self, record: &WorkerRecord) -> Result<Kept, String> {
        let json = serde_json::to_vec(record).map_err(|error| error.to_string())?;
        let bucket = self.bucket().await?;
        let before = clock::own_unix_ms();
        let written = timeout(LIMIT, bucket.put(&self.worker_id, Bytes::from(json))).await;
        let revision = written
            .map_err(|_| "no answer".to_owned())?
            .map_err(|error| error.to_string())?;
        Ok(Kept {
            bucket,
            revision,
            between: before..=clock::own_unix_ms(),
        })
    }

    /// Reads when the server kept the record. Failing that, the clocks are as they were.
    async fn compare_clocks(&self, kept: &Kept) {
        match timeout(LIMIT, kept.bucket.entry(&self.worker_id)).await {
            Ok(Ok(Some(entry))) if entry.revision == kept.revision => {
                let stamp = SystemTime::from(entry.created);
                clock::compare(clock::unix_ms(stamp), &kept.between);
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => debug!(%error, "the clocks could not be compared"),
            Err(_) => debug!("the clocks could not be compared: no answer"),
        }
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
