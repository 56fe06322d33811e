//! The flags of the worker, one struct per concern. Each flag has an `INFERQ_*` variable and a default.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use inferq_engine::gpu::{Gpu, GpuPolicy};

use super::bytes::ByteSize;
use super::secret::SecretUrl;

/// How to reach NATS, and under which names.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// NATS server, or several separated by commas: `nats://HOST:PORT`, `tls://HOST:PORT`; with a user,
    /// `nats://USER:PASSWORD@HOST:PORT`.
    #[arg(
        long = "nats",
        env = "INFERQ_NATS",
        value_name = "URL",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    pub nats: SecretUrl,
    /// Credentials file (JWT and seed) of this worker's NATS user. Without it the URL alone must do.
    #[arg(long = "nats-creds", env = "INFERQ_NATS_CREDS", value_name = "FILE")]
    pub nats_creds: Option<PathBuf>,
    /// First tokens of every subject. Change it only together with all producers and `inferq init`.
    #[arg(long, env = "INFERQ_PREFIX", default_value = "infer")]
    pub prefix: String,
    /// Name of this worker in outcomes, logs and `inferq workers`; 1 to 64 of `[A-Za-z0-9_-]`, unique among
    /// running workers. Default: the host's name and a random ending.
    #[arg(long, env = "INFERQ_ID", value_name = "NAME")]
    pub id: Option<String>,
    /// Where replies may go, as whole tokens separated by commas. Keep it as narrow as the producers allow:
    /// a worker publishes to any address below these that a job names.
    #[arg(
        long = "reply-prefix",
        env = "INFERQ_REPLY_PREFIX",
        value_name = "PREFIX,..",
        value_delimiter = ',',
        default_value = "_INBOX,infer.reply"
    )]
    pub reply_prefixes: Vec<String>,
}

/// Which models are served, and from where.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Models")]
pub struct ModelArgs {
    /// Folder with `<name>/<version>/model.onnx`, looked at once a second: what is copied in is served without a restart.
    #[arg(
        long,
        env = "INFERQ_MODELS",
        value_name = "DIR",
        default_value = "models"
    )]
    pub models: PathBuf,
    /// Serve only models whose name matches one of these globs, such as `digits,resnet*`. Default: all.
    #[arg(
        long,
        env = "INFERQ_SERVE",
        value_name = "GLOB,..",
        value_delimiter = ','
    )]
    pub serve: Vec<String>,
}

/// Whether dense parts of models run on a graphics card.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Models")]
pub struct GpuArgs {
    /// When a graphics card is used: `auto` takes real hardware and measures, for each dense part of a model and
    /// number of rows, whether it is faster there; `force` takes whatever there is, software included, for all of them.
    #[arg(long, env = "INFERQ_GPU", value_enum, default_value_t = GpuChoice::Auto, global = true)]
    pub gpu: GpuChoice,
    /// Use only an adapter whose name contains this, in any case. Default: the one that looks fastest.
    #[arg(
        long = "gpu-name",
        env = "INFERQ_GPU_NAME",
        value_name = "NAME",
        global = true
    )]
    pub gpu_name: Option<String>,
    /// Let models with `engine.weights = "half"` use the card's own products of matrices in f16, if it has them and they
    /// are faster. wgpu calls that experimental (gfx-rs/wgpu#8805): a driver's mistake may cost the worker or an answer.
    #[arg(
        long = "gpu-cooperative",
        env = "INFERQ_GPU_COOPERATIVE",
        action = clap::ArgAction::SetTrue,
        value_parser = clap::builder::BoolishValueParser::new(),
        global = true
    )]
    pub gpu_cooperative: bool,
    /// Folder for what `auto` measures and the driver compiles, so that loading the same model on the same machine
    /// does not take the seconds again. Only the worker's user should write to it. Best effort. Default: none,
    /// every load measures.
    #[arg(
        long = "gpu-cache",
        env = "INFERQ_GPU_CACHE",
        value_name = "DIR",
        global = true
    )]
    pub gpu_cache: Option<PathBuf>,
}

/// See [`GpuArgs::gpu`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum GpuChoice {
    /// Never.
    Off,
    /// Where it is real hardware and measured to be faster.
    #[default]
    Auto,
    /// Always.
    Force,
}

impl GpuArgs {
    /// Opens the card, if these flags want one and there is one. Blocks for up to half a second.
    ///
    /// # Errors
    /// If a card was asked for, by `force` or by name, and cannot be had.
    pub fn open(&self) -> anyhow::Result<Option<Gpu>> {
        let policy = match self.gpu {
            GpuChoice::Off => GpuPolicy::Off,
            GpuChoice::Auto => GpuPolicy::Auto,
            GpuChoice::Force => GpuPolicy::Force,
        };
        match Gpu::open_with(policy, self.gpu_name.as_deref(), self.gpu_cooperative) {
            Ok(gpu) => {
                if let Some(gpu) = &gpu {
                    if let Some(folder) = &self.gpu_cache {
                        gpu.remember_in(folder.clone());
                    }
                    let adapter = gpu.info();
                    tracing::info!(name = adapter.name, kind = %adapter.kind, driver = adapter.driver, "a graphics card is used");
                    if self.gpu_cooperative && gpu.cooperates().is_none() {
                        tracing::warn!(name = adapter.name, "the graphics card has no products of matrices of its own that there is a kernel for, other kernels do them");
                    }
                }
                Ok(gpu)
            }
            Err(error) if policy == GpuPolicy::Auto && self.gpu_name.is_none() => {
                tracing::warn!(%error, "the graphics card is not used, everything runs on the CPU");
                Ok(None)
            }
            Err(error) => Err(error).context(
                "no graphics card as --gpu and --gpu-name want it; `--gpu off` runs everything on the CPU",
            ),
        }
    }
}

/// What is checked, and how the report looks.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// An ONNX file, a version's folder, a model's folder or a folder of models.
    pub path: PathBuf,
    /// One JSON object per version instead of text.
    #[arg(long)]
    pub json: bool,
    /// Also what each operator of a run takes.
    #[arg(long)]
    pub explain: bool,
}

/// When a batch stops waiting for more rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Batching")]
pub struct BatchLimits {
    /// Most rows in one forward pass, 1 to 65536. Raise it until the device is compute bound.
    #[arg(
        long,
        env = "INFERQ_MAX_BATCH_ROWS",
        value_name = "ROWS",
        default_value = "32"
    )]
    pub max_batch_rows: NonZeroUsize,
    /// Longest a row waits for company while an executor is idle, such as `0ms` or `4ms`; at most `1s`.
    /// Above zero it trades latency for fuller batches, which pays only where one row costs nearly as much as many.
    #[arg(long, env = "INFERQ_BATCH_WAIT", value_name = "TIME", default_value = "0ms", value_parser = humantime::parse_duration)]
    pub batch_wait: Duration,
}

/// How much work this worker holds at once, and how it takes it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Intake")]
pub struct IntakeLimits {
    /// Threads that run models, each with its own state of every model it runs; 1 to 1024. Default: the number of
    /// cores this process may use. Fewer where models are large, since each thread holds intermediate tensors.
    #[arg(long, env = "INFERQ_EXECUTORS", value_name = "N", default_value_t = available_cores())]
    pub executors: NonZeroUsize,
    /// Most bytes of job bodies held at once, at least 1MiB. Pulls ask for no more than what is left of it.
    #[arg(
        long = "max-inflight-bytes",
        env = "INFERQ_MAX_INFLIGHT_BYTES",
        value_name = "SIZE",
        default_value = "512MiB"
    )]
    pub max_inflight_bytes: ByteSize,
    /// Time an RPC request without a deadline of its own may take, `1ms` to `55s`.
    #[arg(long = "rpc-timeout", env = "INFERQ_RPC_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub rpc_timeout: Duration,
}

/// Where finished answers are kept.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Cache")]
pub struct CacheArgs {
    /// Redis shared by the workers: `redis://[user:password@]HOST:PORT[/DB]` or `unix:///path/to.sock`. Without it, or
    /// while it is down, each worker caches for itself.
    #[arg(long, env = "INFERQ_REDIS", value_name = "URL", hide_env_values = true)]
    pub redis: Option<SecretUrl>,
    /// Memory of the cache tier inside this process; `0` switches it off.
    #[arg(
        long = "cache-memory",
        env = "INFERQ_CACHE_MEMORY",
        value_name = "SIZE",
        default_value = "64MiB"
    )]
    pub cache_memory: ByteSize,
}

/// The HTTP port for probes and Prometheus.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Telemetry")]
pub struct HttpArgs {
    /// Address of `/metrics`, `/healthz` and `/readyz`, such as `127.0.0.1:9464`; port 0 takes a free one. Default: none.
    #[arg(long, env = "INFERQ_HTTP", value_name = "ADDR:PORT")]
    pub http: Option<SocketAddr>,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Logs, traces and exported metrics.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetryArgs {
    /// Form of the log on stderr.
    #[arg(long = "log-format", env = "INFERQ_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged, as tracing filter directives: `info`, or `warn,inferq_worker=debug`.
    #[arg(
        long,
        env = "INFERQ_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,
    /// OpenTelemetry collector (gRPC) for traces and metrics, such as `http://127.0.0.1:4317`. Default: none.
    #[arg(
        long = "otlp-endpoint",
        env = "INFERQ_OTLP_ENDPOINT",
        value_name = "URL"
    )]
    pub otlp_endpoint: Option<String>,
}

/// How the worker stops, and what it does for the whole system besides its jobs.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Lifecycle")]
pub struct LifecycleArgs {
    /// Longest a drain waits for running jobs before it hands them back, at most `10m`. Keep it 5 s below the
    /// delay after which whoever sent SIGTERM kills.
    #[arg(long = "drain-grace", env = "INFERQ_DRAIN_GRACE", value_name = "TIME", default_value = "25s", value_parser = humantime::parse_duration)]
    pub drain_grace: Duration,
    /// Also answer jobs that no model takes and jobs about to grow too old, and take off those that a crash of the server
    /// left. One of all workers with this flag does it at a time; it needs the right to delete messages from the job streams.
    #[arg(long, env = "INFERQ_SWEEPER", action = clap::ArgAction::SetTrue, value_parser = clap::builder::BoolishValueParser::new())]
    pub sweeper: bool,
}

/// The cores this process may use, 1 if that is unknown.
fn available_cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
