//! Ends the jobs no worker would ever see: those for a model nobody knows, those about to be removed by age, and those
//! that have ended and yet are there.
//!
//! A server that is killed may come back with what its consumers had acknowledged and without what the stream had
//! removed for it: such a job is in the queue for good, and delivered to nobody. It may also have lost acknowledgements
//! (seen with 2.9.10): then only its outcome tells that a job is over.
//!
//! Of all workers started with `--sweeper` the one that holds the lease does it (`sweep/lease.rs`). A job is taken off
//! its stream only after its outcome stands, and outcomes are written by compare-and-set, so two sweepers at once, or
//! one that dies half-way, do no harm.

mod lease;
mod pass;

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::HeaderMap;
use async_nats::jetstream;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{DeleteStatus, LastRawMessageErrorKind};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use inferq_schemas::subjects::{JobSubject, Subjects};
use inferq_schemas::{Assets, Failure};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::metrics::{Metrics, SweepReason};
use lease::Lease;
use pass::Pass;

/// Failures after which a pass is given up: then it is not one job but the server.
const MOST_FAILURES: usize = 8;

/// Jobs that are ended at once, each with its body in memory: one takes some round trips, and a server that crashed may
/// leave thousands.
const AT_ONCE: usize = 16;

/// Time to make the outcome of one job stand. What is not done then is begun anew by the next pass.
const CONCLUDES_WITHIN: Duration = Duration::from_secs(20);

/// A job the sweeper ends.
#[derive(Debug, Clone)]
pub struct SweptJob {
    /// The stream that stores it.
    pub stream: String,
    /// Its sequence in that stream.
    pub sequence: u64,
    /// Model and lane. Where the subject names no possible model, its name made to fit; `raw_subject` has the real one.
    pub subject: JobSubject,
    /// The subject it was published to.
    pub raw_subject: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// When the stream stored it, in unix milliseconds.
    pub published_unix_ms: u64,
    /// Why it is ended.
    pub verdict: SweepVerdict,
    /// What its outcome says, if it gets one here: 404 for an unknown model, 408 for age.
    pub failure: Failure,
}

/// Why the sweeper ends a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepVerdict {
    /// No consumer takes its subject: its outcome is `error`.
    UnknownModel,
    /// The stream would soon remove it unanswered: its outcome is `expired`.
    TooOld,
    /// Its consumer says that it was acknowledged. Its outcome stands already; if the server lost that, too, the job
    /// has to be queued again.
    Left,
    /// It was delivered and its outcome stands for long, and yet it is there: what follows from the outcome is done once
    /// more.
    Answered,
}

/// When a job is ended.
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    /// Time between two passes.
    pub every: Duration,
    /// Age of a job for an unknown model: time for `inferq init` to make it known.
    pub unknown: Duration,
    /// Age of any other job; the streams remove jobs after 7 days.
    pub too_old: Duration,
    /// Age of a job that was acknowledged, since it was published.
    pub left: Duration,
    /// Age of the outcome of a job that was delivered: time for its worker, or after ack_wait for another one, to reply
    /// and to acknowledge.
    pub answered: Duration,
}

impl Default for Ages {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(10),
            unknown: Duration::from_secs(30),
            too_old: Duration::from_secs(6 * 86_400),
            left: Duration::from_secs(30),
            answered: Duration::from_secs(60),
        }
    }
}

/// The sweeper of one worker. `conclude` makes a job's outcome stand, with its dead letter and reply, or sees that one
/// does or will, and fails if it could not; the sweeper itself then takes the job off its stream.
pub struct Sweeper<C> {
    /// The connection.
    pub jetstream: jetstream::Context,
    /// This deployment's subjects.
    pub subjects: Subjects,
    /// Who holds the lease.
    pub worker_id: String,
    /// Where ended jobs are counted.
    pub metrics: Metrics,
    /// When jobs are ended.
    pub ages: Ages,
    /// Ends one job.
    pub conclude: C,
}

impl<C, F> Sweeper<C>
where
    C: Fn(SweptJob) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    /// Sweeps whenever this worker holds the lease, until `stop`; then gives the lease back.
    pub async fn run(self, stop: CancellationToken) {
        let bucket = Assets::new(&self.subjects).workers_kv().to_owned();
        let mut lease = Lease::new(self.jetstream.clone(), bucket, self.worker_id.clone());
        let mut renewals = interval(lease::RENEW_EVERY);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = renewals.tick() => {}
            }
            if lease.hold().await {
                info!("this worker sweeps");
                // A pass is given up wherever it is when the lease is lost: each of its steps can be repeated.
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = lease.keep() => info!("another worker sweeps"),
                    () = self.sweep_for_ever() => {}
                }
            }
        }
        lease.give_back().await;
    }

    async fn sweep_for_ever(&self) {
        let mut passes = interval(self.ages.every);
        passes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            passes.tick().await;
            match self.sweep().await {
                Ok(0) => {}
                Ok(ended) => info!(ended, "jobs ended by the sweeper"),
                Err(error) => warn!(
                    error = format!("{error:#}"),
                    "sweep not finished, trying again"
                ),
            }
        }
    }

    /// One pass over both job streams; the number of jobs ended.
    ///
    /// # Errors
    /// If the server does not answer or `conclude` failed for some job. A job that fails holds up no other, unless
    /// there are too many of them; the next pass takes it up again.
    pub async fn sweep(&self) -> anyhow::Result<u64> {
        let mut pass = Pass::begin(&self.jetstream, &self.subjects, self.ages).await?;
        let (found, jobs) = mpsc::channel(1);
        let find = async move {
            while let Some(job) = pass.next().await? {
                if found.send(job).await.is_err() {
                    break;
                }
            }
            anyhow::Ok(())
        };
        let (looked, (ended, mut failures)) = tokio::join!(find, self.end_all(jobs));
        failures.extend(looked.err());
        let failed = failures.len();
        match failures.into_iter().next() {
            Some(first) => {
                Err(first.context(format!("{failed} failures, {ended} jobs were ended")))
            }
            None => Ok(ended),
        }
    }

    /// Ends `jobs`, some at once: how many it did, and why not the others. After too many failures it takes no more.
    async fn end_all(&self, mut jobs: mpsc::Receiver<SweptJob>) -> (u64, Vec<anyhow::Error>) {
        let mut ending = FuturesUnordered::new();
        let (mut ended, mut failures) = (0, Vec::new());
        loop {
            tokio::select! {
                Some(job) = jobs.recv(), if ending.len() < AT_ONCE => ending.push(self.end(job)),
                Some(end) = ending.next() => match end {
                    Ok(()) => ended += 1,
                    Err(error) => failures.push(error),
                },
                else => return (ended, failures),
            }
            if failures.len() >= MOST_FAILURES {
                jobs.close();
            }
        }
    }

    async fn end(&self, job: SweptJob) -> anyhow::Result<()> {
        let (stream, sequence, verdict) = (job.stream.clone(), job.sequence, job.verdict);
        debug!(
            stream,
            sequence,
            ?verdict,
            subject = job.raw_subject,
            "ending a job"
        );
        let concluded = timeout(CONCLUDES_WITHIN, (self.conclude)(job)).await;
        concluded.context("the outcome of a job could not be written in time")??;
        self.take_off(&stream, sequence).await?;
        self.metrics.swept(match verdict {
            SweepVerdict::UnknownModel => SweepReason::UnknownModel,
            SweepVerdict::TooOld => SweepReason::TooOld,
            SweepVerdict::Left => SweepReason::Left,
            SweepVerdict::Answered => SweepReason::Answered,
        });
        Ok(())
    }

    /// Takes a job off its stream; one that is gone already is as good.
    async fn take_off(&self, stream: &str, sequence: u64) -> anyhow::Result<()> {
        let request = format!("STREAM.MSG.DELETE.{stream}");
        // `Stream::delete_message` would have the job erased, too: then the server overwrites it and syncs the file, and
        // nobody can publish to the stream meanwhile. A crash may bring back what is only removed; its outcome stands.
        let removal = json!({ "seq": sequence, "no_erase": true });
        let answer = self.jetstream.request(request, &removal).await;
        let failed = "cannot delete a job whose outcome stands";
        let Response::<DeleteStatus>::Err { error } = answer.context(failed)? else {
            return Ok(());
        };
        let stream = self.jetstream.get_stream_no_info(stream).await?;
        let found = stream.get_raw_message(sequence).await;
        match found.map_err(|error| error.kind()) {
            Err(LastRawMessageErrorKind::NoMessageFound) => Ok(()),
            Ok(_) | Err(_) => Err(error).context(failed),
        }
    }
}
