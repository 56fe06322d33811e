//! Keeps a stack running: workers that end by themselves are started again, after a pause that doubles.

mod restarts;

use std::{collections::HashSet, process::ExitStatus, time::Duration};

use tokio::time::Instant;

use self::restarts::{MOST, Restarts, WITHIN};
use super::{Stack, StackError, WorkerProcess};

const LOOK: Duration = Duration::from_millis(250);
/// How a worker says that it is worn out, with threads in forward passes that do not return: `EX_SOFTWARE` of
/// sysexits.h, see `worker/src/main.rs`.
const WORN_OUT: i32 = 70;

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was asked to.
    Drained,
    /// It asks for a new process.
    WornOut,
    /// A job, a model, the kernel or somebody ended it.
    Crashed,
    /// It cannot run as it was started; its last lines say why.
    Refused,
}

impl End {
    pub(super) fn of(status: ExitStatus) -> Self {
        match status.code() {
            Some(0) => Self::Drained,
            Some(WORN_OUT) => Self::WornOut,
            Some(_) => Self::Refused,
            None => Self::Crashed,
        }
    }

    /// What to do about a worker that ends so again and again.
    fn advice(self) -> &'static str {
        match self {
            Self::WornOut => {
                "see which model does not return in the lines above, and look at it, raise limits.run_timeout in its \
                 model.toml, or call its jobs off with `inferq cancel` or `inferq queue purge`"
            }
            Self::Crashed => {
                "a job or a model ends the process: `inferq dead ls` shows jobs that did, `inferq queue purge` calls \
                 those of a model off; killed by signal 9 it may have had too little memory"
            }
            Self::Refused | Self::Drained => "its last lines say why",
        }
    }
}

impl Stack {
    /// Starts workers again that end by themselves, until that is of no use, and returns why.
    ///
    /// A worker that was asked to end (exit code 0) stays away. `told` hears of all that happens, in sentences
    /// for people.
    pub async fn keep(&self, mut told: impl FnMut(&str)) -> StackError {
        let mut keeper = Keeper::default();
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = keeper.look(self, &mut told).await {
                return error;
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
    async fn look(&mut self, stack: &Stack, told: &mut impl FnMut(&str)) -> Result<(), StackError> {
        if stack.nats.has_exited() {
            let lines = stack.nats.last_lines();
            return Err(StackError::NatsEnded { lines });
        }
        let workers = stack.workers();
        let running = workers.iter().filter(|worker| worker.is_running());
        let running = running.count();
        let mut ended = false;
        for (index, worker) in workers.iter().enumerate() {
            let Some(status) = worker.exited() else {
                continue;
            };
            if self.mourned.insert(index) {
                ended = true;
                told(&self.mourn(index, worker, status, running)?);
            }
        }
        if ended && running == 0 && self.restarts.pending() == 0 {
            told("no worker is left: jobs wait in the queue until you stop this and run it again");
        }
        for index in self.restarts.due(Instant::now()) {
            stack.restart_worker(index).await?;
            self.mourned.remove(&index);
        }
        Ok(())
    }

    /// What happened to a worker that ended, and what becomes of it.
    fn mourn(
        &mut self,
        index: usize,
        worker: &WorkerProcess,
        status: ExitStatus,
        running: usize,
    ) -> Result<String, StackError> {
        let (id, end) = (worker.id(), End::of(status));
        let happened = match end {
            End::WornOut => format!("{id} is worn out ({status}): forward passes do not return"),
            End::Drained | End::Crashed | End::Refused => format!(
                "{id} ended ({status}), {running} still run; what it held is delivered again"
            ),
        };
        if end == End::Drained {
            return Ok(happened);
        }
        let pause = self.restarts.ended(index, Instant::now());
        let pause = pause.ok_or_else(|| StackError::TooOften {
            worker: id.to_owned(),
            times: MOST + 1,
            within: WITHIN,
            status,
            advice: end.advice(),
            lines: worker.last_lines(),
        })?;
        let pause = humantime::format_duration(pause);
        Ok(format!("{happened}; it starts again in {pause}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn an_end_tells_whether_somebody_wanted_it() {
        // The upper byte is the exit code, the lower one the signal.
        for (status, end) in [
            (0, End::Drained),
            (70 << 8, End::WornOut),
            (1 << 8, End::Refused),
            (6, End::Crashed),
            (9, End::Crashed),
        ] {
            assert_eq!(End::of(ExitStatus::from_raw(status)), end, "{status}");
        }
    }
}
