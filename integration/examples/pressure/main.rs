//! `make pressure`: what a worker does when it has nothing to do, too much to do, or too little time.
//!
//! ```text
//! main.rs       the flags, and the verdict
//! crowd.rs      100 models: idle CPU, and one model beside another that is flooded
//! expiry.rs     how late the end of a job is told whose deadline passes while the executor is busy
//! flood.rs      who floods it
//! busy.rs       cores with something else to do, to compare with
//! overload.rs   ten times as many jobs as can be run: memory, goodput, and what publishers hear
//! process.rs    CPU time and memory of a process
//! ```
//! It measures, so it wants a machine with nothing else to do. Each line has the figure and its bound.

mod busy;
mod crowd;
mod expiry;
mod flood;
mod overload;
mod process;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

/// Measures workers under pressure, against the bounds we promise.
#[derive(Debug, Parser)]
#[command(name = "pressure")]
struct Pressure {
    /// Only these parts.
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// How long the overload and each part of the crowd last, in seconds. Half of it is enough for a look.
    #[arg(long, value_name = "N", default_value = "60", value_parser = clap::value_parser!(u64).range(5..=600))]
    seconds: u64,
    /// Flood a model of a server, and nothing else.
    #[arg(long, hide = true, num_args = 2, value_names = ["URL", "MODEL"])]
    flood: Option<Vec<String>>,
    /// Count for so many seconds, and do nothing else.
    #[arg(long, hide = true)]
    count: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Crowd,
    Expiry,
    Overload,
}

/// A figure and the bound it is held against.
#[derive(Debug)]
struct Figure {
    what: String,
    holds: bool,
}

impl Figure {
    fn new(what: String, holds: bool) -> Self {
        Self { what, holds }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match Pressure::parse().run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pressure: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Pressure {
    async fn run(&self) -> Result<bool> {
        if let Some([url, model]) = self.flood.as_deref() {
            match flood::run(url, model).await? {}
        }
        if let Some(seconds) = self.count {
            busy::count(seconds);
            return Ok(true);
        }
        let lasts = Duration::from_secs(self.seconds);
        let wanted = |part| self.parts.is_empty() || self.parts.contains(&part);
        let mut holds = true;
        if wanted(Part::Crowd) {
            holds &= show(&crowd::measure(lasts / 2).await?);
        }
        if wanted(Part::Expiry) {
            holds &= show(&expiry::measure().await?);
        }
        if wanted(Part::Overload) {
            holds &= show(&overload::measure(lasts).await?);
        }
        Ok(holds)
    }
}

/// Prints the figures; whether all of them hold.
fn show(figures: &[Figure]) -> bool {
    for Figure { what, holds } in figures {
        println!("{} {what}", if *holds { "holds " } else { "MISSED" });
    }
    figures.iter().all(|figure| figure.holds)
}
