//! Writes to the shared tier behind the jobs' back: a bounded queue, one task, and a counter of what did not fit.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use inferq_schemas::cache_key::CacheKey;
use inferq_schemas::identity::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tracing::debug;

use super::{RedisCache, ResultCache};
use crate::metrics::{DropReason, Metrics};

/// Writes that may wait.
const WAITING: usize = 1_024;

/// Memory of waiting writes, in KiB: 32 MiB.
const WAITING_KIB: usize = 32 * 1_024;

/// How often the connection is tried while nobody asks, so that a first job finds it made.
const PROBE_EVERY: Duration = Duration::from_secs(5);

struct Write {
    version: Digest,
    entries: Vec<(CacheKey, Bytes)>,
    ttl: Duration,
    /// Its share of the memory, given back when it is written.
    _memory: OwnedSemaphorePermit,
}

/// The entrance to the queue of writes. Dropping it ends the task, without waiting for what is queued.
pub(super) struct Writer {
    queue: mpsc::Sender<Write>,
    memory: Arc<Semaphore>,
    task: JoinHandle<()>,
    metrics: Metrics,
}

impl Writer {
    /// Starts the task that writes to `redis` and keeps the connection to it made.
    pub(super) fn start(redis: Arc<RedisCache>, metrics: Metrics) -> Self {
        let (queue, writes) = mpsc::channel(WAITING);
        let task = tokio::spawn(run(redis, writes, metrics.clone()));
        Self {
            queue,
            memory: Arc::new(Semaphore::new(WAITING_KIB)),
            task,
            metrics,
        }
    }

    /// Queues a write, or drops and counts it.
    pub(super) fn put(&self, version: Digest, entries: Vec<(CacheKey, Bytes)>, ttl: Duration) {
        let count = entries.len();
        let bytes: usize = entries.iter().map(|(_, answer)| answer.len()).sum();
        let share = u32::try_from(bytes / 1_024 + 1).unwrap_or(u32::MAX);
        let queued = self
            .memory
            .clone()
            .try_acquire_many_owned(share)
            .is_ok_and(|memory| {
                self.queue
                    .try_send(Write {
                        version,
                        entries,
                        ttl,
                        _memory: memory,
                    })
                    .is_ok()
            });
        if !queued {
            self.metrics.cache_dropped_writes(DropReason::Full, count);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(redis: Arc<RedisCache>, mut writes: mpsc::Receiver<Write>, metrics: Metrics) {
    let mut probe = tokio::time::interval(PROBE_EVERY);
    probe.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            write = writes.recv() => match write {
                Some(write) => {
                    if let Err(error) = redis.put_many(&write.version, &write.entries, write.ttl).await {
                        debug!(%error, "answers not written to the shared cache");
                        metrics.cache_dropped_writes(DropReason::Error, write.entries.len());
                    }
                }
                None => return,
            },
            _ = probe.tick() => {
                // The breaker logs what there is to say about a failure.
                let _ = redis.warm_up().await;
            }
        }
    }
}
