//! The workers of a stack: each a process of its own.

use std::{
    ffi::OsString,
    path::PathBuf,
    process::ExitStatus,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    StackError,
    log::{Log, Shown},
    process::{Launch, Process},
};

/// A worker ends its own work within 25 s of SIGTERM; then it is killed.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// One worker process.
#[derive(Debug)]
pub struct WorkerProcess {
    process: Process,
    sweeper: bool,
}

impl WorkerProcess {
    /// Its id in the worker bucket and its label in the log, such as `worker-1`.
    pub fn id(&self) -> &str {
        self.process.label()
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Is it still there?
    pub fn is_running(&self) -> bool {
        self.process.exited().is_none()
    }

    /// Does it do the deployment's housekeeping?
    pub fn is_sweeper(&self) -> bool {
        self.sweeper
    }

    /// Ends it at once, as a crash would (SIGKILL).
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Freezes it (SIGSTOP): its connection stays, it says nothing.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Asks it to finish what it holds and end (SIGTERM).
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits for its end; `None` if it takes longer than `limit`.
    pub async fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        self.process.wait(limit).await
    }

    /// How it ended, if it has.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.process.exited()
    }

    /// The last lines of its log.
    pub fn last_lines(&self) -> String {
        self.process.tail()
    }
}

/// What every worker of a stack is told.
#[derive(Debug, Clone)]
pub(super) struct WorkerCommand {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(String, String)>,
    /// Whether one of them does the housekeeping.
    pub(super) sweeper: bool,
}

#[derive(Debug)]
pub(super) struct Workers {
    command: WorkerCommand,
    log: Log,
    all: Mutex<Vec<Arc<WorkerProcess>>>,
    /// Held while one starts, so that two do not both become the sweeper.
    starting: tokio::sync::Mutex<()>,
}

impl Workers {
    pub(super) fn new(command: WorkerCommand, log: Log) -> Self {
        Self {
            command,
            log,
            all: Mutex::new(Vec::new()),
            starting: tokio::sync::Mutex::new(()),
        }
    }

    /// All that were started, also those that have ended.
    pub(super) fn all(&self) -> Vec<Arc<WorkerProcess>> {
        self.lock().clone()
    }

    pub(super) fn get(&self, index: usize) -> Option<Arc<WorkerProcess>> {
        self.lock().get(index).cloned()
    }

    /// Starts one more; returns its index.
    pub(super) async fn start(&self) -> Result<usize, StackError> {
        let _starting = self.starting.lock().await;
        let index = self.lock().len();
        let worker = self.spawn(index).await?;
        self.lock().push(worker);
        Ok(index)
    }

    /// Starts one again that has ended, under the same id.
    pub(super) async fn restart(&self, index: usize) -> Result<(), StackError> {
        let _starting = self.starting.lock().await;
        let ended = self.get(index).filter(|worker| !worker.is_running());
        if ended.is_none() {
            return Err(StackError::NotEnded { index });
        }
        let worker = self.spawn(index).await?;
        self.lock()[index] = worker;
        Ok(())
    }

    /// Drains all at once; kills those that take too long.
    pub(super) async fn stop(&self) {
        let running: Vec<_> = self
            .all()
            .into_iter()
            .filter(|worker| worker.is_running())
            .collect();
        for worker in &running {
            worker.terminate();
        }
        let until = Instant::now() + DRAIN_WITHIN;
        for worker in &running {
            let left = until.saturating_duration_since(Instant::now());
            if worker.wait(left).await.is_none() {
                self.log.line(
                    worker.id(),
                    "did not drain in time and is killed; its jobs will run again",
                );
                worker.kill();
                worker.wait(Duration::from_secs(5)).await;
            }
        }
    }

    async fn spawn(&self, index: usize) -> Result<Arc<WorkerProcess>, StackError> {
        let label = format!("worker-{}", index + 1);
        let taken = self
            .all()
            .iter()
            .any(|worker| worker.sweeper && worker.is_running());
        let sweeper = self.command.sweeper && !taken;
        let mut arguments = self.command.arguments.clone();
        arguments.extend(["--id".into(), label.clone().into()]);
        if sweeper {
            arguments.push("--sweeper".into());
        }
        let launch = Launch {
            label,
            program: self.command.program.clone(),
            arguments,
            environment: self.command.environment.clone(),
            shown: Shown::All,
            // Its jobs are delivered again; draining would need the server that ends with us.
            on_orphaned: "KILL",
        };
        let process = Process::start(launch, &self.log).await?;
        Ok(Arc::new(WorkerProcess { process, sweeper }))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<WorkerProcess>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell in the place of a worker that sleeps until it is told to end.
    fn sleepers() -> Workers {
        let script = "trap 'exit 0' TERM; echo \"$@\"; while :; do sleep 0.02; done";
        let command = WorkerCommand {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into(), "sh".into()],
            environment: Vec::new(),
            sweeper: true,
        };
        Workers::new(command, Log::Quiet)
    }

    fn sweepers(workers: &Workers) -> Vec<String> {
        let all = workers.all();
        let sweeping = all
            .iter()
            .filter(|worker| worker.is_sweeper() && worker.is_running());
        sweeping.map(|worker| worker.id().to_owned()).collect()
    }

    async fn started(workers: &Workers) {
        for worker in workers.all() {
            while worker.is_running() && worker.last_lines().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    #[tokio::test]
    async fn one_worker_sweeps_and_another_takes_over_when_it_is_gone() {
        let workers = sleepers();
        for _ in 0..3 {
            workers.start().await.expect("a shell starts");
        }
        assert_eq!(sweepers(&workers), ["worker-1"]);
        started(&workers).await;
        let first = workers.get(0).expect("it was started");
        first.kill();
        first
            .wait(Duration::from_secs(5))
            .await
            .expect("it is gone");
        workers.start().await.expect("a shell starts");
        assert_eq!(sweepers(&workers), ["worker-4"]);
        workers.restart(0).await.expect("it has ended");
        assert_eq!(sweepers(&workers), ["worker-4"]);
        started(&workers).await;
        workers.stop().await;
        assert!(workers.all().iter().all(|worker| !worker.is_running()));
    }

    #[tokio::test]
    async fn a_worker_that_runs_is_not_started_twice() {
        let workers = sleepers();
        workers.start().await.expect("a shell starts");
        assert!(matches!(
            workers.restart(0).await,
            Err(StackError::NotEnded { index: 0 })
        ));
        assert!(matches!(
            workers.restart(7).await,
            Err(StackError::NotEnded { index: 7 })
        ));
    }
}
