//! One inbox for the outcomes of all jobs a client runs: a subscription instead of one per job.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::StreamExt;
use inferq_schemas::JobId;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    assets::JOBS_KEPT,
    client::Client,
    error::{ResultError, RunError, Source},
    job::Job,
    outcome::Outcome,
};

/// Without a reply for this long the stream itself is read: a reconnect may have swallowed it.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How long a job without deadline of its own may take.
const RUN_WITHIN: Duration = Duration::from_secs(300);

type Waiting = Arc<Mutex<HashMap<JobId, oneshot::Sender<Outcome>>>>;

/// The shared inbox. Ends with the client.
#[derive(Debug)]
pub(crate) struct Replies {
    inbox: String,
    waiting: Waiting,
    reader: JoinHandle<()>,
}

impl Replies {
    pub(crate) async fn open(
        nats: &async_nats::Client,
    ) -> Result<Self, async_nats::SubscribeError> {
        let inbox = nats.new_inbox();
        let mut answers = nats.subscribe(format!("{inbox}.*")).await?;
        let waiting = Waiting::default();
        let reader = tokio::spawn({
            let waiting = Arc::clone(&waiting);
            async move {
                while let Some(message) = answers.next().await {
                    match Outcome::read(message.headers.as_ref(), message.payload) {
                        Ok(outcome) => deliver(&waiting, outcome),
                        Err(reason) => {
                            tracing::warn!(reason, "a reply that is no outcome is dropped")
                        }
                    }
                }
            }
        });
        Ok(Self {
            inbox,
            waiting,
            reader,
        })
    }

    /// Where the outcome of a job is to be sent.
    fn address(&self, id: &JobId) -> String {
        format!("{}.{id}", self.inbox)
    }

    /// Expects the outcome of a job; nobody waits any more once the answer is dropped.
    fn expect(&self, id: JobId) -> Expected<'_> {
        let (sender, outcome) = oneshot::channel();
        lock(&self.waiting).insert(id.clone(), sender);
        Expected {
            replies: self,
            id,
            outcome,
        }
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

struct Expected<'a> {
    replies: &'a Replies,
    id: JobId,
    outcome: oneshot::Receiver<Outcome>,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        lock(&self.replies.waiting).remove(&self.id);
    }
}

impl Client {
    /// Submits a job and waits for its outcome, at most until its deadline (5 minutes without one).
    ///
    /// Many of these at once share one inbox, which is faster than [`Client::wait`] for each. A
    /// reply that was lost is made up for by reading the stored outcome.
    ///
    /// ```no_run
    /// # async fn example(client: inferq::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let job = inferq::Job::new("digits".parse()?, r#"{"instances": [[0.0, 1.0]]}"#);
    /// let outcome = client.run(job).await?;
    /// println!("{}: {}", outcome.status(), outcome.text());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`RunError`] if the job was not accepted, or no outcome came in time. A job that ended in an
    /// error is an [`Outcome`] like any other.
    pub async fn run(&self, job: Job) -> Result<Outcome, RunError> {
        let id = job.id();
        let started = Instant::now();
        if job.reply_subject().is_some() {
            let submitted = self.submit(job).await?;
            return Ok(self.wait(&submitted, RUN_WITHIN).await?);
        }
        let replies = self.replies(&id).await?;
        let mut expected = replies.expect(id.clone());
        let submitted = self.submit(job.reply_to(replies.address(&id))).await?;
        if !submitted.duplicate {
            let until = submitted.deadline.map(|deadline| {
                deadline
                    .duration_since(std::time::SystemTime::now())
                    .unwrap_or_default()
            });
            let until = started + until.unwrap_or(RUN_WITHIN);
            if let Some(outcome) = self.replied(&mut expected, Some(until)).await? {
                return Ok(outcome);
            }
        }
        // The first of two equal jobs may have named another address, so only the stream is sure.
        let left = RUN_WITHIN.saturating_sub(started.elapsed()).max(LOOK_AGAIN);
        Ok(self.wait(&submitted, left).await?)
    }

    /// Submits a job and waits for its outcome, however long that takes: while the queue is full, while
    /// the server is away, and while no worker comes.
    pub(crate) async fn run_to_the_end(&self, job: Job) -> Result<Outcome, RunError> {
        let id = job.id();
        let replies = self.replies(&id).await?;
        let mut expected = replies.expect(id.clone());
        let job = job.reply_to(replies.address(&id));
        while let Err(error) = self.submit_with_patience(&job, None).await {
            if !error.is_passing() {
                return Err(error.into());
            }
            tracing::debug!(%error, "the server does not answer; the job is sent again");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        match self.replied(&mut expected, None).await? {
            Some(outcome) => Ok(outcome),
            None => Ok(self.result(&id, JOBS_KEPT).await?),
        }
    }

    async fn replies(&self, id: &JobId) -> Result<&Replies, RunError> {
        let replies = &self.inner.replies;
        let opened = replies.get_or_try_init(|| Replies::open(&self.inner.nats));
        opened
            .await
            .map_err(|error| request_error(id, error.into()))
    }

    /// The outcome that comes as a reply, or is found stored; `None` once the time is up, or when somebody
    /// else in this program has begun to wait for the same job.
    async fn replied(
        &self,
        expected: &mut Expected<'_>,
        until: Option<Instant>,
    ) -> Result<Option<Outcome>, RunError> {
        // Replies are published after the outcome is stored, so each pause can be used to look.
        while until.is_none_or(|until| Instant::now() < until) {
            match tokio::time::timeout(LOOK_AGAIN, &mut expected.outcome).await {
                Ok(Ok(outcome)) => return Ok(Some(self.with_body(outcome).await?)),
                Ok(Err(_)) => break,
                Err(_) => {
                    if let Some(outcome) = self.look_again(&expected.id).await? {
                        return Ok(Some(self.with_body(outcome).await?));
                    }
                }
            }
        }
        Ok(None)
    }
}

fn deliver(waiting: &Waiting, outcome: Outcome) {
    let waits = lock(waiting).remove(&outcome.headers.job_id);
    // Replies may be repeated, and a caller may have left.
    if let Some(waits) = waits {
        waits.send(outcome).ok();
    }
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, HashMap<JobId, oneshot::Sender<Outcome>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn request_error(id: &JobId, source: Source) -> RunError {
    RunError::Result(ResultError::Request {
        id: id.clone(),
        source,
    })
}
