//! The embedded stack: a private nats-server, Redis and workers, all on this machine.
//!
//! ```text
//! data.rs      the folder, and the lock on it
//! nats.rs      nats-server with JetStream, on 127.0.0.1
//! redis.rs     redis-server behind a Unix socket, if it is installed
//! workers.rs   N worker processes; one of them sweeps
//! ready.rs     waiting until they say that they are ready
//! keep.rs      starting those again that end by themselves
//! folder.rs    the models folder, watched: a new model becomes known
//! process.rs   a child process that cannot outlive us      find.rs   where the programs are
//! log.rs       one log, each line under its process        spawner.rs   who starts them
//! ```
//! `inferq up`, the demo and the tests all run this. It starts in the order above and stops in the
//! opposite one: workers finish what they hold while the server is still there.

mod collector;
mod data;
mod error;
mod find;
mod folder;
mod keep;
mod log;
pub mod nats;
mod process;
mod ready;
mod redis;
mod spawner;
mod workers;

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use inferq_schemas::ModelName;
use tokio::task::JoinSet;

pub use data::DataFolder;
pub use error::StackError;
pub use find::worker_program;
pub use folder::models_in;
pub use keep::WithoutWorkers;
pub use log::{Log, LogLine};
pub use nats::Port;
pub use redis::{RedisChoice, RedisServer};
pub use workers::WorkerProcess;

use crate::{assets::AssetPlan, client::Client};
use data::Data;
use nats::{NatsOptions, NatsServer};
use workers::{WorkerCommand, Workers};

/// Settings of a [`Stack`].
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// The folder of models, `<name>/<version>/model.onnx`; watched while the stack runs.
    pub models: PathBuf,
    /// How many workers.
    pub workers: usize,
    /// Where everything is kept.
    pub data: DataFolder,
    /// Where nats-server listens.
    pub port: Port,
    /// On which address nats-server listens.
    pub listen: IpAddr,
    /// The cache of the workers.
    pub redis: RedisChoice,
    /// The worker program, if not the one beside this program or on PATH.
    pub worker_bin: Option<PathBuf>,
    /// Where the workers connect, if not to nats-server itself: to a proxy before it, say.
    pub worker_nats: Option<String>,
    /// More arguments for each worker.
    pub worker_args: Vec<String>,
    /// More environment for each worker.
    pub worker_env: Vec<(String, String)>,
    /// Whether a worker answers jobs for models that nobody knows.
    pub sweeper: bool,
    /// Sizes of streams and buckets.
    pub plan: AssetPlan,
    /// The prefix of all subjects.
    pub prefix: String,
    /// More lines of nats-server's configuration.
    pub nats_config: String,
    /// Where the log lines of all processes go.
    pub log: Log,
    /// Models every worker must serve to be ready; `None` for all in the folder.
    pub expect: Option<Vec<ModelName>>,
    /// How long [`Stack::start`] waits for the workers; `None` to return at once.
    pub ready_within: Option<Duration>,
}

impl StackOptions {
    /// One worker over `models`, on a free port, in a temporary folder, without Redis, in silence:
    /// what a test wants.
    pub fn new(models: impl Into<PathBuf>) -> Self {
        Self {
            models: models.into(),
            workers: 1,
            data: DataFolder::Temporary,
            port: Port::Free,
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            redis: RedisChoice::Off,
            worker_bin: None,
            worker_nats: None,
            worker_args: Vec::new(),
            worker_env: Vec::new(),
            sweeper: true,
            plan: AssetPlan::default(),
            prefix: "infer".to_owned(),
            nats_config: String::new(),
            log: Log::Quiet,
            expect: None,
            ready_within: Some(Duration::from_secs(120)),
        }
    }
}

/// A running stack. Dropping it kills all of it; [`stop`](Self::stop) ends it in order.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use inferq::{Job, stack::{Stack, StackOptions}};
///
/// let stack = Stack::start(StackOptions::new("integration/models")).await?;
/// let job = Job::new("digits".parse()?, r#"{"instances": [[0.0, 1.0]]}"#);
/// let outcome = stack.client().run(job).await?;
/// stack.stop().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Stack {
    // Fields are dropped in this order: workers before the servers they need, the folder last.
    workers: Workers,
    watcher: JoinSet<()>,
    redis: Option<RedisServer>,
    redis_url: Option<String>,
    client: Client,
    nats: NatsServer,
    data: Data,
    models: PathBuf,
    expect: Option<Vec<ModelName>>,
}

impl Stack {
    /// Starts everything and waits for the workers.
    ///
    /// # Errors
    /// [`StackError`]; what was started by then is stopped again.
    pub async fn start(options: StackOptions) -> Result<Self, StackError> {
        if !options.models.is_dir() {
            return Err(StackError::NoModels {
                path: options.models,
            });
        }
        let program = find::worker_program(options.worker_bin.as_deref())?;
        let models = std::fs::canonicalize(&options.models);
        let models = models.map_err(|source| StackError::folder(&options.models, source))?;
        let data = Data::open(&options.data)?;
        let nats = NatsServer::start(NatsOptions {
            port: options.port,
            listen: options.listen,
            max_file: options.plan.file_bytes(),
            max_memory: options.plan.memory_bytes(),
            more: options.nats_config,
            environment: collector::environment(&options.plan),
            log: options.log.clone(),
            ..NatsOptions::new(data.path())
        })
        .await?;
        let redis = match options.redis {
            RedisChoice::Auto => RedisServer::start(data.path(), &options.log).await?,
            RedisChoice::Off | RedisChoice::Url(_) => None,
        };
        let redis_url = match (&redis, options.redis) {
            (Some(redis), _) => Some(redis.url().to_owned()),
            (None, RedisChoice::Url(url)) => Some(url),
            (None, _) => None,
        };
        let client = Client::builder().name("inferq up").prefix(&options.prefix);
        let client = client.connect(nats.url()).await?;
        let admin = client.admin(options.plan);
        admin.init().await?;
        let found = models_in(&models);
        for (name, versions) in &found {
            admin
                .ensure_record(&folder::record(name.clone(), versions.clone()))
                .await?;
        }
        let mut watcher = JoinSet::new();
        watcher.spawn(folder::watch(
            Arc::from(models.as_path()),
            admin,
            found,
            options.log.clone(),
        ));
        let mut arguments: Vec<OsString> = vec![
            "--nats".into(),
            options
                .worker_nats
                .unwrap_or_else(|| nats.url().to_owned())
                .into(),
            "--models".into(),
            models.clone().into(),
            "--prefix".into(),
            options.prefix.into(),
        ];
        if let Some(url) = &redis_url {
            arguments.extend(["--redis".into(), url.into()]);
        }
        // Metrics and health of each worker on a port of its own, which its record names.
        if !options
            .worker_args
            .iter()
            .any(|argument| argument.starts_with("--http"))
        {
            arguments.extend(["--http".into(), "127.0.0.1:0".into()]);
        }
        arguments.extend(options.worker_args.into_iter().map(OsString::from));
        let command = WorkerCommand {
            program,
            arguments,
            environment: options.worker_env,
            sweeper: options.sweeper,
        };
        let stack = Self {
            workers: Workers::new(command, options.log.clone()),
            watcher,
            redis,
            redis_url,
            client,
            nats,
            data,
            models,
            expect: options.expect,
        };
        for _ in 0..options.workers {
            stack.workers.start().await?;
        }
        if let Some(within) = options.ready_within {
            stack.wait_ready(within).await?;
        }
        Ok(stack)
    }

    /// A client of this stack.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where nats-server listens, such as `nats://127.0.0.1:4222`.
    pub fn nats_url(&self) -> &str {
        self.nats.url()
    }

    /// Its nats-server.
    pub fn nats(&self) -> &NatsServer {
        &self.nats
    }

    /// Its private Redis, if it has one.
    pub fn redis(&self) -> Option<&RedisServer> {
        self.redis.as_ref()
    }

    /// The Redis that the workers use, private or not.
    pub fn redis_url(&self) -> Option<&str> {
        self.redis_url.as_deref()
    }

    /// The folder of everything it keeps.
    pub fn data(&self) -> &std::path::Path {
        self.data.path()
    }

    /// The models that the folder has now.
    pub fn models(&self) -> Vec<ModelName> {
        models_in(&self.models).into_keys().collect()
    }

    /// A worker by index, from 0, also one that has ended; `None` past the last.
    pub fn worker(&self, index: usize) -> Option<Arc<WorkerProcess>> {
        self.workers.get(index)
    }

    /// All workers that were started, also those that have ended.
    pub fn workers(&self) -> Vec<Arc<WorkerProcess>> {
        self.workers.all()
    }

    /// Starts one more worker and returns its index, without waiting for it.
    ///
    /// # Errors
    /// [`StackError::Spawn`] if the program cannot be started.
    pub async fn start_worker(&self) -> Result<usize, StackError> {
        self.workers.start().await
    }

    /// Starts a worker again that has ended, under the same index and id.
    ///
    /// # Errors
    /// [`StackError::NotEnded`] if it runs, or was never started.
    pub async fn restart_worker(&self, index: usize) -> Result<(), StackError> {
        self.workers.restart(index).await
    }

    /// Waits until every running worker is ready and serves the expected models.
    ///
    /// # Errors
    /// [`StackError::WorkerEnded`] or [`StackError::NotReady`], which say what is missing.
    pub async fn wait_ready(&self, within: Duration) -> Result<(), StackError> {
        let models = self.expect.clone().unwrap_or_else(|| self.models());
        let running: Vec<_> = self
            .workers()
            .into_iter()
            .filter(|worker| worker.is_running())
            .collect();
        // One that has ended already is reported with its last words, unless others still run.
        let watched = if running.is_empty() {
            self.workers()
        } else {
            running
        };
        ready::wait(&self.client, &watched, &models, within).await
    }

    /// Stops in order: workers drain for up to 30 s, then Redis, then nats-server.
    ///
    /// Dropping the future on its way kills what is left.
    ///
    /// # Errors
    /// [`StackError::Folder`] if a temporary folder could not be removed.
    pub async fn stop(mut self) -> Result<(), StackError> {
        self.watcher.shutdown().await;
        self.workers.stop().await;
        self.client.close().await;
        if let Some(redis) = &self.redis {
            redis.stop().await;
        }
        self.nats.stop().await;
        let Self {
            data,
            workers,
            redis,
            nats,
            ..
        } = self;
        drop((workers, redis, nats));
        data.close()
    }
}
