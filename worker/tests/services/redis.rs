//! A Redis of our own on a Unix socket, which can be frozen, killed and started again.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use inferq_worker::config::SecretUrl;

/// A folder for a Redis, and the Redis if it runs.
pub(crate) struct Redis {
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Redis {
    /// A place for a Redis where none runs yet.
    pub(crate) fn absent() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            process: None,
        }
    }

    /// A running Redis.
    pub(crate) fn start() -> Self {
        let mut redis = Self::absent();
        redis.run();
        redis
    }

    /// Starts it, with nothing of what an earlier one kept.
    pub(crate) fn run(&mut self) {
        let mut command = Command::new("redis-server");
        command
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
                "--unixsocket",
            ])
            .arg(self.socket());
        command
            .arg("--dir")
            .arg(self.folder.path())
            .stdout(Stdio::null());
        self.process = Some(
            command
                .spawn()
                .expect("redis-server is on PATH; deploy/setup.sh installs it"),
        );
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "redis-server does not listen"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops the process without closing its connections: it takes requests and never answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Undoes [`Self::freeze`].
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    pub(crate) fn url(&self) -> SecretUrl {
        format!("unix://{}", self.socket().display())
            .parse()
            .expect("any text is taken")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("it runs");
        let sent = Command::new("kill")
            .arg(signal)
            .arg(process.id().to_string())
            .status()
            .expect("kill is there");
        assert!(sent.success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
