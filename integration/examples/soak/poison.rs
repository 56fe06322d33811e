//! One job that ends every process that runs it (SIGABRT), among many that harm nobody.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use inferq::stack::Stack;
use inferq::{JobId, Status};
use inferq_integration::count::Beside;
use inferq_integration::{fixtures, hazards, messages_in};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_util::sync::CancellationToken;

/// The guilty job, beside those that are counted.
pub(crate) const GUILTY: Beside = Beside {
    outcomes: 1,
    letters: 1,
};

/// How long a forward pass may take; none takes long here.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is looked whether a worker has ended.
const LOOK: Duration = Duration::from_millis(20);

/// What became of the guilty job.
#[derive(Debug)]
pub(crate) struct Poisoned {
    ended: u32,
    status: Status,
    attempt: u64,
}

impl fmt::Display for Poisoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Poisoned {
            ended,
            status,
            attempt,
        } = self;
        write!(
            f,
            "one job ended {ended} processes and is {status} at its delivery {attempt}"
        )
    }
}

impl Poisoned {
    pub(crate) fn is_right(&self) -> bool {
        self.status == Status::Dead
    }
}

/// Puts the digits and the model of the guilty job into `folder`.
pub(crate) fn models(folder: &Path) -> Result<()> {
    fixtures::add_digits(folder, "digits")?;
    hazards::add(folder, RUN_TIMEOUT)
}

/// Submits the guilty job somewhere among the `jobs`, by a seed, and starts workers again whenever they
/// end, as any supervisor would, until `over`.
pub(crate) async fn until(
    stack: &Stack,
    over: &CancellationToken,
    seed: u64,
    jobs: u64,
) -> Result<Poisoned> {
    let mut rng = StdRng::seed_from_u64(seed);
    let among = (jobs as f64 * rng.random_range(0.05..0.5)) as u64;
    while messages_in(stack.client(), "INFER_RESULTS").await? < among {
        tokio::time::sleep(LOOK).await;
    }
    let guilty = stack.client().submit(hazards::deadly()).await?.id;
    let mut ended = 0;
    while !over.is_cancelled() {
        for (index, worker) in stack.workers().iter().enumerate() {
            if worker.exited().is_some() {
                ended += 1;
                stack.restart_worker(index).await?;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    read(stack, &guilty, ended).await
}

async fn read(stack: &Stack, guilty: &JobId, ended: u32) -> Result<Poisoned> {
    let outcome = stack.client().result(guilty, Duration::ZERO).await;
    let outcome = outcome.context("the guilty job has no outcome")?;
    Ok(Poisoned {
        ended,
        status: outcome.status(),
        attempt: outcome.headers.attempt,
    })
}
