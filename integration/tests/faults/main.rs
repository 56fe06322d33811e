//! The fault suite: what still holds when a part fails in mid-run. `make faults` runs it alone.
//!
//! ```text
//! check.rs       what must hold after every one of them
//! load.rs        the jobs that are under way meanwhile, and their answers
//! servers.rs     nats-server and Redis crash, or stop answering
//! cluster.rs     the leader of three servers dies
//! disk.rs        the disk of nats-server is full
//! crashes.rs     a worker dies right before, and right after, it has written an outcome
//! paused.rs      a worker is stopped for longer than the queue waits for it
//! stuck.rs       forward passes that do not return, and one that ends every process that tries it
//! network.rs     the network is slow, silent, or cut, to workers and to clients
//! consumers.rs   a consumer is deleted under its workers
//! limits.rs      the broker is full, or a user loses permissions
//! floods.rs      malformed and oversize messages on every subject that a worker listens to
//! duplicates.rs  the same job is published many times
//! clock.rs       a clock is wrong by minutes
//! ```
//! Each case begins with its invariant. What is drawn at random comes from a seed that a failing test
//! prints; `INFERQ_FAULTS_SEED` repeats it.

mod check;
mod clock;
mod cluster;
mod consumers;
mod crashes;
mod disk;
mod duplicates;
mod floods;
mod limits;
mod load;
mod network;
mod paused;
mod servers;
mod stuck;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use inferq::Client;
use inferq_integration::{PATIENCE, messages_in};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Where what a test does at random comes from.
pub(crate) fn random() -> Result<StdRng> {
    let seed = match std::env::var("INFERQ_FAULTS_SEED") {
        Ok(seed) => seed.parse().context("INFERQ_FAULTS_SEED is no number")?,
        Err(_) => rand::random(),
    };
    println!("INFERQ_FAULTS_SEED={seed} repeats this");
    Ok(StdRng::seed_from_u64(seed))
}

/// Waits until so many outcomes are there: a fault a moment later falls among the others.
pub(crate) async fn outcomes(client: &Client, count: u64) -> Result<()> {
    let begun = Instant::now();
    while messages_in(client, "INFER_RESULTS").await? < count {
        ensure!(begun.elapsed() < PATIENCE, "no {count} outcomes");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
