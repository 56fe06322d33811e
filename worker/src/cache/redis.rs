//! The tier that workers share. Redis may be down, slow or frozen at any time; a breaker then leaves it alone.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use inferq_schemas::cache_key::CacheKey;
use inferq_schemas::identity::Digest;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Pipeline, RedisError};
use tracing::{info, warn};

use super::breaker::{Breaker, Change};
use super::{CacheError, CacheResult, LOOKUP_BUDGET, ResultCache};
use crate::clock::millis;
use crate::config::SecretUrl;

/// Longest a write or a first connection may take: nobody waits for either.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(1);

/// Requests under way on the one connection; beyond them a lookup waits, and so times out.
const MAX_CONCURRENT: usize = 1_024;

/// Answers in Redis, under keys that name the version's digest and the request's hash.
pub struct RedisCache {
    connection: ConnectionManager,
    breaker: Mutex<Breaker>,
}

impl RedisCache {
    /// A cache at `url`, connected to by the first calls. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// [`CacheError::Failed`] if the URL cannot be read.
    pub fn open(url: &SecretUrl) -> CacheResult<Self> {
        // Reconnecting is paced by the breaker, so one attempt per call is enough.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(BACKGROUND_LIMIT))
            .set_response_timeout(Some(BACKGROUND_LIMIT))
            .set_concurrency_limit(MAX_CONCURRENT);
        let connection =
            ConnectionManager::new_lazy_with_config(Client::open(url.expose())?, config)?;
        Ok(Self {
            connection,
            breaker: Mutex::new(Breaker::new()),
        })
    }

    /// Makes the connection, or tells the breaker that it cannot be made. A lookup's budget is too short for it.
    pub async fn warm_up(&self) -> CacheResult<()> {
        let mut connection = self.connection.clone();
        let ping = async move { redis::cmd("PING").query_async::<()>(&mut connection).await };
        self.guarded(BACKGROUND_LIMIT, ping).await
    }

    /// Whether calls are being held back.
    pub fn is_left_alone(&self) -> bool {
        self.with_breaker(|breaker| breaker.is_open())
    }

    async fn guarded<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, RedisError>>,
    ) -> CacheResult<T> {
        if !self.with_breaker(|breaker| breaker.allows(Instant::now())) {
            return Err(CacheError::Open);
        }
        let result = match tokio::time::timeout(limit, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(CacheError::Failed(error)),
            Err(_) => Err(CacheError::TimedOut(limit)),
        };
        let change = self.with_breaker(|breaker| match &result {
            Ok(_) => breaker.succeeded(),
            Err(_) => breaker.failed(Instant::now(), rand::random()),
        });
        match (change, &result) {
            (Some(Change::Opened(pause)), Err(error)) => {
                warn!(error = %chain(error), ?pause, "Redis does not answer; working without it");
            }
            (Some(Change::Closed), _) => info!("Redis answers again"),
            _ => {}
        }
        result
    }

    fn with_breaker<T>(&self, act: impl FnOnce(&mut Breaker) -> T) -> T {
        // The breaker is consistent after each of its calls, so a poisoned lock is as good as another.
        act(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResultCache for RedisCache {
    async fn get_many(
        &self,
        version: &Digest,
        keys: &[CacheKey],
    ) -> CacheResult<Vec<Option<Bytes>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(key.redis_key(version));
        }
        let call = async move {
            command
                .query_async::<Vec<Option<Bytes>>>(&mut connection)
                .await
        };
        let found = self.guarded(LOOKUP_BUDGET, call).await?;
        if found.len() == keys.len() {
            Ok(found)
        } else {
            Err(CacheError::Misfit {
                asked: keys.len(),
                found: found.len(),
            })
        }
    }

    async fn put_many(
        &self,
        version: &Digest,
        entries: &[(CacheKey, Bytes)],
        ttl: Duration,
    ) -> CacheResult<()> {
        let milliseconds = millis(ttl).max(1);
        let mut pipeline = Pipeline::with_capacity(entries.len());
        for (key, answer) in entries {
            let set = pipeline
                .cmd("SET")
                .arg(key.redis_key(version))
                .arg(&answer[..]);
            set.arg("PX").arg(milliseconds).ignore();
        }
        let mut connection = self.connection.clone();
        let call = async move { pipeline.query_async::<()>(&mut connection).await };
        self.guarded(BACKGROUND_LIMIT, call).await
    }
}

/// The error and what caused it, on one line.
fn chain(error: &CacheError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
