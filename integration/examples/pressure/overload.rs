//! Ten times as many jobs as a worker can run, for a minute.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use inferq::bench::{self, BenchOptions, BenchReport, End, Load, Mode};
use inferq::stack::{Stack, StackOptions};
use inferq::{AssetPlan, ErrorCode, ModelName};
use inferq_integration::{hazards, start};

use crate::{Figure, process};

/// Messages that a subject takes.
const DEPTH: usize = 2_000;
const TIMES: f64 = 10.0;
/// A row takes at least so long.
const ROW: Duration = Duration::from_millis(5);
/// More than the memory of a worker moves while it has always the same to do, in MB.
const MOVES: f64 = 16.0;

pub(crate) async fn measure(lasts: Duration) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    hazards::add(folder.path(), Duration::from_secs(60))?;
    let stack = start(StackOptions {
        plan: AssetPlan {
            queue_depth: NonZeroUsize::new(DEPTH).context("not zero")?,
            ..AssetPlan::default()
        },
        worker_args: ["--executors", "1"].map(str::to_owned).to_vec(),
        ..StackOptions::new(folder.path())
    })
    .await?;
    let pid = stack.worker(0).context("one was started")?.pid();
    let steps = steps(&stack).await?;
    let closed = Load::Closed { concurrency: 64 };
    let peak = load(&stack, steps, closed, lasts / 4).await?;
    ensure!(peak.errors.is_empty(), "{:?}", peak.examples);
    ensure!(
        peak.per_second < 1.0 / ROW.as_secs_f64(),
        "a row took less than {ROW:?}"
    );
    let rate = TIMES * peak.per_second;
    let mut memory = Vec::new();
    let watching = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            match process::megabytes(pid) {
                Ok(megabytes) => memory.push(megabytes),
                Err(error) => return error,
            }
        }
    };
    let flooded = tokio::select! {
        flooded = load(&stack, steps, Load::Open { rate }, lasts) => flooded?,
        gone = watching => return Err(gone.context("the worker is gone")),
    };
    stack.stop().await?;
    // The first seconds fill the room.
    let (first, rest) = memory.split_at(memory.len() / 6);
    let least = first.last().copied().context("no samples")?;
    let most = rest.iter().copied().fold(0.0, f64::max);
    let goodput = flooded.per_second / peak.per_second * 100.0;
    let refused = ErrorCode::Overloaded.as_u16();
    let others: Vec<_> = flooded
        .examples
        .iter()
        .filter(|(code, _)| **code != refused)
        .collect();
    Ok(vec![
        Figure::new(
            format!(
                "memory of the worker while it was flooded: {least:.0} MB after the start, at most {most:.0} MB (at most {MOVES} MB more)"
            ),
            most - least <= MOVES,
        ),
        Figure::new(
            format!(
                "goodput {:.1} of {:.1} jobs/s at {rate:.0} submitted: {goodput:.1} % of the peak (at least 95 %)",
                flooded.per_second, peak.per_second
            ),
            goodput >= 95.0,
        ),
        Figure::new(
            format!(
                "{} of {} jobs refused as overloaded, and otherwise {others:?} (nothing)",
                flooded.errors.get(&refused).copied().unwrap_or(0),
                flooded.sent
            ),
            others.is_empty() && flooded.errors.contains_key(&refused),
        ),
    ])
}

/// How many steps take a little more than a row has to.
async fn steps(stack: &Stack) -> Result<u32> {
    const MANY: u32 = 20_000;
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        ensure!(stack.client().run(hazards::spin(MANY)).await?.is_ok());
        fastest = fastest.min(begun.elapsed());
    }
    let step = fastest.as_secs_f64() / f64::from(MANY);
    Ok((1.2 * ROW.as_secs_f64() / step) as u32)
}

async fn load(stack: &Stack, steps: u32, load: Load, lasts: Duration) -> Result<BenchReport> {
    let input =
        serde_json::json!({ "name": "n", "datatype": "FP32", "shape": [1], "data": [steps] });
    let options = BenchOptions {
        model: ModelName::new("spin")?,
        bodies: vec![serde_json::json!({ "inputs": [input] }).into()],
        mode: Mode::Jobs,
        load,
        end: End::After(lasts),
        timeout: Duration::from_secs(120),
        lane: None,
        cache: false,
    };
    Ok(bench::run(stack.client(), options, |_| {}).await)
}
