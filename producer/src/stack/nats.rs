//! A private nats-server with JetStream in a data folder.

mod config;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    StackError, find,
    log::{Log, Shown},
    process::{Launch, Process},
};
use crate::size::ByteSize;

/// A server that recovers a large store needs a while.
const START_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(25);

/// Where the server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// This port; taken is an error.
    Fixed(u16),
    /// Any free port. The server chooses it itself, so two starts never race for one.
    Free,
}

/// Settings of a private nats-server.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// Its name; servers of one cluster need different ones.
    pub name: String,
    /// The folder for its streams and configuration; made if it is missing.
    pub data: PathBuf,
    /// The port.
    pub port: Port,
    /// The address, 127.0.0.1 unless told.
    pub listen: IpAddr,
    /// Most file storage for streams.
    pub max_file: ByteSize,
    /// Most memory for streams.
    pub max_memory: ByteSize,
    /// The largest message, 1 MiB unless told.
    pub max_payload: ByteSize,
    /// More lines of its configuration, such as an `authorization` block.
    pub more: String,
    /// More of its environment, such as `GOGC`.
    pub environment: Vec<(String, String)>,
    /// Where its warnings go.
    pub log: Log,
}

impl NatsOptions {
    /// A server on a free port that keeps its data in `data` and has room for the default plan.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        let plan = crate::AssetPlan::default();
        Self {
            name: format!("inferq-{}", std::process::id()),
            data: data.into(),
            port: Port::Free,
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            max_file: plan.file_bytes(),
            max_memory: plan.memory_bytes(),
            max_payload: ByteSize::mib(1),
            more: String::new(),
            environment: Vec::new(),
            log: Log::Quiet,
        }
    }
}

/// A running nats-server; dropping it kills it.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use inferq::stack::nats::{NatsOptions, NatsServer};
///
/// let server = NatsServer::start(NatsOptions::new(".data")).await?;
/// let client = inferq::Client::connect(server.url()).await?;
/// # server.stop().await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct NatsServer {
    /// The one that runs, or the last one that did.
    process: Mutex<Arc<Process>>,
    program: PathBuf,
    options: NatsOptions,
    /// The data folder, resolved.
    data: PathBuf,
    port: u16,
    url: String,
}

impl NatsServer {
    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// [`StackError`] if there is no nats-server, the port is taken, or it does not start.
    pub async fn start(options: NatsOptions) -> Result<Self, StackError> {
        let program = find::nats_server()?;
        std::fs::create_dir_all(&options.data)
            .map_err(|source| StackError::folder(&options.data, source))?;
        let data = std::fs::canonicalize(&options.data);
        let data = data.map_err(|source| StackError::folder(&options.data, source))?;
        if let Port::Fixed(port) = options.port {
            port_is_free(options.listen, port)?;
        }
        let process = launch(&program, &options, &data).await?;
        let port = ready_port(&process, &options, &data).await?;
        Ok(Self {
            url: format!(
                "nats://{}",
                SocketAddr::new(reachable(options.listen), port)
            ),
            process: Mutex::new(Arc::new(process)),
            program,
            options,
            data,
            port,
        })
    }

    /// Where to connect, such as `nats://127.0.0.1:4222`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// Did it end by itself?
    pub fn has_exited(&self) -> bool {
        self.process().exited().is_some()
    }

    /// The last lines it wrote.
    pub fn last_lines(&self) -> String {
        self.process().tail()
    }

    /// Ends it at once, as a crash would.
    pub async fn kill(&self) {
        let process = self.process();
        process.kill();
        process.wait(STOP_WITHIN).await;
    }

    /// Lets it write what it holds and ends it.
    pub async fn stop(&self) {
        let process = self.process();
        // A stopped process hears nothing, not even that it shall end.
        process.resume();
        process.stop(STOP_WITHIN).await;
    }

    /// Starts it again after [`kill`](Self::kill) or [`stop`](Self::stop): same port, same data.
    ///
    /// # Errors
    /// [`StackError`] if it does not start, as while the first one still runs.
    pub async fn restart(&self) -> Result<(), StackError> {
        port_is_free(self.options.listen, self.port)?;
        let options = NatsOptions {
            port: Port::Fixed(self.port),
            ..self.options.clone()
        };
        let process = launch(&self.program, &options, &self.data).await?;
        ready_port(&process, &options, &self.data).await?;
        *self.lock() = Arc::new(process);
        Ok(())
    }

    /// Freezes it (SIGSTOP): connections stay, nothing is answered.
    pub fn pause(&self) {
        self.process().pause();
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.process().resume();
    }

    /// Replaces the lines of [`NatsOptions::more`] and makes it read them (SIGHUP), as an
    /// administrator does who changes permissions. Connections stay where they may.
    ///
    /// # Errors
    /// [`StackError::Folder`] if the configuration cannot be written.
    pub fn reload(&self, more: &str) -> Result<(), StackError> {
        let options = NatsOptions {
            more: more.to_owned(),
            // A server that runs keeps its port where the file leaves it open.
            port: Port::Free,
            ..self.options.clone()
        };
        config::write(&options, &self.data)?;
        self.process().reload();
        Ok(())
    }

    fn process(&self) -> Arc<Process> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn launch(program: &Path, options: &NatsOptions, data: &Path) -> Result<Process, StackError> {
    let config = config::write(options, data)?;
    let launch = Launch {
        label: "nats".to_owned(),
        program: program.to_owned(),
        arguments: vec!["--config".into(), config.into()],
        environment: options.environment.clone(),
        shown: Shown::NatsProblems,
        on_orphaned: "TERM",
    };
    Process::start(launch, &options.log).await
}

/// Where a server that listens there is reached from this machine.
fn reachable(listen: IpAddr) -> IpAddr {
    if listen.is_unspecified() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        listen
    }
}

/// The early look gives the good message; the server's own attempt decides.
fn port_is_free(listen: IpAddr, port: u16) -> Result<(), StackError> {
    match TcpListener::bind((listen, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Err(StackError::PortTaken { port })
        }
        Err(source) => Err(StackError::Listen {
            address: SocketAddr::new(listen, port),
            source,
        }),
    }
}

async fn ready_port(
    process: &Process,
    options: &NatsOptions,
    data: &Path,
) -> Result<u16, StackError> {
    let until = Instant::now() + START_WITHIN;
    let host = reachable(options.listen);
    loop {
        let port = match options.port {
            Port::Fixed(port) => Some(port),
            Port::Free => written_port(data, process.pid()),
        };
        if let Some(port) = port
            && process.exited().is_none()
            && answers(SocketAddr::new(host, port)).await
        {
            return Ok(port);
        }
        if process.exited().is_some() {
            // Collects the last lines as well.
            process.wait(Duration::ZERO).await;
            let lines = process.tail();
            return Err(match options.port {
                Port::Fixed(port) if lines.contains("address already in use") => {
                    StackError::PortTaken { port }
                }
                _ => StackError::NatsEnded { lines },
            });
        }
        if Instant::now() > until {
            return Err(StackError::NatsSilent {
                within: START_WITHIN,
                lines: process.tail(),
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The server greets with `INFO {...}` as soon as it takes connections; JetStream is recovered before.
async fn answers(address: SocketAddr) -> bool {
    use tokio::io::AsyncReadExt;
    let greeting = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        let mut start = [0; 4];
        stream.read_exact(&mut start).await.ok()?;
        Some(start)
    };
    let greeting = tokio::time::timeout(Duration::from_secs(2), greeting).await;
    greeting.ok().flatten() == Some(*b"INFO")
}

/// The server writes `<program>_<pid>.ports` once it listens.
fn written_port(data: &Path, pid: u32) -> Option<u16> {
    let ending = format!("_{pid}.ports");
    let entries = std::fs::read_dir(config::ports_folder(data)).ok()?;
    let file = entries
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().ends_with(&ending))?;
    let text = std::fs::read_to_string(file.path()).ok()?;
    let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
    ports["nats"][0].as_str()?.rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_that_names_the_flag() {
        let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = held.local_addr().expect("it is bound").port();
        let error = port_is_free(Ipv4Addr::LOCALHOST.into(), port).expect_err("it is taken");
        let text = error.to_string();
        assert!(
            text.contains("--port") && text.contains(&port.to_string()),
            "{text}"
        );
    }
}
