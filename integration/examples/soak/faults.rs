//! What is killed when, by a seed.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use inferq::stack::Stack;
use inferq_integration::messages_in;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_util::sync::CancellationToken;

/// From one worker's death to the next, in milliseconds.
const BETWEEN: Range<u64> = 1_500..4_500;
/// How long a server stays away, in milliseconds.
const AWAY: Range<u64> = 200..2_000;
/// Shares of the jobs that are answered when the servers fail.
const NATS_AT: f64 = 0.3;
const REDIS_AT: f64 = 0.6;

/// How often what was killed.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    workers: u32,
    nats: u32,
    redis: u32,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Faults {
            workers,
            nats,
            redis,
        } = self;
        write!(
            f,
            "killed: {workers} workers, nats-server {nats} time(s), Redis {redis} time(s)"
        )
    }
}

/// Kills until `over`, and starts again what it killed. `jobs` are those to be answered in all.
pub(crate) async fn until(
    stack: &Stack,
    over: &CancellationToken,
    seed: u64,
    jobs: u64,
) -> Result<Faults> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut faults = Faults::default();
    loop {
        let pause = Duration::from_millis(rng.random_range(BETWEEN));
        tokio::select! {
            () = over.cancelled() => return Ok(faults),
            () = tokio::time::sleep(pause) => {}
        }
        // A server that is just coming back has no number; the next look has.
        let answered = messages_in(stack.client(), "INFER_RESULTS")
            .await
            .unwrap_or(0);
        let share = answered as f64 / jobs as f64;
        let away = Duration::from_millis(rng.random_range(AWAY));
        if faults.nats == 0 && share >= NATS_AT {
            stack.nats().kill().await;
            tokio::time::sleep(away).await;
            stack.nats().restart().await?;
            faults.nats += 1;
        } else if let (0, true, Some(redis)) = (faults.redis, share >= REDIS_AT, stack.redis()) {
            redis.kill().await;
            tokio::time::sleep(away).await;
            redis.restart().await?;
            faults.redis += 1;
        } else {
            let workers = stack.workers();
            let victim = rng.random_range(0..workers.len());
            workers[victim].kill();
            workers[victim].wait(Duration::from_secs(5)).await;
            stack.restart_worker(victim).await?;
            faults.workers += 1;
        }
    }
}
