//! One child process: started so that it cannot outlive us, signalled, waited for.
//!
//! Three nets, since none catches everything. `stop` ends a process in order. Dropping the value,
//! as a panic does, kills it. And on Linux `setpriv --pdeathsig`, where it is installed, makes the
//! kernel end it when this program is killed; doing that ourselves would need `unsafe` code
//! between fork and exec. Elsewhere a stack whose owner is killed with SIGKILL stays behind.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::{
    StackError,
    log::{Log, Shown, Tail},
    spawner,
};

/// How often a waiting call looks whether the process has ended.
const LOOK: Duration = Duration::from_millis(20);
/// A killed process is gone at once, unless its disk hangs.
const KILL_GRACE: Duration = Duration::from_secs(1);
/// How long the log of an ended process may take to arrive.
const LOG_GRACE: Duration = Duration::from_millis(300);

/// How to start a process.
pub(super) struct Launch {
    pub(super) label: String,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) shown: Shown,
    /// What the kernel sends when this program is gone.
    pub(super) on_orphaned: &'static str,
}

/// A running, or ended, child process.
#[derive(Debug)]
pub(super) struct Process {
    label: String,
    pid: u32,
    child: Mutex<Child>,
    tail: Tail,
    /// Copy the log; they end with the process.
    pumps: Vec<AbortHandle>,
    _running: JoinSet<()>,
}

impl Process {
    pub(super) async fn start(launch: Launch, log: &Log) -> Result<Self, StackError> {
        let Launch { label, program, .. } = &launch;
        let failed = |source| StackError::Spawn {
            program: program.clone(),
            source,
        };
        let command = command(&launch);
        let mut child = spawner::spawn(command).await.map_err(failed)?;
        let pid = child.id().unwrap_or_default();
        let tail = Tail::default();
        let (mut running, mut pumps) = (JoinSet::new(), Vec::new());
        if let Some(stdout) = child.stdout.take() {
            pumps.push(
                running.spawn(
                    log.clone()
                        .pump(label.clone(), stdout, tail.clone(), launch.shown),
                ),
            );
        }
        if let Some(stderr) = child.stderr.take() {
            pumps.push(
                running.spawn(
                    log.clone()
                        .pump(label.clone(), stderr, tail.clone(), launch.shown),
                ),
            );
        }
        Ok(Self {
            label: label.clone(),
            pid,
            child: Mutex::new(child),
            tail,
            pumps,
            _running: running,
        })
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// The last lines it wrote.
    pub(super) fn tail(&self) -> String {
        self.tail.text()
    }

    /// How it ended, if it has.
    pub(super) fn exited(&self) -> Option<ExitStatus> {
        // An error here means that somebody else has collected it: it is gone too.
        self.child().try_wait().ok().flatten()
    }

    /// Asks it to end. Does nothing if it has.
    pub(super) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Ends it at once.
    pub(super) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// Freezes it where it is.
    pub(super) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub(super) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Makes a server read its configuration again.
    pub(super) fn reload(&self) {
        self.signal(Signal::SIGHUP);
    }

    /// Waits for its end; `None` if it takes longer than `limit`.
    pub(super) async fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited() {
                self.log_is_complete().await;
                return Some(status);
            }
            if Instant::now() >= until {
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// SIGTERM, then SIGKILL for one that takes longer than `limit`.
    pub(super) async fn stop(&self, limit: Duration) -> Option<ExitStatus> {
        self.terminate();
        match self.wait(limit).await {
            Some(status) => Some(status),
            None => {
                self.kill();
                self.wait(Duration::from_secs(5)).await
            }
        }
    }

    /// The last lines may still be on their way; a grandchild may hold the other end for ever.
    async fn log_is_complete(&self) {
        let until = Instant::now() + LOG_GRACE;
        while Instant::now() < until && !self.pumps.iter().all(AbortHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn signal(&self, signal: Signal) {
        let mut child = self.child();
        // A process that was collected gave its number back, so it must not be signalled again.
        if matches!(child.try_wait(), Ok(None))
            && let Ok(pid) = i32::try_from(self.pid)
        {
            kill(Pid::from_raw(pid), signal).ok();
        }
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    /// Once this returns the process is gone, so its folder can be removed.
    fn drop(&mut self) {
        self.kill();
        let until = std::time::Instant::now() + KILL_GRACE;
        while self.exited().is_none() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn command(launch: &Launch) -> Command {
    let mut command = match death_signal_wrapper() {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command
                .args(["--pdeathsig", launch.on_orphaned, "--"])
                .arg(&launch.program);
            command
        }
        None => Command::new(&launch.program),
    };
    command
        .args(&launch.arguments)
        .envs(launch.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        // A group of its own: Ctrl-C in the terminal is for us, and we end the others in order.
        .process_group(0);
    command
}

/// `setpriv` replaces itself with the program, so the process keeps its number.
fn death_signal_wrapper() -> Option<&'static Path> {
    static FOUND: std::sync::OnceLock<Option<PathBuf>> = std::sync::OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let setpriv = super::find::on_path("setpriv").filter(|_| cfg!(target_os = "linux"))?;
        // Other implementations of this program lack the option.
        let works = std::process::Command::new(&setpriv)
            .args(["--pdeathsig", "KILL", "--", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        works
            .is_ok_and(|status| status.success())
            .then_some(setpriv)
    });
    found.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str) -> Process {
        let launch = Launch {
            label: "test".to_owned(),
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: Vec::new(),
            shown: Shown::All,
            on_orphaned: "KILL",
        };
        Process::start(launch, &Log::Quiet)
            .await
            .expect("every machine has a shell")
    }

    fn is_running(pid: u32) -> bool {
        let pid = i32::try_from(pid).expect("a process number");
        kill(Pid::from_raw(pid), None).is_ok()
    }

    #[tokio::test]
    async fn a_process_that_ignores_the_request_to_end_is_killed() {
        let process = shell("trap '' TERM; echo started; while :; do sleep 0.05; done").await;
        while process.tail().is_empty() {
            tokio::time::sleep(LOOK).await;
        }
        let status = process
            .stop(Duration::from_millis(200))
            .await
            .expect("it is gone");
        assert_eq!(status.code(), None, "a signal ended it");
        assert!(!is_running(process.pid()));
    }

    #[tokio::test]
    async fn dropping_it_leaves_nothing_running() {
        let process = shell("sleep 60").await;
        let pid = process.pid();
        assert!(is_running(pid));
        drop(process);
        assert!(!is_running(pid));
    }

    #[tokio::test]
    async fn the_last_lines_tell_why_it_ended() {
        let process = shell("echo the reason >&2; exit 3").await;
        let status = process
            .wait(Duration::from_secs(5))
            .await
            .expect("it ended");
        assert_eq!(status.code(), Some(3));
        assert!(process.tail().contains("the reason"), "{}", process.tail());
        process.terminate();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_process_outlives_the_thread_that_started_it() {
        let runtime = tokio::runtime::Handle::current();
        let started = std::thread::spawn(move || runtime.block_on(shell("sleep 60")));
        let process = started.join().expect("the thread ends");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(
            process.exited().is_none(),
            "the kernel took the end of a thread for ours"
        );
    }
}
