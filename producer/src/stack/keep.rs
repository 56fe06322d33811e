//! Keeps a stack running: workers that end by themselves are started again, after a pause that doubles.

mod restarts;

use std::{
    collections::HashSet, os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration,
};

use nix::sys::signal::Signal;
use tokio::time::Instant;

use self::restarts::{MOST, Restarts, WITHIN};
use super::{Stack, StackError};

const LOOK: Duration = Duration::from_millis(250);
/// How a worker says that it is worn out, with threads in forward passes that do not return: `EX_SOFTWARE` of
/// sysexits.h, see `worker/src/main.rs`.
const WORN_OUT: i32 = 70;
/// How it ends that was asked a second time, see `worker/src/main.rs`.
const INTERRUPTED: i32 = 130;
const SIGINT: i32 = Signal::SIGINT as i32;
const SIGTERM: i32 = Signal::SIGTERM as i32;

/// What becomes of a stack none of whose workers is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutWorkers {
    /// Others may start some, and jobs wait until then.
    GoOn,
    /// Nobody would ever do its work.
    End,
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was asked to.
    Asked,
    /// It asks for a new process.
    WornOut,
    /// A job, a model, the kernel or somebody ended it.
    Crashed,
    /// It ended itself with an error, which its last lines tell.
    Failed,
}

impl End {
    pub(super) fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            // A second request does not wait for what runs; one that comes too early finds nobody who hears it.
            (Some(0 | INTERRUPTED), _) | (None, Some(SIGINT | SIGTERM)) => Self::Asked,
            (Some(WORN_OUT), _) => Self::WornOut,
            (Some(_), _) => Self::Failed,
            (None, _) => Self::Crashed,
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::WornOut => {
                ": forward passes of a model do not return; look at it, or raise limits.run_timeout in its model.toml"
            }
            Self::Crashed => ": a job or a model ends the process, or it has too little memory",
            Self::Failed | Self::Asked => "",
        }
    }
}

impl Stack {
    /// Starts workers again that end without being asked to, until that is of no use, and returns why.
    ///
    /// One that ends again and again stays away. `told` hears of all that happens, in sentences for people.
    pub async fn keep(
        &self,
        without_workers: WithoutWorkers,
        mut told: impl FnMut(&str),
    ) -> StackError {
        let mut keeper = Keeper::default();
        loop {
            tokio::time::sleep(LOOK).await;
            match keeper.look(self, &mut told).await {
                Ok(()) => {}
                Err(StackError::NoWorkerLeft { .. }) if without_workers == WithoutWorkers::GoOn => {
                    told(
                        "no worker is left: jobs wait in the queue until you stop this and run it again",
                    );
                }
                Err(error) => return error,
            }
        }
    }
}

#[derive(Debug, Default)]
struct Keeper {
    /// Workers whose end was told.
    mourned: HashSet<usize>,
    restarts: Restarts,
}

impl Keeper {
    /// # Errors
    /// [`StackError::NoWorkerLeft`] once, when the last one has ended that is not started again.
    async fn look(&mut self, stack: &Stack, told: &mut impl FnMut(&str)) -> Result<(), StackError> {
        if stack.nats.has_exited() {
            // Collects the last lines as well.
            stack.nats.kill().await;
            let lines = stack.nats.last_lines();
            return Err(StackError::NatsEnded { lines });
        }
        let workers = stack.workers();
        let running = workers.iter().filter(|worker| worker.is_running());
        let running = running.count();
        let mut last = None;
        for (index, worker) in workers.iter().enumerate() {
            let Some(status) = worker.exited() else {
                continue;
            };
            if self.mourned.insert(index) {
                worker.wait(Duration::ZERO).await;
                last = Some(worker);
                told(&self.mourn(index, worker.id(), status, running));
            }
        }
        if let Some(last) = last
            && running == 0
            && self.restarts.pending() == 0
        {
            return Err(StackError::NoWorkerLeft {
                worker: last.id().to_owned(),
                lines: last.last_lines(),
            });
        }
        for index in self.restarts.due(Instant::now()) {
            match stack.restart_worker(index).await {
                // Somebody else was faster.
                Ok(()) | Err(StackError::NotEnded { .. }) => {}
                Err(error) => return Err(error),
            }
            self.mourned.remove(&index);
        }
        Ok(())
    }

    /// What happened to a worker that ended, and what becomes of it.
    fn mourn(&mut self, index: usize, id: &str, status: ExitStatus, running: usize) -> String {
        let end = End::of(status);
        let meaning = end.meaning();
        let happened = match end {
            End::WornOut => format!("{id} is worn out ({status}){meaning}"),
            End::Asked | End::Crashed | End::Failed => format!(
                "{id} ended ({status}){meaning}, {running} still run; what it held is delivered again"
            ),
        };
        if end == End::Asked {
            return happened;
        }
        match self.restarts.ended(index, Instant::now()) {
            Some(pause) => {
                let pause = humantime::format_duration(pause);
                format!("{happened}; it starts again in {pause}")
            }
            None => format!(
                "{happened}; it did so {} times within {}, and is not started again",
                MOST + 1,
                humantime::format_duration(WITHIN)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_tells_whether_somebody_wanted_it() {
        // The upper byte is the exit code, the lower one the signal.
        for (status, end) in [
            (0, End::Asked),
            (130 << 8, End::Asked),
            (15, End::Asked),
            (70 << 8, End::WornOut),
            (1 << 8, End::Failed),
            (6, End::Crashed),
            (9, End::Crashed),
        ] {
            assert_eq!(End::of(ExitStatus::from_raw(status)), end, "{status}");
        }
    }
}
