//! `make soak`: many jobs while everything they pass through fails again and again.
//!
//! ```text
//! main.rs     the flags, the stack, and the line it closes with
//! faults.rs   what fails when, by a seed
//! poison.rs   --poison: one job that ends every process that runs it, and no other fault
//! ```
//! For as long as there are jobs workers are killed (SIGKILL) or stopped (SIGSTOP), or the network of the
//! workers or of the client is silent and then cut, every few seconds; nats-server and Redis are killed once
//! each. Invariant: every job that was accepted has exactly one outcome, it is `ok`, and it is bit for bit what
//! the engine gives without any queue; nothing is left in a queue and nothing has died, but for the poison.

mod faults;
mod poison;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use inferq::stack::{RedisChoice, Stack, StackOptions};
use inferq::{Client, Job, JobId};
use inferq_integration::count::{self, Beside};
use inferq_integration::digits::{self, Digit};
use inferq_integration::link::Link;
use inferq_integration::{PATIENCE, job, models_folder, start, wait_until_empty};
use tokio_util::sync::CancellationToken;

use crate::faults::Networks;

/// Runs jobs through an embedded stack whose parts fail meanwhile, and counts what became of them.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Soak {
    /// How many jobs.
    #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
    /// How many workers.
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u8).range(1..))]
    workers: u8,
    /// Most jobs a second. More of them end before much can fail.
    #[arg(long, value_name = "N", default_value = "1500", value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// The faults of an earlier run once more. Default: others each time.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Longest the whole may take.
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u16).range(1..))]
    minutes: u16,
    /// One more job that ends every process that runs it, and no other fault.
    #[arg(long)]
    poison: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let soak = Soak::parse();
    let limit = Duration::from_secs(60 * u64::from(soak.minutes));
    let ran = tokio::time::timeout(limit, soak.run()).await;
    match ran {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
        Ok(Err(error)) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
        Err(_) => {
            eprintln!("soak: not done after {limit:?}; --minutes gives it more");
            ExitCode::FAILURE
        }
    }
}

impl Soak {
    async fn run(&self) -> Result<bool> {
        let seed = self.seed.unwrap_or_else(rand::random);
        println!(
            "{} jobs, {} workers; --seed {seed} repeats these faults",
            self.jobs, self.workers
        );
        if self.poison {
            self.poisoned(seed).await
        } else {
            self.faulty(seed).await
        }
    }

    async fn faulty(&self, seed: u64) -> Result<bool> {
        let networks = Networks {
            workers: Link::listen().await?,
            client: Link::listen().await?,
        };
        let stack = start(StackOptions {
            workers: 0,
            worker_nats: Some(networks.workers.url()),
            redis: RedisChoice::Auto,
            ..StackOptions::new(models_folder())
        })
        .await?;
        networks.workers.towards(stack.nats_url())?;
        networks.client.towards(stack.nats_url())?;
        for _ in 0..self.workers {
            stack.start_worker().await?;
        }
        stack.wait_ready(PATIENCE).await?;
        let client = Client::connect(&networks.client.url()).await?;
        let over = CancellationToken::new();
        let faults = faults::until(&stack, &networks, &over, seed, u64::from(self.jobs));
        let (jobs, faults) = self.work_beside(&client, &stack, &over, faults).await?;
        println!("{faults}");
        self.close(stack, &jobs, Beside::default()).await
    }

    async fn poisoned(&self, seed: u64) -> Result<bool> {
        let folder = tempfile::tempdir()?;
        poison::models(folder.path())?;
        let stack = start(StackOptions {
            workers: usize::from(self.workers),
            ..StackOptions::new(folder.path())
        })
        .await?;
        let over = CancellationToken::new();
        let poisoned = poison::until(&stack, &over, seed, u64::from(self.jobs));
        let worked = self.work_beside(stack.client(), &stack, &over, poisoned);
        let (jobs, poisoned) = worked.await?;
        println!("{poisoned}");
        let right = self.close(stack, &jobs, poison::GUILTY).await?;
        Ok(right && poisoned.is_right())
    }

    /// Does the work while `trouble` lasts, which ends with it, and says how long it took.
    async fn work_beside<T>(
        &self,
        client: &Client,
        stack: &Stack,
        over: &CancellationToken,
        trouble: impl Future<Output = Result<T>>,
    ) -> Result<(Vec<JobId>, T)> {
        let begun = Instant::now();
        let work = async {
            let worked = self.work(client, stack).await;
            over.cancel();
            worked
        };
        let (jobs, trouble) = tokio::join!(work, trouble);
        println!("all answered after {:.0?}", begun.elapsed());
        Ok((jobs?, trouble?))
    }

    /// Counts what became of the jobs.
    async fn close(&self, stack: Stack, jobs: &[JobId], beside: Beside) -> Result<bool> {
        let expected = digits::expected(&digits::held_out()?)?;
        let found = count::of(stack.client(), jobs, &expected, beside).await?;
        stack.stop().await?;
        println!("{found}");
        Ok(found.is_right())
    }

    /// Submits all jobs and waits until no queue holds one of them.
    async fn work(&self, client: &Client, stack: &Stack) -> Result<Vec<JobId>> {
        let images = digits::held_out()?;
        let jobs = images.iter().cycle().take(self.jobs as usize).enumerate();
        let jobs: Vec<Job> = jobs.map(|(number, image)| of(number, image)).collect();
        let ticks = tokio::time::interval(Duration::from_secs(1) / self.rate);
        let paced = stream::unfold((jobs.into_iter(), ticks), async |(mut jobs, mut ticks)| {
            ticks.tick().await;
            Some((jobs.next()?, (jobs, ticks)))
        });
        let submitted = client.submit_many(paced);
        let ids = submitted
            .map(|submitted| anyhow::Ok(submitted.context("a job was not accepted")?.id))
            .try_collect()
            .await;
        let ids: Vec<JobId> = ids?;
        let begun = Instant::now();
        loop {
            match wait_until_empty(stack.client(), "INFER_JOBS").await {
                Ok(()) => return Ok(ids),
                // What a killed worker held comes again after 30 s, and the poison does so eight times.
                Err(error) if begun.elapsed() > 10 * PATIENCE => {
                    return Err(error).context("jobs are left in the queue");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

/// Every other one is run whatever the cache holds, so that work is really done.
fn of(number: usize, image: &Digit) -> Job {
    let job = job("digits", image.tensor_request());
    if number.is_multiple_of(2) {
        job
    } else {
        job.no_cache()
    }
}
