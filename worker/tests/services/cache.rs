//! The cache in front of a Redis that works, is absent, freezes and comes back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use inferq_schemas::cache_key::{CacheKey, CacheScope};
use inferq_schemas::identity::Digest;
use inferq_schemas::tensor::Tensor;
use inferq_worker::cache::{Cache, LOOKUP_BUDGET, MAX_VALUE_BYTES, RedisCache, ResultCache};
use inferq_worker::config::{ByteSize, CacheArgs, SecretUrl};
use inferq_worker::metrics::Metrics;

use crate::nats::eventually;
use crate::redis::Redis;

const HOUR: Duration = Duration::from_secs(3_600);

/// A lookup's budget, and the slack of a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_millis(250);

fn version() -> Digest {
    Digest::of(b"version")
}

fn key(number: u8) -> CacheKey {
    let tensor = Tensor::from_f32("x", vec![1, 1], &[f32::from(number)]).expect("one value");
    CacheScope::new(&version(), None, &[], &Default::default()).whole(&[tensor])
}

fn answer(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A worker's cache with this much memory and this Redis.
fn worker(memory: ByteSize, redis: Option<SecretUrl>) -> (Cache, Metrics) {
    let metrics = Metrics::new();
    let cache = Cache::open(
        &CacheArgs {
            redis,
            cache_memory: memory,
        },
        metrics.clone(),
    )
    .expect("a good URL");
    (cache, metrics)
}

/// A cache that has nothing but Redis.
fn redis_only(redis: &Redis) -> (Cache, Metrics) {
    worker(ByteSize(0), Some(redis.url()))
}

async fn holds(cache: &Cache, number: u8, text: &str) -> bool {
    cache.get_many(&version(), &[key(number)]).await == [Some(answer(text))]
}

fn counted(metrics: &Metrics, series: &str) -> u64 {
    let text = metrics.encode();
    let line = text.lines().find(|line| line.starts_with(series));
    line.and_then(|line| line.rsplit_once(' '))
        .map_or(0, |(_, count)| count.parse().expect("a count"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_put_by_one_worker_is_found_by_another() {
    let redis = Redis::start();
    let (one, _) = worker(ByteSize::mebibytes(1), Some(redis.url()));
    let (two, metrics) = worker(ByteSize::mebibytes(1), Some(redis.url()));
    one.put_many(
        &version(),
        vec![(key(1), answer("one")), (key(3), answer("three"))],
        HOUR,
    );
    eventually("the other worker finds it", async || {
        holds(&two, 3, "three").await
    })
    .await;
    let found = two.get_many(&version(), &[key(1), key(2), key(3)]).await;
    assert_eq!(found, [Some(answer("one")), None, Some(answer("three"))]);
    let other = Digest::of(b"another version");
    assert_eq!(two.get_many(&other, &[key(1)]).await, [None]);
    assert!(
        counted(
            &metrics,
            r#"inferq_cache_lookups_total{tier="memory",result="hit"}"#
        ) > 0,
        "found ones stay in memory"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_worker_caches_for_itself() {
    let (cache, _) = worker(ByteSize::mebibytes(1), None);
    cache.put_many(&version(), vec![(key(1), answer("one"))], HOUR);
    assert!(holds(&cache, 1, "one").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lives_as_long_as_it_was_put_for_in_each_tier() {
    let redis = Redis::start();
    let (shared, _) = redis_only(&redis);
    let (own, _) = worker(ByteSize::mebibytes(1), None);
    for cache in [&shared, &own] {
        cache.put_many(
            &version(),
            vec![(key(1), answer("brief"))],
            Duration::from_millis(600),
        );
        eventually("it is kept", async || holds(cache, 1, "brief").await).await;
        eventually("it is forgotten", async || {
            cache.get_many(&version(), &[key(1)]).await == [None]
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_too_large_is_not_kept_and_counted() {
    let (cache, metrics) = worker(ByteSize::mebibytes(8), None);
    let large = Bytes::from(vec![0; MAX_VALUE_BYTES + 1]);
    cache.put_many(
        &version(),
        vec![(key(1), large), (key(2), answer("small"))],
        HOUR,
    );
    assert_eq!(
        cache.get_many(&version(), &[key(1), key(2)]).await,
        [None, Some(answer("small"))]
    );
    assert_eq!(
        counted(
            &metrics,
            r#"inferq_cache_dropped_writes_total{reason="too_large"}"#
        ),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_not_there_costs_misses_and_is_used_once_it_comes_up() {
    let mut redis = Redis::absent();
    let (cache, metrics) = redis_only(&redis);
    for _ in 0..20 {
        let begun = Instant::now();
        assert_eq!(cache.get_many(&version(), &[key(1)]).await, [None]);
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    }
    assert_eq!(
        counted(
            &metrics,
            r#"inferq_cache_lookups_total{tier="redis",result="error"}"#
        ),
        20
    );
    redis.run();
    eventually("it is used", async || {
        cache.put_many(&version(), vec![(key(1), answer("late"))], HOUR);
        holds(&cache, 1, "late").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_costs_the_budget_a_few_times_then_nothing_and_is_used_again_when_it_thaws()
{
    let redis = Redis::start();
    let cache = RedisCache::open(&redis.url()).expect("a good URL");
    cache.warm_up().await.expect("it answers");
    cache
        .put_many(&version(), &[(key(1), answer("kept"))], HOUR)
        .await
        .expect("it is written");
    redis.freeze();
    for _ in 0..5 {
        let begun = Instant::now();
        assert!(cache.get_many(&version(), &[key(1)]).await.is_err());
        let took = begun.elapsed();
        assert!((LOOKUP_BUDGET..PATIENCE).contains(&took), "{took:?}");
    }
    assert!(cache.is_left_alone());
    let begun = Instant::now();
    for _ in 0..1_000 {
        assert!(cache.get_many(&version(), &[key(1)]).await.is_err());
    }
    assert!(
        begun.elapsed() < 200 * LOOKUP_BUDGET,
        "lookups still wait: {:?}",
        begun.elapsed()
    );
    redis.thaw();
    eventually("it is used again", async || {
        matches!(cache.get_many(&version(), &[key(1)]).await.as_deref(), Ok([Some(found)]) if *found == answer("kept"))
    })
    .await;
    assert!(!cache.is_left_alone());
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_to_a_frozen_redis_hold_bounded_memory_and_never_the_caller() {
    let redis = Redis::start();
    let (cache, metrics) = redis_only(&redis);
    redis.freeze();
    let begun = Instant::now();
    let value = Bytes::from(vec![0; MAX_VALUE_BYTES]);
    for number in 0..100 {
        cache.put_many(&version(), vec![(key(number), value.clone())], HOUR);
    }
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    let dropped = counted(
        &metrics,
        r#"inferq_cache_dropped_writes_total{reason="full"}"#,
    );
    assert!(
        (60..100).contains(&dropped),
        "{dropped} of 100 MiB dropped, 32 MiB may wait"
    );
}
