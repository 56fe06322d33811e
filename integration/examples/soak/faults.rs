//! What fails when, by a seed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use inferq::stack::{Stack, WorkerProcess};
use inferq_integration::link::Link;
use inferq_integration::messages_in;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// From one fault to the next, in milliseconds.
const BETWEEN: Range<u64> = 1_500..4_500;
/// How long a server stays away, and how long the network is silent or cut, in milliseconds.
const AWAY: Range<u64> = 200..2_000;
/// How long a worker is stopped, in milliseconds: now and then for longer than the 30 s after which its
/// jobs are delivered to others.
const STOPPED: Range<u64> = 500..40_000;
/// Shares of the jobs that are answered when the servers fail.
const NATS_AT: f64 = 0.3;
const REDIS_AT: f64 = 0.6;

/// Networks between nats-server and its clients.
pub(crate) struct Networks {
    /// Of all workers.
    pub(crate) workers: Link,
    /// Of whoever submits.
    pub(crate) client: Link,
}

/// How often what failed.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    workers: u32,
    nats: u32,
    redis: u32,
    stops: u32,
    cuts: u32,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Faults {
            workers,
            nats,
            redis,
            stops,
            cuts,
        } = self;
        write!(
            f,
            "killed: {workers} workers, nats-server {nats} time(s), Redis {redis} time(s); stopped: {stops} workers; \
             the network cut {cuts} times"
        )
    }
}

/// One worker that is stopped, until its time is over.
struct Stopped {
    worker: Arc<WorkerProcess>,
    until: Instant,
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.worker.resume();
    }
}

/// Makes things fail until `over`, and mends what it broke. `jobs` are those to be answered in all.
pub(crate) async fn until(
    stack: &Stack,
    networks: &Networks,
    over: &CancellationToken,
    seed: u64,
    jobs: u64,
) -> Result<Faults> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut faults = Faults::default();
    let mut stopped: Option<Stopped> = None;
    loop {
        let pause = Duration::from_millis(rng.random_range(BETWEEN));
        tokio::select! {
            () = over.cancelled() => return Ok(faults),
            () = tokio::time::sleep(pause) => {}
        }
        stopped = stopped.filter(|stopped| Instant::now() < stopped.until);
        // A server that is just coming back has no number; the next look has.
        let answered = messages_in(stack.client(), "INFER_RESULTS")
            .await
            .unwrap_or(0);
        let share = answered as f64 / jobs as f64;
        let mut ms = |range| Duration::from_millis(rng.random_range(range));
        let (away, silent, asleep) = (ms(AWAY), ms(AWAY), ms(STOPPED));
        if faults.nats == 0 && share >= NATS_AT {
            stack.nats().kill().await;
            tokio::time::sleep(away).await;
            stack.nats().restart().await?;
            faults.nats += 1;
            continue;
        }
        if let (0, true, Some(redis)) = (faults.redis, share >= REDIS_AT, stack.redis()) {
            redis.kill().await;
            tokio::time::sleep(away).await;
            redis.restart().await?;
            faults.redis += 1;
            continue;
        }
        let workers = stack.workers();
        let victim = rng.random_range(0..workers.len());
        workers[victim].kill();
        workers[victim].wait(Duration::from_secs(5)).await;
        stack.restart_worker(victim).await?;
        faults.workers += 1;
        let sleeper = workers[rng.random_range(0..workers.len())].clone();
        match rng.random_range(0..4) {
            0 => {
                networks.workers.fail(silent, away).await;
                faults.cuts += 1;
            }
            1 => {
                networks.client.fail(silent, away).await;
                faults.cuts += 1;
            }
            2 if stopped.is_none() && sleeper.is_running() => {
                sleeper.pause();
                stopped = Some(Stopped {
                    worker: sleeper,
                    until: Instant::now() + asleep,
                });
                faults.stops += 1;
            }
            _ => {}
        }
    }
}
