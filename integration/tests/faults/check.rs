//! What must hold after every fault: each accepted job has exactly one outcome, which is the answer the
//! engine gives without a queue; nothing is left in a queue, and no consumer or worker holds a message;
//! the memory of the workers is what it was, but for what a few batches need.

use std::time::Duration;

use anyhow::{Result, ensure};
use async_nats::jetstream;
use futures::TryStreamExt;
use inferq::stack::Stack;
use inferq::{Client, JobId};
use inferq_integration::count::{self, Beside};
use inferq_integration::lone::LoneWorker;
use inferq_integration::memory::resident;
use inferq_integration::scrape::wait_for_metric;
use inferq_integration::{PATIENCE, wait_until_empty};

use crate::load::Load;

/// Streams that hold only what is under way.
const QUEUES: [&str; 3] = ["INFER_JOBS", "INFER_BULK", "INFER_RPC"];
/// What a worker may need on top of what it needed before it had run anything, in bytes. A flood that
/// it kept would be several times as much.
const WORKING: usize = 96 << 20;

/// A worker as a process.
struct Watched {
    id: String,
    pid: u32,
    resident: usize,
}

/// Workers, and the memory they had when the watch began.
pub(crate) struct Watch {
    workers: Vec<Watched>,
}

impl Watch {
    /// Over those workers of `stack` that run.
    pub(crate) fn stack(stack: &Stack) -> Result<Self> {
        let workers = stack.workers();
        let running = workers.iter().filter(|worker| worker.is_running());
        Self::over(running.map(|worker| (worker.id().to_owned(), worker.pid())))
    }

    /// Over workers that were started one by one.
    pub(crate) fn lone<'a>(workers: impl IntoIterator<Item = &'a LoneWorker>) -> Result<Self> {
        let workers = workers.into_iter();
        Self::over(workers.map(|worker| (worker.id().to_owned(), worker.pid())))
    }

    fn over(workers: impl Iterator<Item = (String, u32)>) -> Result<Self> {
        let workers = workers.map(|(id, pid)| {
            let resident = resident(pid)?;
            Ok(Watched { id, pid, resident })
        });
        Ok(Self {
            workers: workers.collect::<Result<_>>()?,
        })
    }

    /// Checks all of it, `jobs` being the first of `load`.
    pub(crate) async fn all_ended_once(
        &self,
        client: &Client,
        load: &Load,
        jobs: &[JobId],
    ) -> Result<()> {
        self.ended_once_beside(client, load, jobs, Beside::default())
            .await
    }

    /// The same where other jobs have ended `beside` these.
    pub(crate) async fn ended_once_beside(
        &self,
        client: &Client,
        load: &Load,
        jobs: &[JobId],
        beside: Beside,
    ) -> Result<()> {
        nothing_waits(client).await?;
        let found = count::of(client, jobs, &load.expected, beside).await?;
        ensure!(found.is_right(), "{found}");
        for worker in &self.workers {
            wait_for_metric(client, &worker.id, "inferq_inflight_jobs", 0.0).await?;
            let now = resident(worker.pid)?;
            ensure!(
                now < worker.resident + WORKING,
                "{} had {} bytes in memory and has {now}",
                worker.id,
                worker.resident
            );
        }
        Ok(())
    }
}

/// Waits until no queue holds a message, and no consumer waits for an acknowledgement.
async fn nothing_waits(client: &Client) -> Result<()> {
    for queue in QUEUES {
        wait_until_empty(client, queue).await?;
        let mut holding = holder(client, queue).await;
        let released = async {
            while !matches!(holding, Ok(None)) {
                tokio::time::sleep(Duration::from_millis(50)).await;
                holding = holder(client, queue).await;
            }
        };
        let released = tokio::time::timeout(PATIENCE, released).await.is_ok();
        ensure!(released, "{queue} waits for acknowledgements: {holding:?}");
    }
    Ok(())
}

/// A consumer of `queue` that waits for an acknowledgement.
async fn holder(client: &Client, queue: &str) -> Result<Option<String>> {
    let jetstream = jetstream::new(client.nats().clone());
    let stream = jetstream.get_stream(queue).await?;
    let consumers: Vec<_> = stream.consumers().try_collect().await?;
    let holder = consumers.into_iter().find(|info| info.num_ack_pending > 0);
    Ok(holder.map(|info| info.name))
}
