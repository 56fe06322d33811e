//! Jobs for a fault to fall among, and what the engine says to each without any queue.

use anyhow::{Context, Result};
use inferq::stack::StackOptions;
use inferq::{Client, Job, JobId};
use inferq_integration::digits::{self, Digit};
use inferq_integration::{job, models_folder, submit_all};
use tokio::task::JoinHandle;

/// Enough that a fault a moment after the first outcome falls among them.
pub(crate) const JOBS: usize = 1_500;

/// Workers that have few jobs at a time, so that many are left when something fails.
pub(crate) fn slow(workers: usize) -> StackOptions {
    let mut worker_args = slowly();
    worker_args.extend(["--executors", "1"].map(str::to_owned));
    StackOptions {
        workers,
        worker_args,
        ..StackOptions::new(models_folder())
    }
}

/// What makes a worker of one thread take few jobs at a time.
pub(crate) fn slowly() -> Vec<String> {
    ["--max-batch-rows", "4"].map(str::to_owned).to_vec()
}

/// The held-out digits, again and again.
pub(crate) struct Load {
    images: Vec<Digit>,
    /// The answer to job `n` is number `n`, counted in circles.
    pub(crate) expected: Vec<Vec<f32>>,
}

impl Load {
    pub(crate) fn new() -> Result<Self> {
        let images = digits::held_out()?;
        let expected = digits::expected(&images)?;
        Ok(Self { images, expected })
    }

    /// The body of job `n`.
    pub(crate) fn body(&self, n: usize) -> String {
        self.images[n % self.images.len()].tensor_request()
    }

    /// Job `n`, which is run even if its answer is known.
    pub(crate) fn job(&self, n: usize) -> Job {
        self.cached(n).no_cache()
    }

    /// Job `n`, whose answer may come from a cache.
    pub(crate) fn cached(&self, n: usize) -> Job {
        job("digits", self.body(n))
    }

    /// Submits the first [`JOBS`] jobs beside the test.
    pub(crate) fn submitting(&self, client: &Client) -> Submitting {
        self.submitting_as(client, Self::job)
    }

    /// The same with each made by `of`.
    pub(crate) fn submitting_as(&self, client: &Client, of: fn(&Self, usize) -> Job) -> Submitting {
        let jobs: Vec<Job> = (0..JOBS).map(|n| of(self, n)).collect();
        let client = client.clone();
        Submitting(tokio::spawn(async move { submit_all(&client, jobs).await }))
    }
}

/// Jobs on their way into the queue.
pub(crate) struct Submitting(JoinHandle<Result<Vec<JobId>>>);

impl Submitting {
    /// All of them, in order: whatever fails, a client that has patience gets all of its jobs accepted.
    pub(crate) async fn accepted(self) -> Result<Vec<JobId>> {
        let accepted = self.0.await?.context("submit_many outlives a fault")?;
        assert_eq!(accepted.len(), JOBS);
        Ok(accepted)
    }
}
