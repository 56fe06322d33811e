//! Why a stack does not run.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::keep::End;
use crate::{assets::AssetError, error::ConnectError};

/// Why a stack does not run, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// There is no nats-server.
    #[error(
        "no nats-server: {0}; install it (Debian: `apt install nats-server`, macOS: `brew install nats-server`) or \
         name one in NATS_SERVER"
    )]
    NoNats(String),
    /// There is no worker program.
    #[error(
        "no inferq-worker: --worker-bin: {named}; beside this program: {beside}; and not on PATH. Build it with \
         `cargo build -p inferq-worker`, or name it with --worker-bin"
    )]
    NoWorkerProgram {
        /// What --worker-bin names.
        named: String,
        /// Where it would be beside this program.
        beside: String,
    },
    /// Somebody listens on the port.
    #[error("port {port} is taken; choose another with --port, or --port 0 for any free one")]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// The address cannot be used.
    #[error("cannot listen on {address}; choose another with --listen or --port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The folder cannot be used.
    #[error("{path} cannot be used; choose another folder with --data")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another stack uses the folder.
    #[error("another `inferq up` uses {path}; stop it, or choose another folder with --data")]
    FolderInUse {
        /// The folder.
        path: PathBuf,
    },
    /// There is nothing to serve.
    #[error("the models folder {path} does not exist; name another with --models")]
    NoModels {
        /// The folder.
        path: PathBuf,
    },
    /// A program could not be started.
    #[error("{program} could not be started")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The nats-server ended.
    #[error("nats-server ended. It said:{lines}")]
    NatsEnded {
        /// Its last lines.
        lines: String,
    },
    /// The nats-server does not answer.
    #[error("nats-server did not answer within {within:?}. It said:{lines}")]
    NatsSilent {
        /// How long we waited.
        within: Duration,
        /// Its last lines.
        lines: String,
    },
    /// Redis does not answer.
    #[error("redis-server did not start; use --redis off to go without. It said:{lines}")]
    RedisFailed {
        /// Its last lines.
        lines: String,
    },
    /// The private server cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Streams or consumers could not be made.
    #[error(transparent)]
    Assets(#[from] AssetError),
    /// A worker ended before it was ready.
    #[error("{worker} ended ({status}) before it was ready. It said:{lines}")]
    WorkerEnded {
        /// Which one.
        worker: String,
        /// How.
        status: std::process::ExitStatus,
        /// Its last lines.
        lines: String,
    },
    /// Workers are not ready in time.
    #[error("not ready after {within:?}: {}", .waiting_for.join("; "))]
    NotReady {
        /// How long we waited.
        within: Duration,
        /// What is missing, a phrase per worker.
        waiting_for: Vec<String>,
    },
    /// All workers have ended, and none is started again.
    #[error("no worker is left. {worker} was the last, and said:{lines}")]
    NoWorkerLeft {
        /// The last one.
        worker: String,
        /// Its last lines.
        lines: String,
    },
    /// Only a worker that has ended can be started again.
    #[error("worker {} is running, or was never started", .index + 1)]
    NotEnded {
        /// Its index, from 0.
        index: usize,
    },
}

impl StackError {
    /// Whether a worker ended as a job may end one that has hardly begun, so that another start may be better.
    pub fn is_crash(&self) -> bool {
        let Self::WorkerEnded { status, .. } = self else {
            return false;
        };
        matches!(End::of(*status), End::WornOut | End::Crashed)
    }

    pub(super) fn folder(path: &Path, source: io::Error) -> Self {
        Self::Folder {
            path: path.to_owned(),
            source,
        }
    }
}
