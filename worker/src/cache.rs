//! Finished answers, so that equal work is done once: memory in front, Redis behind.
//!
//! The cache is an aid, never a part a job depends on. A tier that is slow, down or wrong about its size costs a
//! counted miss and at most [`LOOKUP_BUDGET`]; nothing here returns an error to the stage that looks up.

mod breaker;
mod memory;
mod redis;
mod writer;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use inferq_schemas::cache_key::CacheKey;
use inferq_schemas::identity::Digest;
use tracing::debug;

use crate::config::CacheArgs;
use crate::metrics::{DropReason, LookupResult, Metrics, Tier};

pub use memory::MemoryCache;
pub use redis::RedisCache;
use writer::Writer;

/// Longest a job waits for the shared tier before it is run as if the answer were not there.
pub const LOOKUP_BUDGET: Duration = Duration::from_millis(5);

/// Largest answer that is kept. A larger one costs more to move than most models cost to run.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// How long an answer found in Redis stays in memory. Its own remaining time is not asked for, so this is short.
const PROMOTED_TTL: Duration = Duration::from_secs(60);

/// Why a tier gave no answer. Every variant is a miss to the caller.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The tier did not answer within its budget.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The tier failed lately and is left alone for a while.
    #[error("left alone after repeated failures")]
    Open,
    /// The tier answered with an error, or the connection to it broke.
    #[error("the cache failed")]
    Failed(#[from] ::redis::RedisError),
    /// The tier answered something that is not one value or nothing for each key.
    #[error("{found} values for {asked} keys")]
    Misfit {
        /// Keys asked for.
        asked: usize,
        /// Values that came.
        found: usize,
    },
}

/// What a tier returns.
pub type CacheResult<T> = Result<T, CacheError>;

/// Finished answers, keyed by everything that determines them.
///
/// A tier may forget or fail at any time. It never returns an answer stored under another key, and it returns within
/// its own time limit whatever happens behind it.
pub trait ResultCache: Send + Sync {
    /// One value or nothing for each key, in the order of `keys`.
    fn get_many(
        &self,
        version: &Digest,
        keys: &[CacheKey],
    ) -> impl Future<Output = CacheResult<Vec<Option<Bytes>>>> + Send;

    /// Keeps each entry for `ttl`; the last writer wins.
    fn put_many(
        &self,
        version: &Digest,
        entries: &[(CacheKey, Bytes)],
        ttl: Duration,
    ) -> impl Future<Output = CacheResult<()>> + Send;
}

/// The cache as the lookup stage sees it: cannot fail, never waits long.
#[derive(Clone)]
pub struct Cache(Arc<Tiers>);

struct Tiers {
    memory: Option<MemoryCache>,
    shared: Option<Shared>,
    metrics: Metrics,
}

struct Shared {
    redis: Arc<RedisCache>,
    writer: Writer,
}

impl Cache {
    /// Opens the tiers that `args` name. Redis is connected to in the background, now or whenever it comes up.
    ///
    /// Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// [`CacheError::Failed`] if the Redis URL cannot be read; a Redis that is down is no error.
    pub fn open(args: &CacheArgs, metrics: Metrics) -> CacheResult<Self> {
        let memory =
            (args.cache_memory.bytes() > 0).then(|| MemoryCache::new(args.cache_memory.bytes()));
        let shared = match &args.redis {
            Some(url) => {
                let redis = Arc::new(RedisCache::open(url)?);
                let writer = Writer::start(redis.clone(), metrics.clone());
                Some(Shared { redis, writer })
            }
            None => None,
        };
        Ok(Self(Arc::new(Tiers {
            memory,
            shared,
            metrics,
        })))
    }

    /// One answer or nothing for each key, in the order of `keys`, within [`LOOKUP_BUDGET`].
    pub async fn get_many(&self, version: &Digest, keys: &[CacheKey]) -> Vec<Option<Bytes>> {
        let mut found = self.0.ask_memory(version, keys);
        let missing: Vec<usize> = (0..keys.len())
            .filter(|&place| found[place].is_none())
            .collect();
        if let Some(shared) = &self.0.shared
            && !missing.is_empty()
        {
            let asked: Vec<CacheKey> = missing.iter().map(|&place| keys[place]).collect();
            let answers = self.0.ask_redis(shared, version, &asked).await;
            for (place, answer) in missing.into_iter().zip(answers) {
                found[place] = answer;
            }
        }
        found
    }

    /// Keeps answers for `ttl`. Returns at once; the shared tier is written in the background, and what does not fit
    /// into the queue of writes is dropped and counted.
    pub fn put_many(&self, version: &Digest, entries: Vec<(CacheKey, Bytes)>, ttl: Duration) {
        let offered = entries.len();
        let entries: Vec<_> = entries
            .into_iter()
            .filter(|(_, answer)| answer.len() <= MAX_VALUE_BYTES)
            .collect();
        self.0
            .metrics
            .cache_dropped_writes(DropReason::TooLarge, offered - entries.len());
        if entries.is_empty() {
            return;
        }
        if let Some(memory) = &self.0.memory {
            memory.insert(version, entries.iter().cloned(), ttl);
        }
        if let Some(shared) = &self.0.shared {
            shared.writer.put(*version, entries, ttl);
        }
    }
}

impl Tiers {
    fn ask_memory(&self, version: &Digest, keys: &[CacheKey]) -> Vec<Option<Bytes>> {
        let Some(memory) = &self.memory else {
            return vec![None; keys.len()];
        };
        let found = memory.look_up(version, keys);
        self.count(Tier::Memory, &found);
        found
    }

    async fn ask_redis(
        &self,
        shared: &Shared,
        version: &Digest,
        keys: &[CacheKey],
    ) -> Vec<Option<Bytes>> {
        match shared.redis.get_many(version, keys).await {
            Ok(found) => {
                self.count(Tier::Redis, &found);
                if let Some(memory) = &self.memory {
                    let hits = keys
                        .iter()
                        .zip(&found)
                        .filter_map(|(key, answer)| Some((*key, answer.clone()?)));
                    memory.insert(version, hits, PROMOTED_TTL);
                }
                found
            }
            Err(error) => {
                debug!(%error, "the shared cache gave no answer");
                self.metrics
                    .cache_lookups(Tier::Redis, LookupResult::Error, keys.len());
                vec![None; keys.len()]
            }
        }
    }

    fn count(&self, tier: Tier, found: &[Option<Bytes>]) {
        let hits = found.iter().flatten().count();
        self.metrics.cache_lookups(tier, LookupResult::Hit, hits);
        self.metrics
            .cache_lookups(tier, LookupResult::Miss, found.len() - hits);
    }
}
