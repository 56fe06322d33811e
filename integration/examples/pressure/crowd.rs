//! 100 models with three lanes each on one worker.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream};
use inferq::bench::{self, BenchOptions, BenchReport, End, Load, Mode};
use inferq::stack::{Stack, StackOptions};
use inferq::{Client, Job, ModelName};
use inferq_integration::{digits, fixtures, messages_in, start};

use crate::{Figure, process};

const MODELS: usize = 100;
/// How often it is looked whether so many still do.
const LOOK: Duration = Duration::from_millis(5);
/// Jobs a second of the model that is looked at.
const RATE: f64 = 50.0;
/// Jobs that always wait for the other one.
const FLOOD: usize = 2_000;
/// Jobs that are added to them at a time: more at once would measure who submits them.
const TOP_UP: usize = 100;

pub(crate) async fn measure(lasts: Duration) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    for model in 0..MODELS {
        fixtures::add_digits(folder.path(), &name(model))?;
    }
    let stack = start(StackOptions {
        // One core is left for the server and for who submits.
        worker_args: ["--executors", "1"].map(str::to_owned).to_vec(),
        ready_within: Some(Duration::from_secs(300)),
        ..StackOptions::new(folder.path())
    })
    .await?;
    let pid = stack.worker(0).context("one was started")?.pid();
    // Whatever follows the start has ended by then.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = process::cpu_time(pid)?;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let idle = (process::cpu_time(pid)? - before).as_secs_f64() / 30.0 * 100.0;
    let mut figures = vec![Figure::new(
        format!("idle CPU with {MODELS} models x 3 lanes: {idle:.2} % of a core (below 2 %)"),
        idle < 2.0,
    )];

    load(&stack, Duration::from_secs(3)).await?;
    let alone = load(&stack, lasts).await?;
    // Over a connection of its own: what it submits does not stand before what is measured.
    let flooding = Client::connect(stack.nats_url()).await?;
    flood(&flooding, FLOOD).await?;
    let (beside, least) = tokio::select! {
        beside = load(&stack, lasts) => (beside?, messages_in(stack.client(), "INFER_JOBS").await?),
        dried = keep_flooded(&flooding) => return Err(dried.context("the flood cannot be kept up")),
    };
    ensure!(least > 0, "the flood was over");
    let (alone, beside) = (&alone.latency, &beside.latency);
    let ratio = beside.p99_us as f64 / alone.p99_us as f64;
    figures.push(Figure::new(
        format!(
            "p99 of a model alone {:.1} ms, beside a flooded one {:.1} ms: {ratio:.2} x (at most 2); p50 {:.1} and {:.1} ms; {least} jobs of the flood were left",
            ms(alone.p99_us),
            ms(beside.p99_us),
            ms(alone.p50_us),
            ms(beside.p50_us),
        ),
        ratio <= 2.0,
    ));
    // What is left of the flood is nobody's.
    drop(stack);
    Ok(figures)
}

/// A steady load on the first model.
async fn load(stack: &Stack, lasts: Duration) -> Result<BenchReport> {
    let images = digits::held_out()?;
    let options = BenchOptions {
        model: ModelName::new(&name(0))?,
        bodies: images
            .iter()
            .map(|image| image.tensor_request().into())
            .collect(),
        mode: Mode::Jobs,
        load: Load::Open { rate: RATE },
        end: End::After(lasts),
        timeout: Duration::from_secs(30),
        lane: None,
        cache: false,
    };
    let report = bench::run(stack.client(), options, |_| {}).await;
    ensure!(report.errors.is_empty(), "{:?}", report.examples);
    Ok(report)
}

/// Adds jobs to the queue of the second model.
async fn flood(client: &Client, jobs: usize) -> Result<()> {
    let body = digits::held_out()?[0].tensor_request();
    let model = ModelName::new(&name(1))?;
    let jobs = (0..jobs).map(|_| Job::new(model.clone(), body.clone()).no_cache());
    let mut submitted = Box::pin(client.submit_many(stream::iter(jobs)));
    while let Some(submitted) = submitted.next().await {
        submitted?;
    }
    Ok(())
}

/// Fills it again and again.
async fn keep_flooded(client: &Client) -> anyhow::Error {
    loop {
        match messages_in(client, "INFER_JOBS").await {
            Ok(left) if left >= FLOOD as u64 => tokio::time::sleep(LOOK).await,
            Ok(_) => {
                if let Err(error) = flood(client, TOP_UP).await {
                    return error;
                }
            }
            Err(error) => return error,
        }
    }
}

fn name(model: usize) -> String {
    format!("digits-{model}")
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}
