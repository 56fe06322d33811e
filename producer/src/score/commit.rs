//! Keeps finished chunks, a part at a time, on a thread of its own: a sync of the disk must not hold up
//! what is in flight.

use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle, time::timeout};

use super::{
    error::ScoreError,
    folder::{About, RunFolder},
};

/// A part is written when it has so many bytes, or the oldest of its chunks is so old. What is not
/// written is computed again after a crash, unless its outcome still stands.
const PART_BYTES: usize = 8 << 20;
const PART_AGE: Duration = Duration::from_secs(1);
/// Finished chunks that wait for the thread.
const WAITING: usize = 4;

/// A chunk with all its rows in place, those that failed as nulls.
#[derive(Debug)]
pub(super) struct Scored {
    pub(super) index: u64,
    pub(super) batch: RecordBatch,
    /// The rows that failed, as JSON lines.
    pub(super) errors: Vec<String>,
    pub(super) compute: Duration,
    pub(super) cache_hits: u64,
}

/// The thread, and the way to it.
#[derive(Debug)]
pub(super) struct Committer {
    scored: mpsc::Sender<Scored>,
    thread: JoinHandle<Result<RunFolder, ScoreError>>,
}

impl Committer {
    pub(super) fn start(mut folder: RunFolder) -> Self {
        let (scored, mut chunks) = mpsc::channel(WAITING);
        let handle = Handle::current();
        let thread = tokio::task::spawn_blocking(move || {
            let mut part = Part::default();
            loop {
                let patience = part
                    .began
                    .map_or(PART_AGE, |began| PART_AGE.saturating_sub(began.elapsed()));
                let next = handle.block_on(async { timeout(patience, chunks.recv()).await });
                let ended = matches!(next, Ok(None));
                if let Ok(Some(chunk)) = next {
                    part.push(chunk);
                }
                if ended || part.is_due() {
                    std::mem::take(&mut part).commit(&mut folder)?;
                }
                if ended {
                    return Ok(folder);
                }
            }
        });
        Self { scored, thread }
    }

    /// Hands a chunk over; `false` once the thread has ended, which [`finish`](Self::finish) explains.
    pub(super) async fn keep(&self, chunk: Scored) -> bool {
        self.scored.send(chunk).await.is_ok()
    }

    /// Waits until everything handed over is kept.
    pub(super) async fn finish(self) -> Result<RunFolder, ScoreError> {
        drop(self.scored);
        let ended = self.thread.await;
        ended.map_err(|_| ScoreError::Panicked("the thread that keeps finished chunks"))?
    }
}

/// Chunks that will be one file.
#[derive(Debug, Default)]
struct Part {
    began: Option<Instant>,
    bytes: usize,
    about: About,
    batches: Vec<RecordBatch>,
    errors: Vec<String>,
}

impl Part {
    fn push(&mut self, chunk: Scored) {
        self.began.get_or_insert_with(Instant::now);
        self.bytes += chunk.batch.get_array_memory_size();
        self.about.chunks.push(chunk.index);
        self.about.rows += chunk.batch.num_rows() as u64;
        self.about.errors += chunk.errors.len() as u64;
        self.about.compute_us += u64::try_from(chunk.compute.as_micros()).unwrap_or(u64::MAX);
        self.about.cache_hits += chunk.cache_hits;
        self.batches.push(chunk.batch);
        self.errors.extend(chunk.errors);
    }

    fn is_due(&self) -> bool {
        let old = self.began.is_some_and(|began| began.elapsed() >= PART_AGE);
        old || self.bytes >= PART_BYTES
    }

    fn commit(self, folder: &mut RunFolder) -> Result<(), ScoreError> {
        folder.commit(self.about, &self.batches, &self.errors)
    }
}
