//! `inferq up`: everything on this machine in one terminal.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use anyhow::bail;
use inferq::{
    AssetPlan, WorkerRecord,
    stack::{DataFolder, Log, Port, RedisChoice, Stack, StackError, StackOptions, WithoutWorkers},
};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Ended, Global, output::Output};

/// Loading and proving a large model takes a while; after this the first report comes without it.
const READY_WITHIN: Duration = Duration::from_secs(60);
const DEFAULT_PORT: u16 = 4222;

/// Run nats-server, Redis and workers here, until Ctrl-C.
///
/// Nothing is reachable from other machines unless --listen says so.
#[derive(Debug, clap::Args)]
pub(super) struct Up {
    /// The folder of models, <name>/<version>/model.onnx. Watched: models may be added.
    #[arg(long, env = "INFERQ_MODELS", value_name = "DIR")]
    models: PathBuf,
    /// How many workers.
    #[arg(long, env = "INFERQ_WORKERS", value_name = "N", default_value = "1")]
    workers: usize,
    /// Where nats-server listens; 0 for any free port.
    #[arg(long, env = "INFERQ_PORT", default_value_t = DEFAULT_PORT)]
    port: u16,
    /// The address to listen on. Anything but 127.0.0.1 lets other machines in, without a password.
    #[arg(long, env = "INFERQ_LISTEN", value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// The cache: auto (a private one if redis-server is installed), off, or an address.
    #[arg(
        long,
        env = "INFERQ_REDIS",
        value_name = "auto|off|URL",
        default_value = "auto",
        hide_env_values = true
    )]
    redis: RedisChoice,
    /// Where jobs and outcomes are kept between runs.
    #[arg(long, env = "INFERQ_DATA", value_name = "DIR", default_value = ".data")]
    data: PathBuf,
    /// The worker program, if not the one beside inferq or on PATH.
    #[arg(long, env = "INFERQ_WORKER_BIN", value_name = "FILE")]
    worker_bin: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Sizes")]
    plan: AssetPlan,
    /// More arguments for every worker, after `--`; see `inferq-worker --help`.
    #[arg(last = true, value_name = "WORKER ARGUMENTS")]
    worker_args: Vec<String>,
}

impl Up {
    pub(super) async fn run(self, global: &Global, output: &Output) -> anyhow::Result<Ended> {
        let mut stop = Stop::listen()?;
        let mut worker_args = self.worker_args;
        if let Some(endpoint) = &global.otlp_endpoint {
            worker_args.extend(["--otlp-endpoint".to_owned(), endpoint.clone()]);
        }
        let options = StackOptions {
            workers: self.workers,
            data: DataFolder::At(self.data),
            port: if self.port == 0 {
                Port::Free
            } else {
                Port::Fixed(self.port)
            },
            listen: self.listen,
            redis: self.redis,
            worker_bin: self.worker_bin,
            worker_args,
            plan: self.plan,
            prefix: global.prefix.clone(),
            log: Log::Terminal,
            ready_within: None,
            ..StackOptions::new(self.models)
        };
        let stack = tokio::select! {
            stack = Stack::start(options) => stack?,
            () = stop.asked() => bail!("interrupted while starting; everything is stopped"),
        };
        let ended = serve(&stack, &mut stop, output).await;
        output.note("stopping: workers finish what they hold (Ctrl-C again to kill)");
        tokio::select! {
            stopped = stack.stop() => stopped?,
            () = stop.asked() => output.note("killed; unfinished jobs stay queued and run next time"),
        }
        ended
    }
}

/// Until somebody asks to stop, nats-server ends, or a worker ends again and again.
async fn serve(stack: &Stack, stop: &mut Stop, output: &Output) -> anyhow::Result<Ended> {
    tokio::select! {
        ready = stack.wait_ready(READY_WITHIN) => match ready {
            Ok(()) => {}
            Err(error @ StackError::NotReady { .. }) => output.note(&format!("{error}; going on without")),
            // Jobs that an earlier run has left may end a worker before the others are ready.
            Err(error) if error.is_crash() => {}
            Err(error) => return Err(error.into()),
        },
        () = stop.asked() => return Ok(Ended::Well),
    }
    announce(stack, output).await?;
    tokio::select! {
        () = stop.asked() => Ok(Ended::Well),
        error = stack.keep(WithoutWorkers::GoOn, |happened| output.note(happened)) => Err(error.into()),
    }
}

async fn announce(stack: &Stack, output: &Output) -> anyhow::Result<()> {
    let records = stack.client().workers().await.unwrap_or_default();
    let models: Vec<String> = stack.models().iter().map(ToString::to_string).collect();
    if output.is_json() {
        return output.line(&json!({
            "nats": stack.nats_url(),
            "redis": stack.redis_url(),
            "data": stack.data(),
            "models": models,
            "workers": stack.workers().iter().map(|worker| json!({"id": worker.id(), "pid": worker.pid()})).collect::<Vec<_>>(),
        }));
    }
    let redis = stack
        .redis_url()
        .unwrap_or("none: answers are cached in each worker's memory only");
    output.print(&output.heading("inferq is up"));
    output.print(&format!("  NATS     {}", stack.nats_url()));
    output.print(&format!("  Redis    {redis}"));
    output.print(&format!("  data     {}", stack.data().display()));
    output.print(&format!("  workers  {}", stack.workers().len()));
    for model in &models {
        output.print(&format!(
            "  model    {} {}",
            output.good(model),
            inputs(&records, model)
        ));
    }
    if models.is_empty() {
        output
            .print("  model    none yet: copy one into the folder, as <name>/<version>/model.onnx");
    }
    let model = models.first().map_or("MODEL", String::as_str);
    let server = match stack.nats_url() {
        "nats://127.0.0.1:4222" => String::new(),
        url => format!(" --nats {url}"),
    };
    let body = example(&records, model);
    output.print("Try, in another terminal:");
    output.print(&format!("  inferq call {model} '{body}'{server}"));
    output.print(&format!("  inferq submit {model} '{body}' --wait{server}"));
    output.print(&format!("  inferq workers{server}"));
    output.print("Ctrl-C finishes what runs and stops everything.");
    Ok(())
}

/// What a model takes, as its workers report.
fn inputs(records: &[WorkerRecord], model: &str) -> String {
    let served = records.iter().flat_map(|record| &record.models);
    let Some(model) = served
        .into_iter()
        .find(|served| served.name.as_str() == model)
    else {
        return "(not loaded)".to_owned();
    };
    let inputs: Vec<String> = model
        .inputs
        .iter()
        .map(|input| {
            let dims: Vec<String> = dims(input)
                .iter()
                .map(|dim| dim.map_or("?".to_owned(), |dim| dim.to_string()))
                .collect();
            format!("{}: {} [{}]", input.name, input.datatype, dims.join(","))
        })
        .collect();
    inputs.join(", ")
}

/// A request that the model takes, when it is short enough to show.
fn example(records: &[WorkerRecord], model: &str) -> String {
    let mut served = records.iter().flat_map(|record| &record.models);
    let served = served.find(|served| served.name.as_str() == model);
    let width = served.and_then(|served| match served.inputs.as_slice() {
        [only] => match dims(only).as_slice() {
            [_, Some(width)] if *width <= 64 => Some(*width),
            _ => None,
        },
        _ => None,
    });
    match width {
        Some(width) => format!("{{\"instances\": [[{}]]}}", vec!["0"; width].join(",")),
        None => "{\"instances\": [...]}".to_owned(),
    }
}

fn dims(spec: &inferq_schemas::TensorSpec) -> Vec<Option<usize>> {
    spec.shape
        .iter()
        .map(|dim| match dim {
            inferq_schemas::Dim::Fixed(size) => Some(*size),
            inferq_schemas::Dim::Any => None,
        })
        .collect()
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
