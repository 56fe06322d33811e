//! `make demo`: real handwritten digits through nats-server, two workers and Redis.
//!
//! ```text
//! main.rs     the flags, the stack around it all, Ctrl-C
//! passes.rs   the same rows four times: jobs, jobs again, calls, calls without cache
//! verdict.rs  was every job answered once, and were the answers right
//! show.rs     the table, and what to try next
//! ```
//! Everything it starts listens on this machine only and keeps its data in one temporary folder,
//! which goes at the end, also after Ctrl-C.

mod passes;
mod show;
mod verdict;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use inferq::{
    ModelName,
    stack::{RedisChoice, Stack, StackOptions, models_in},
};
use inferq_integration::{digits, models_folder};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;
/// How often the processes are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the held-out digits through an embedded stack and prints accuracy, jobs/s and latencies.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Demo {
    /// The folder of models; `digits` must be one of them.
    #[arg(long, value_name = "DIR", default_value_os_t = models_folder())]
    models: PathBuf,
    /// How many workers.
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u8).range(1..))]
    workers: u8,
    /// Jobs in flight. More of them fill larger batches, and each waits longer.
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(1..))]
    jobs_in_flight: u16,
    /// Calls in flight.
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u16).range(1..))]
    calls_in_flight: u16,
}

#[tokio::main]
async fn main() -> ExitCode {
    match Demo::parse().run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Demo {
    async fn run(self) -> Result<ExitCode> {
        let mut stop = Stop::listen()?;
        let digits = ModelName::new("digits").context("`digits` fits the grammar of names")?;
        ensure!(
            models_in(&self.models).contains_key(&digits),
            "{} has no model `digits`; name another folder with --models",
            self.models.display()
        );
        let images = digits::held_out_in(&self.models)?;
        let options = StackOptions {
            workers: usize::from(self.workers),
            redis: RedisChoice::Auto,
            expect: Some(vec![digits]),
            ..StackOptions::new(&self.models)
        };
        show::note(&format!(
            "starting nats-server, Redis and workers ({}) ...",
            self.workers
        ));
        let stack = tokio::select! {
            stack = Stack::start(options) => stack?,
            () = stop.asked() => return Ok(interrupted()),
        };
        let shown = tokio::select! {
            shown = self.show(&stack, &images) => Some(shown),
            // Dropping the stack kills what is left of it.
            lost = lost(&stack) => return Err(lost),
            () = stop.asked() => None,
        };
        tokio::select! {
            stopped = stack.stop() => stopped.context("the stack did not stop in order")?,
            () = stop.asked() => return Ok(interrupted()),
        }
        match shown {
            None => Ok(interrupted()),
            Some(shown) => {
                shown?;
                show::next(&self.models, &images);
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    async fn show(&self, stack: &Stack, images: &[digits::Digit]) -> Result<()> {
        show::stack(stack, images.len());
        let passes = passes::all(self.jobs_in_flight.into(), self.calls_in_flight.into());
        let mut done = Vec::with_capacity(passes.len());
        for pass in passes {
            done.push(pass.run(stack.client(), images).await);
        }
        show::table(&done, &stack.workers());
        let kept = verdict::of(stack.client(), &done, images.len()).await?;
        show::kept(&kept);
        Ok(())
    }
}

/// Waits until something that should run has ended; without workers each job waits for its deadline.
async fn lost(stack: &Stack) -> anyhow::Error {
    loop {
        for worker in stack.workers() {
            if let Some(status) = worker.exited() {
                let (id, lines) = (worker.id(), worker.last_lines());
                return anyhow!("{id} ended ({status}) before it was told to. It said:{lines}");
            }
        }
        if stack.nats().has_exited() {
            return anyhow!("nats-server ended. It said:{}", stack.nats().last_lines());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn interrupted() -> ExitCode {
    show::note("interrupted; everything is stopped");
    ExitCode::from(INTERRUPTED)
}

/// Ctrl-C and SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
