//! Which worker sweeps: one key in the bucket `infer_workers`, taken and renewed by compare-and-set.
//!
//! The bucket forgets a key 20 s after its last write, so the lease of a worker that died is free by itself. A process
//! takes at once what it finds under its own id when it starts: that is its predecessor's. Later it is not, so two
//! processes of one id do not take it from each other for ever.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, kv};
use bytes::Bytes;
use tokio::time::timeout;
use tracing::debug;

/// How often the lease is renewed, or tried for.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(5);

/// A lease that could not be renewed for this long is given up, before the bucket gives it to another.
const HELD_WITHOUT_ANSWER: Duration = Duration::from_secs(15);

/// Longest one exchange with the server may take.
const LIMIT: Duration = Duration::from_secs(3);

/// The key; no worker may have this name.
const KEY: &str = "sweeper";

pub(super) struct Lease {
    jetstream: jetstream::Context,
    bucket: String,
    holder: String,
    /// Revision of our own last write, while we hold it.
    revision: Option<u64>,
    /// Whether this process has not yet seen who holds it.
    starts: bool,
}

impl Lease {
    pub(super) fn new(jetstream: jetstream::Context, bucket: String, holder: String) -> Self {
        Self {
            jetstream,
            bucket,
            holder,
            revision: None,
            starts: true,
        }
    }

    /// Tries to take the lease; whether we hold it now.
    pub(super) async fn hold(&mut self) -> bool {
        let mut written = self.write().await;
        if self.starts && matches!(written, Err(Refusal::Taken)) {
            match self.of_our_id().await {
                Ok(None) => {}
                Ok(revision) => {
                    self.revision = revision;
                    written = self.write().await;
                }
                Err(refusal) => written = Err(refusal),
            }
        }
        self.starts &= matches!(written, Err(Refusal::NoAnswer));
        self.revision = written
            .inspect_err(|refusal| debug!(?refusal, "the sweeper's lease is not ours"))
            .ok();
        self.revision.is_some()
    }

    /// Renews the lease; returns when it is lost.
    pub(super) async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            match self.write().await {
                Ok(revision) => {
                    self.revision = Some(revision);
                    renewed = Instant::now();
                }
                Err(Refusal::NoAnswer) if renewed.elapsed() < HELD_WITHOUT_ANSWER => {}
                Err(_) => break,
            }
        }
        self.revision = None;
    }

    /// Frees the lease for the next worker, if we hold it.
    pub(super) async fn give_back(&mut self) {
        if let (Some(revision), Ok(bucket)) = (self.revision.take(), self.bucket().await) {
            // Not freed, it expires.
            let _ = timeout(LIMIT, bucket.delete_expect_revision(KEY, Some(revision))).await;
        }
    }

    /// The revision that a process before this one wrote under our id, if it was the last.
    async fn of_our_id(&self) -> Result<Option<u64>, Refusal> {
        let bucket = self.bucket().await?;
        let entry = answer(bucket.entry(KEY)).await?;
        let ours = entry.filter(|entry| entry.value == self.holder.as_bytes());
        Ok(ours.map(|entry| entry.revision))
    }

    async fn write(&self) -> Result<u64, Refusal> {
        let bucket = self.bucket().await?;
        let holder = Bytes::from(self.holder.clone());
        let taken =
            async {
                match self.revision {
                    Some(revision) => bucket.update(KEY, holder, revision).await.map_err(|error| {
                        match error.kind() {
                            kv::UpdateErrorKind::WrongLastRevision => Refusal::Taken,
                            _ => Refusal::NoAnswer,
                        }
                    }),
                    None => bucket
                        .create(KEY, holder)
                        .await
                        .map_err(|error| match error.kind() {
                            kv::CreateErrorKind::AlreadyExists => Refusal::Taken,
                            _ => Refusal::NoAnswer,
                        }),
                }
            };
        timeout(LIMIT, taken)
            .await
            .unwrap_or(Err(Refusal::NoAnswer))
    }

    async fn bucket(&self) -> Result<kv::Store, Refusal> {
        answer(self.jetstream.get_key_value(&self.bucket)).await
    }
}

/// What the server says, if it does so in time.
async fn answer<T, E>(asked: impl Future<Output = Result<T, E>>) -> Result<T, Refusal> {
    match timeout(LIMIT, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(Refusal::NoAnswer),
    }
}

/// Why the lease was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Somebody else wrote it since.
    Taken,
    /// The server or the bucket is not there; we may or may not have it.
    NoAnswer,
}
