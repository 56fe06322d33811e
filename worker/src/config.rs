//! What the command line and the environment say, checked as a whole before anything is opened.
//!
//! Settings of one model are not here but in its `model.toml` (see `models/settings.rs`).

mod args;
mod bytes;
mod secret;

use std::path::Path;
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};
use inferq_schemas::{ModelName, ReplyPrefixes, Subjects};
use rand::distr::{Alphanumeric, SampleString};

pub use args::{
    BatchLimits, CacheArgs, CheckArgs, ConnectionArgs, GpuArgs, GpuChoice, HttpArgs, IntakeLimits,
    LifecycleArgs, LogFormat, ModelArgs, TelemetryArgs,
};
pub use bytes::{ByteSize, ByteSizeError};
pub use secret::SecretUrl;

/// Pulls jobs from NATS JetStream, runs them in batches and publishes exactly one outcome each.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "inferq-worker", version, about)]
pub struct Config {
    /// Something else than running jobs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to reach NATS.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Which models are served.
    #[command(flatten)]
    pub models: ModelArgs,
    /// Whether a graphics card is used.
    #[command(flatten)]
    pub gpu: GpuArgs,
    /// When a batch is full.
    #[command(flatten)]
    pub batch: BatchLimits,
    /// How much is held at once.
    #[command(flatten)]
    pub intake: IntakeLimits,
    /// Where finished answers are kept.
    #[command(flatten)]
    pub cache: CacheArgs,
    /// The HTTP port.
    #[command(flatten)]
    pub http: HttpArgs,
    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    /// Starting and stopping.
    #[command(flatten)]
    pub lifecycle: LifecycleArgs,
}

/// What `inferq-worker` does besides running jobs.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Load models and tell what a worker would make of them: inputs, outputs, batch proof, memory, speed.
    Check(CheckArgs),
}

/// What follows from a valid [`Config`], in the types the stages want.
#[derive(Debug, Clone)]
pub struct Checked {
    /// All subjects of this deployment.
    pub subjects: Subjects,
    /// Where replies may go.
    pub replies: ReplyPrefixes,
    /// Which models this worker serves.
    pub serve: ServeFilter,
    /// The name of this worker.
    pub worker_id: String,
}

/// Every mistake in the flags and variables, one per line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.join("\n"))]
pub struct ConfigError {
    problems: Vec<String>,
}

impl Config {
    /// Checks everything together, so that one start tells all mistakes.
    ///
    /// # Errors
    /// [`ConfigError`] with a line for each mistake, naming the flag.
    pub fn validate(&self) -> Result<Checked, ConfigError> {
        let mut problems = Problems::default();
        let subjects = problems.keep("--prefix", Subjects::new(&self.connection.prefix));
        let replies = problems.keep(
            "--reply-prefix",
            ReplyPrefixes::new(self.connection.reply_prefixes.clone()),
        );
        let serve = problems.keep("--serve", ServeFilter::new(&self.models.serve));
        let worker_id = problems.keep("--id", worker_id(self.connection.id.as_deref()));
        self.check_addresses(&mut problems);
        self.check_files(&mut problems);
        self.check_ranges(&mut problems);
        match (subjects, replies, serve, worker_id) {
            (Some(subjects), Some(replies), Some(serve), Some(worker_id))
                if problems.0.is_empty() =>
            {
                Ok(Checked {
                    subjects,
                    replies,
                    serve,
                    worker_id,
                })
            }
            _ => Err(ConfigError {
                problems: problems.0,
            }),
        }
    }

    fn check_addresses(&self, problems: &mut Problems) {
        for server in self.connection.nats.expose().split(',') {
            let server = server.trim();
            let scheme = server
                .split_once("://")
                .map_or("nats", |(scheme, _)| scheme);
            if server.is_empty() || !["nats", "tls", "ws", "wss"].contains(&scheme) {
                problems.add(
                    "--nats",
                    "write nats://HOST:PORT or tls://HOST:PORT, several separated by commas",
                );
            }
        }
        if let Some(redis) = &self.cache.redis
            && let Err(error) = redis::Client::open(redis.expose())
        {
            // The library's message may quote the URL, so only its kind is shown.
            let kind = error.category();
            problems.add(
                "--redis",
                format!("write redis://HOST:PORT[/DB] or unix:///path/to.sock ({kind})"),
            );
        }
        if let Some(endpoint) = &self.telemetry.otlp_endpoint
            && !(endpoint.starts_with("http://") || endpoint.starts_with("https://"))
        {
            problems.add(
                "--otlp-endpoint",
                format!("`{endpoint}` is not http://HOST:PORT; the port of OTLP over gRPC is 4317"),
            );
        }
        if let Err(error) = self.telemetry.log.parse::<tracing_subscriber::EnvFilter>() {
            problems.add(
                "--log",
                format!("`{}` is not a filter: {error}", self.telemetry.log),
            );
        }
    }

    fn check_files(&self, problems: &mut Problems) {
        let models = &self.models.models;
        if !models.is_dir() {
            problems.add("--models", format!("`{}` is not a folder; make it, or name the one that holds <name>/<version>/model.onnx", models.display()));
        }
        if let Some(file) = &self.connection.nats_creds
            && let Err(error) = std::fs::File::open(file)
        {
            problems.add(
                "--nats-creds",
                format!("cannot read `{}`: {error}", file.display()),
            );
        }
    }

    fn check_ranges(&self, problems: &mut Problems) {
        let (batch, intake) = (&self.batch, &self.intake);
        problems.within(
            "--max-batch-rows",
            batch.max_batch_rows.get() <= 65_536,
            "at most 65536 rows",
        );
        problems.within(
            "--batch-wait",
            batch.batch_wait <= Duration::from_secs(1),
            "at most 1s",
        );
        problems.within(
            "--executors",
            intake.executors.get() <= 1_024,
            "at most 1024 threads",
        );
        problems.within(
            "--max-inflight-bytes",
            intake.max_inflight_bytes >= ByteSize::mebibytes(1),
            "at least 1MiB",
        );
        let rpc = Duration::from_millis(1)..=Duration::from_secs(55);
        problems.within(
            "--rpc-timeout",
            rpc.contains(&intake.rpc_timeout),
            "from 1ms to 55s",
        );
        problems.within(
            "--drain-grace",
            self.lifecycle.drain_grace <= Duration::from_secs(600),
            "at most 10m",
        );
    }
}

/// Which models a worker serves: all, or those that match one of its globs.
#[derive(Debug, Clone)]
pub struct ServeFilter(Option<GlobSet>);

impl ServeFilter {
    /// A filter of these globs; none means every model.
    ///
    /// # Errors
    /// [`globset::Error`] naming the glob that is none.
    pub fn new(globs: &[String]) -> Result<Self, globset::Error> {
        if globs.is_empty() {
            return Ok(Self(None));
        }
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            set.add(Glob::new(glob.trim())?);
        }
        set.build().map(|set| Self(Some(set)))
    }

    /// Whether this worker serves `model`.
    pub fn serves(&self, model: &ModelName) -> bool {
        self.0
            .as_ref()
            .is_none_or(|set| set.is_match(Path::new(model.as_str())))
    }
}

/// The mistakes found so far.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, flag: &str, problem: impl std::fmt::Display) {
        self.0.push(format!("{flag}: {problem}"));
    }

    fn keep<T, E: std::fmt::Display>(&mut self, flag: &str, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.add(flag, error)).ok()
    }

    fn within(&mut self, flag: &str, holds: bool, range: &str) {
        if !holds {
            self.add(flag, format!("out of range, {range}"));
        }
    }
}

/// The given name if it fits, else one made of the host's name and a random ending.
fn worker_id(given: Option<&str>) -> Result<String, String> {
    let fits = |id: &str| {
        let letters =
            |letter: u8| letter.is_ascii_alphanumeric() || letter == b'-' || letter == b'_';
        (1..=64).contains(&id.len()) && id.bytes().all(letters)
    };
    match given {
        // The sweeper's lease lives under this key of the workers' bucket.
        Some("sweeper") => Err("`sweeper` is the name of a lease; choose another".to_owned()),
        Some(id) if fits(id) => Ok(id.to_owned()),
        Some(id) => Err(format!(
            "`{id}` does not fit; use 1 to 64 of the characters A-Z a-z 0-9 _ -"
        )),
        None => {
            let host: String = host_name()
                .chars()
                .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '-')
                .take(40)
                .collect();
            let ending = Alphanumeric
                .sample_string(&mut rand::rng(), 6)
                .to_ascii_lowercase();
            let host = if host.is_empty() { "worker" } else { &host };
            Ok(format!("{host}-{ending}"))
        }
    }
}

/// The name of this machine, or `worker` where it has none to tell.
fn host_name() -> String {
    std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .or_else(|| std::fs::read_to_string("/etc/hostname").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "worker".to_owned())
}

#[cfg(test)]
mod tests;
