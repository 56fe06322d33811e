//! The tier inside this process: bounded by bytes, each entry with its own time to live.

use std::time::{Duration, Instant};

use bytes::Bytes;
use inferq_schemas::cache_key::CacheKey;
use inferq_schemas::identity::Digest;
use moka::Expiry;
use moka::sync::Cache;

use super::{CacheResult, ResultCache};

/// Memory one entry takes beside its answer: two 32-byte digests and the bookkeeping of the map, roughly.
const ENTRY_BYTES: usize = 256;

type Key = (Digest, CacheKey);

#[derive(Clone)]
struct Entry {
    answer: Bytes,
    ttl: Duration,
}

/// Answers in this process's memory. Least used ones make room for new ones.
pub struct MemoryCache {
    entries: Cache<Key, Entry>,
}

impl MemoryCache {
    /// A cache of at most `capacity` bytes, answers and bookkeeping together.
    pub fn new(capacity: u64) -> Self {
        let weigh = |_: &Key, entry: &Entry| {
            u32::try_from(entry.answer.len() + ENTRY_BYTES).unwrap_or(u32::MAX)
        };
        let entries = Cache::builder()
            .max_capacity(capacity)
            .weigher(weigh)
            .expire_after(OwnTtl)
            .build();
        Self { entries }
    }

    /// One value or nothing for each key.
    pub fn look_up(&self, version: &Digest, keys: &[CacheKey]) -> Vec<Option<Bytes>> {
        keys.iter()
            .map(|key| {
                self.entries
                    .get(&(*version, *key))
                    .map(|entry| entry.answer)
            })
            .collect()
    }

    /// Keeps each entry for `ttl`.
    pub fn insert(
        &self,
        version: &Digest,
        entries: impl Iterator<Item = (CacheKey, Bytes)>,
        ttl: Duration,
    ) {
        for (key, answer) in entries {
            // A slice keeps the whole buffer alive that it was cut from, which the weight would not count.
            let answer = Bytes::copy_from_slice(&answer);
            self.entries.insert((*version, key), Entry { answer, ttl });
        }
    }
}

impl ResultCache for MemoryCache {
    async fn get_many(
        &self,
        version: &Digest,
        keys: &[CacheKey],
    ) -> CacheResult<Vec<Option<Bytes>>> {
        Ok(self.look_up(version, keys))
    }

    async fn put_many(
        &self,
        version: &Digest,
        entries: &[(CacheKey, Bytes)],
        ttl: Duration,
    ) -> CacheResult<()> {
        self.insert(version, entries.iter().cloned(), ttl);
        Ok(())
    }
}

/// Each entry lives as long as it was put for, counted anew when it is put again.
struct OwnTtl;

impl Expiry<Key, Entry> for OwnTtl {
    fn expire_after_create(&self, _: &Key, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.ttl)
    }

    fn expire_after_update(
        &self,
        _: &Key,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.ttl)
    }
}
