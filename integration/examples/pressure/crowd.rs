//! 100 models with three lanes each on one worker.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream};
use inferq::bench::{self, BenchOptions, BenchReport, End, Load, Mode};
use inferq::queue::PurgeOptions;
use inferq::stack::{Stack, StackOptions};
use inferq::{Client, Job, Lane, ModelName};
use inferq_integration::{digits, fixtures, hazards, messages_in, start};

use crate::{Figure, process};

const MODELS: usize = 100;
/// How often it is looked whether so many still do.
const LOOK: Duration = Duration::from_millis(5);
/// Before each measurement the same load, unmeasured: the worker learns how large a batch pays.
const WARM_UP: Duration = Duration::from_secs(3);
/// Jobs that always wait for the other one.
const FLOOD: usize = 2_000;
/// Jobs that are added to them at a time: more at once would measure who submits them.
const TOP_UP: usize = 100;

/// Two models of a kind: one that is looked at, and one that is flooded.
struct Kind {
    what: &'static str,
    models: [String; 2],
    /// Jobs a second of the one that is looked at.
    rate: f64,
}

pub(crate) async fn measure(lasts: Duration) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let names = |what: &str| [0, 1].map(|number| format!("{what}-{number}"));
    let kinds = [
        Kind {
            what: "of microseconds a row",
            models: names("digits"),
            rate: 50.0,
        },
        Kind {
            what: "of more than 5 ms a row",
            models: names("heavy"),
            rate: 20.0,
        },
    ];
    for model in &kinds[1].models {
        hazards::add_heavy(folder.path(), model)?;
    }
    for number in 0..MODELS - kinds[1].models.len() {
        fixtures::add_digits(folder.path(), &format!("digits-{number}"))?;
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
    for kind in &kinds {
        figures.push(beside_a_flood(&stack, kind, lasts).await?);
    }
    // What is left of the floods is nobody's.
    drop(stack);
    Ok(figures)
}

async fn beside_a_flood(stack: &Stack, kind: &Kind, lasts: Duration) -> Result<Figure> {
    let [quiet, flooded] = &kind.models;
    load(stack, quiet, kind.rate, WARM_UP).await?;
    let alone = load(stack, quiet, kind.rate, lasts).await?;
    // Over a connection of its own: what it submits does not stand before what is measured.
    let flooding = Client::connect(stack.nats_url()).await?;
    flood(&flooding, flooded, FLOOD).await?;
    let measured = async {
        load(stack, quiet, kind.rate, WARM_UP).await?;
        load(stack, quiet, kind.rate, lasts).await
    };
    let (beside, least) = tokio::select! {
        beside = measured => (beside?, messages_in(stack.client(), "INFER_JOBS").await?),
        dried = keep_flooded(&flooding, flooded) => return Err(dried.context("the flood cannot be kept up")),
    };
    ensure!(least > 0, "the flood was over");
    let model = ModelName::new(flooded)?;
    let queues = flooding.queues();
    queues
        .purge(&model, Lane::Normal, &PurgeOptions::default())
        .await?;
    let (alone, beside) = (&alone.latency, &beside.latency);
    let ratio = beside.p99_us as f64 / alone.p99_us as f64;
    Ok(Figure::new(
        format!(
            "p99 of a model {} alone {:.1} ms, beside a flooded one {:.1} ms: {ratio:.2} x (at most 2); p50 {:.1} and {:.1} ms; {least} jobs of the flood were left",
            kind.what,
            ms(alone.p99_us),
            ms(beside.p99_us),
            ms(alone.p50_us),
            ms(beside.p50_us),
        ),
        ratio <= 2.0,
    ))
}

/// A steady load on `model`.
async fn load(stack: &Stack, model: &str, rate: f64, lasts: Duration) -> Result<BenchReport> {
    let images = digits::held_out()?;
    let options = BenchOptions {
        model: ModelName::new(model)?,
        bodies: images
            .iter()
            .map(|image| image.tensor_request().into())
            .collect(),
        mode: Mode::Jobs,
        load: Load::Open { rate },
        end: End::After(lasts),
        timeout: Duration::from_secs(30),
        lane: None,
        cache: false,
    };
    let report = bench::run(stack.client(), options, |_| {}).await;
    ensure!(report.errors.is_empty(), "{:?}", report.examples);
    Ok(report)
}

/// Adds jobs to the queue of `model`.
async fn flood(client: &Client, model: &str, jobs: usize) -> Result<()> {
    let body = digits::held_out()?[0].tensor_request();
    let model = ModelName::new(model)?;
    let jobs = (0..jobs).map(|_| Job::new(model.clone(), body.clone()).no_cache());
    let mut submitted = Box::pin(client.submit_many(stream::iter(jobs)));
    while let Some(submitted) = submitted.next().await {
        submitted?;
    }
    Ok(())
}

/// Fills it again and again.
async fn keep_flooded(client: &Client, model: &str) -> anyhow::Error {
    loop {
        match messages_in(client, "INFER_JOBS").await {
            Ok(left) if left >= FLOOD as u64 => tokio::time::sleep(LOOK).await,
            Ok(_) => {
                if let Err(error) = flood(client, model, TOP_UP).await {
                    return error;
                }
            }
            Err(error) => return error,
        }
    }
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}
