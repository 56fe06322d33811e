//! A private redis-server behind a Unix socket: a cache that nobody else can reach.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    StackError, find,
    log::{Log, Shown},
    process::{Launch, Process},
};

const START_WITHIN: Duration = Duration::from_secs(10);
const STOP_WITHIN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);
/// The longest path of a Unix socket that both Linux (108) and macOS (104) take, with its zero.
const LONGEST_SOCKET_PATH: usize = 103;

/// Which Redis the workers use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RedisChoice {
    /// A private one if redis-server is installed, else none.
    #[default]
    Auto,
    /// None.
    Off,
    /// The one at this address.
    Url(String),
}

impl std::str::FromStr for RedisChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            url if url.contains("://") => Ok(Self::Url(url.to_owned())),
            other => Err(format!(
                "`{other}` is neither auto, off, nor an address such as redis://127.0.0.1:6379"
            )),
        }
    }
}

/// A running redis-server; dropping it kills it.
#[derive(Debug)]
pub struct RedisServer {
    /// The one that runs, or the last one that did.
    process: Mutex<Arc<Process>>,
    program: PathBuf,
    folder: PathBuf,
    socket: PathBuf,
    url: String,
    log: Log,
    /// Holds the socket when the path of the data folder is too long for one.
    _short: Option<tempfile::TempDir>,
}

impl RedisServer {
    /// Starts one with its socket in `data`; `None` if redis-server is not installed.
    ///
    /// Nothing is written to disk: a cache may forget.
    ///
    /// # Errors
    /// [`StackError`] if it does not start.
    pub async fn start(data: &Path, log: &Log) -> Result<Option<Self>, StackError> {
        let Some(program) = find::redis_server() else {
            return Ok(None);
        };
        std::fs::create_dir_all(data).map_err(|source| StackError::folder(data, source))?;
        let folder =
            std::fs::canonicalize(data).map_err(|source| StackError::folder(data, source))?;
        let (socket, short) = socket_path(&folder)?;
        let process = launch(&program, &folder, &socket, log).await?;
        Ok(Some(Self {
            process: Mutex::new(Arc::new(process)),
            url: format!("redis+unix://{}", socket.display()),
            program,
            folder,
            socket,
            log: log.clone(),
            _short: short,
        }))
    }

    /// Starts it again after [`kill`](Self::kill) or [`stop`](Self::stop), on the same socket and with nothing in it.
    ///
    /// # Errors
    /// [`StackError`] if it does not start.
    pub async fn restart(&self) -> Result<(), StackError> {
        let process = launch(&self.program, &self.folder, &self.socket, &self.log).await?;
        *self.lock() = Arc::new(process);
        Ok(())
    }

    /// Where to connect: `redis+unix:///path/redis.sock`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// Ends it at once, as a crash would.
    pub async fn kill(&self) {
        let process = self.process();
        process.kill();
        process.wait(STOP_WITHIN).await;
    }

    /// Freezes it (SIGSTOP): connections stay, nothing is answered.
    pub fn pause(&self) {
        self.process().pause();
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.process().resume();
    }

    /// Ends it.
    pub async fn stop(&self) {
        self.process().stop(STOP_WITHIN).await;
    }

    fn process(&self) -> Arc<Process> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn launch(
    program: &Path,
    folder: &Path,
    socket: &Path,
    log: &Log,
) -> Result<Process, StackError> {
    // A socket that a killed server left would look like a running one.
    std::fs::remove_file(socket).ok();
    let mut arguments: Vec<std::ffi::OsString> = Vec::new();
    for (name, value) in [
        ("--port", "0"),
        ("--save", ""),
        ("--appendonly", "no"),
        ("--daemonize", "no"),
        ("--maxmemory", "256mb"),
        ("--maxmemory-policy", "allkeys-lru"),
        ("--unixsocketperm", "700"),
    ] {
        arguments.extend([name.into(), value.into()]);
    }
    arguments.extend(["--dir".into(), folder.into()]);
    arguments.extend(["--unixsocket".into(), socket.into()]);
    let process = Process::start(
        Launch {
            label: "redis".to_owned(),
            program: program.to_path_buf(),
            arguments,
            environment: Vec::new(),
            shown: Shown::Nothing,
            on_orphaned: "TERM",
        },
        log,
    )
    .await?;
    wait_until_it_answers(&process, socket).await?;
    Ok(process)
}

fn socket_path(folder: &Path) -> Result<(PathBuf, Option<tempfile::TempDir>), StackError> {
    let socket = folder.join("redis.sock");
    if socket.as_os_str().len() <= LONGEST_SOCKET_PATH {
        return Ok((socket, None));
    }
    let short = tempfile::Builder::new().prefix("inferq-").tempdir();
    let short = short.map_err(|source| StackError::folder(&std::env::temp_dir(), source))?;
    Ok((short.path().join("redis.sock"), Some(short)))
}

async fn wait_until_it_answers(process: &Process, socket: &Path) -> Result<(), StackError> {
    let until = Instant::now() + START_WITHIN;
    while tokio::net::UnixStream::connect(socket).await.is_err() {
        if process.exited().is_some() || Instant::now() > until {
            process.wait(Duration::ZERO).await;
            return Err(StackError::RedisFailed {
                lines: process.tail(),
            });
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_a_word_or_an_address() {
        assert_eq!("auto".parse(), Ok(RedisChoice::Auto));
        assert_eq!("off".parse(), Ok(RedisChoice::Off));
        let url = "redis://10.0.0.1:6379";
        assert_eq!(url.parse(), Ok(RedisChoice::Url(url.to_owned())));
        assert!("of".parse::<RedisChoice>().is_err());
    }

    #[test]
    fn a_long_folder_gets_its_socket_elsewhere() {
        let (socket, elsewhere) = socket_path(Path::new("/short")).expect("nothing is made");
        assert!(socket.starts_with("/short") && elsewhere.is_none());
        let long = PathBuf::from("/").join("x".repeat(200));
        let (socket, elsewhere) = socket_path(&long).expect("a temporary folder");
        assert!(socket.as_os_str().len() <= LONGEST_SOCKET_PATH && elsewhere.is_some());
    }
}
