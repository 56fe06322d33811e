//! `make soak`: many jobs while everything they pass through is killed again and again.
//!
//! ```text
//! main.rs     the flags, the stack, and the line it closes with
//! faults.rs   what is killed when, by a seed
//! ```
//! Workers are killed (SIGKILL) every few seconds for as long as there are jobs, nats-server and Redis once
//! each. Invariant: every job that was accepted has exactly one outcome, it is `ok`, and it is bit for bit what
//! the engine gives without any queue; nothing is left in a queue and nothing has died.

mod faults;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use inferq::stack::{RedisChoice, Stack, StackOptions};
use inferq::{Job, JobId};
use inferq_integration::count::{self, Beside};
use inferq_integration::digits::{self, Digit};
use inferq_integration::{PATIENCE, job, models_folder, start, wait_until_empty};
use tokio_util::sync::CancellationToken;

/// Runs jobs through an embedded stack whose parts are killed meanwhile, and counts what became of them.
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
        let images = digits::held_out()?;
        let expected = digits::expected(&images)?;
        let stack = start(StackOptions {
            workers: usize::from(self.workers),
            redis: RedisChoice::Auto,
            ..StackOptions::new(models_folder())
        })
        .await?;
        let begun = Instant::now();
        let over = CancellationToken::new();
        let faults = faults::until(&stack, &over, seed, u64::from(self.jobs));
        let work = async {
            let worked = self.work(&stack, &images).await;
            over.cancel();
            worked
        };
        let (jobs, faults) = tokio::join!(work, faults);
        let (jobs, faults) = (jobs?, faults?);
        println!("{faults}; all answered after {:.0?}", begun.elapsed());
        let found = count::of(stack.client(), &jobs, &expected, Beside::default()).await?;
        stack.stop().await?;
        println!("{found}");
        Ok(found.is_right())
    }

    /// Submits all jobs and waits until no queue holds one of them.
    async fn work(&self, stack: &Stack, images: &[Digit]) -> Result<Vec<JobId>> {
        let jobs = images.iter().cycle().take(self.jobs as usize).enumerate();
        let jobs: Vec<Job> = jobs.map(|(number, image)| of(number, image)).collect();
        let ticks = tokio::time::interval(Duration::from_secs(1) / self.rate);
        let paced = stream::unfold((jobs.into_iter(), ticks), async |(mut jobs, mut ticks)| {
            ticks.tick().await;
            Some((jobs.next()?, (jobs, ticks)))
        });
        let submitted = stack.client().submit_many(paced);
        let ids = submitted
            .map(|submitted| anyhow::Ok(submitted.context("a job was not accepted")?.id))
            .try_collect()
            .await;
        let ids: Vec<JobId> = ids?;
        let begun = Instant::now();
        loop {
            match wait_until_empty(stack.client(), "INFER_JOBS").await {
                Ok(()) => return Ok(ids),
                // The server may be away, and what a killed worker held comes again after 30 s.
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
