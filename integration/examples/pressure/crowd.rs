//! 100 models with three lanes each on one worker.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use inferq::bench::{self, BenchOptions, BenchReport, End, Load, Mode};
use inferq::queue::PurgeOptions;
use inferq::stack::{Stack, StackOptions};
use inferq::{Client, Lane, ModelName};
use inferq_integration::{digits, fixtures, hazards, start};

use crate::{Figure, busy, flood, process};

const MODELS: usize = 100;
/// What a measurement may take longer.
const MARGIN: Duration = Duration::from_secs(60);
/// Before each measurement the same load, unmeasured: the worker learns how large a batch pays.
const WARM_UP: Duration = Duration::from_secs(3);

/// Two models of a kind: one that is looked at, and one that is flooded.
struct Kind {
    what: &'static str,
    models: [String; 2],
    /// Jobs a second of the one that is looked at.
    rate: f64,
    /// Whether a flood of it keeps all cores busy, with messages: then it is compared with cores as busy with
    /// something else.
    fills_all_cores: bool,
}

pub(crate) async fn measure(lasts: Duration) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let names = |what: &str| [0, 1].map(|number| format!("{what}-{number}"));
    let kinds = [
        Kind {
            what: "of microseconds a row",
            models: names("digits"),
            rate: 50.0,
            fills_all_cores: true,
        },
        Kind {
            what: "of more than 5 ms a row",
            models: names("heavy"),
            rate: 20.0,
            fills_all_cores: false,
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
    let steady = async |lasts| load(stack, quiet, kind.rate, lasts).await;
    steady(WARM_UP).await?;
    let alone = steady(lasts).await?.latency;
    let busy = if kind.fills_all_cores {
        let counting = busy::start(lasts + MARGIN)?;
        let busy = steady(lasts).await?.latency;
        drop(counting);
        Some(busy)
    } else {
        None
    };
    let mut flood = flood::start(stack.nats_url(), flooded)?;
    steady(WARM_UP).await?;
    let before = published(stack.client()).await?;
    let beside = steady(lasts).await?.latency;
    let rate = (published(stack.client()).await? - before) as f64 / lasts.as_secs_f64() - kind.rate;
    ensure!(flood.try_wait()?.is_none(), "the flood has ended");
    flood.kill().await?;
    let model = ModelName::new(flooded)?;
    let queues = stack.client().queues();
    queues
        .purge(&model, Lane::Normal, &PurgeOptions::default())
        .await?;
    let against = busy.as_ref().unwrap_or(&alone);
    let ratio = beside.p99_us as f64 / against.p99_us as f64;
    let busy = busy.as_ref().map_or_else(String::new, |busy| {
        format!(", beside cores that only count {:.1} ms", ms(busy.p99_us))
    });
    Ok(Figure::new(
        format!(
            "p99 of a model {} alone {:.1} ms{busy}, beside one flooded with {rate:.0} jobs/s {:.1} ms: {ratio:.2} x (at most 2); p50 {:.1} and {:.1} ms",
            kind.what,
            ms(alone.p99_us),
            ms(beside.p99_us),
            ms(alone.p50_us),
            ms(beside.p50_us),
        ),
        ratio <= 2.0,
    ))
}

/// How many jobs were ever stored.
async fn published(client: &Client) -> Result<u64> {
    let jetstream = async_nats::jetstream::new(client.nats().clone());
    let stream = jetstream.get_stream("INFER_JOBS").await?;
    Ok(stream.cached_info().state.last_sequence)
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

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}
