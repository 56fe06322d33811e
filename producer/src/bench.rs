//! Load with a latency histogram: `inferq bench`, the demo and the benchmarks all use this.
//!
//! A closed loop keeps so many requests in flight and finds the throughput. An open loop sends at
//! a fixed rate, whatever comes back, and counts each latency from the moment the request was
//! *due*: a stalled server then shows in the tail, instead of silencing those who would have asked.

mod pace;
mod report;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use inferq_schemas::{ErrorCode, Lane, ModelName};
use tokio::{sync::Semaphore, task::JoinSet};

pub use report::{BenchReport, Latency, Recorder};

use crate::{
    client::Client,
    job::{Body, Job},
    outcome::Outcome,
};

/// Requests of an open loop without answer; beyond it sending is late, which the latencies show.
const MOST_OUTSTANDING: usize = 65_536;

/// Which way the requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Direct calls.
    Rpc,
    /// Durable jobs, each from submission to outcome.
    Jobs,
}

/// When the next request is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// When one of so many in flight is answered.
    Closed {
        /// Requests in flight.
        concurrency: usize,
    },
    /// So many times per second.
    Open {
        /// Requests per second.
        rate: f64,
    },
}

/// When sending ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// After so many requests.
    Count(u64),
    /// After so long.
    After(Duration),
}

/// What to send, how, and for how long.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// The model.
    pub model: ModelName,
    /// Bodies, sent in turn.
    pub bodies: Vec<Body>,
    /// Which way.
    pub mode: Mode,
    /// When.
    pub load: Load,
    /// How long.
    pub end: End,
    /// A request without answer for so long has failed.
    pub timeout: Duration,
    /// The lane; `normal` for jobs and `high` for calls unless told.
    pub lane: Option<Lane>,
    /// Whether answers may come from the cache.
    pub cache: bool,
}

/// One answered, or failed, request.
#[derive(Debug)]
pub struct Answer {
    /// The number of the request, from 0; its body is this number modulo the number of bodies.
    pub index: u64,
    /// From when it was sent (closed loop) or due (open loop).
    pub latency: Duration,
    /// The outcome, or why there is none.
    pub result: Result<Outcome, (ErrorCode, String)>,
}

/// Runs the load and reports. `on_answer` sees each answer, on any thread, in no order.
///
/// ```no_run
/// # async fn example(client: inferq::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use inferq::bench::{self, BenchOptions, End, Load, Mode};
///
/// let options = BenchOptions {
///     model: "digits".parse()?,
///     bodies: vec![r#"{"instances": [[0.0, 1.0]]}"#.into()],
///     mode: Mode::Rpc,
///     load: Load::Closed { concurrency: 16 },
///     end: End::Count(10_000),
///     timeout: Duration::from_secs(5),
///     lane: None,
///     cache: true,
/// };
/// let report = bench::run(&client, options, |_| {}).await;
/// println!("{:.0} requests/s, p99 {} us", report.per_second, report.latency.p99_us);
/// # Ok(()) }
/// ```
pub async fn run(
    client: &Client,
    options: BenchOptions,
    on_answer: impl Fn(&Answer) + Send + Sync + 'static,
) -> BenchReport {
    let (load, end) = (options.load, options.end);
    let sender = Arc::new(Sender {
        client: client.clone(),
        options,
        on_answer: Box::new(on_answer),
    });
    let started = Instant::now();
    let recorder = match load {
        Load::Closed { concurrency } => closed(&sender, concurrency.max(1), end).await,
        Load::Open { rate } => open(&sender, rate, end).await,
    };
    recorder.report(started.elapsed())
}

async fn closed(sender: &Arc<Sender>, concurrency: usize, end: End) -> Recorder {
    let started = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..concurrency {
        let (sender, next) = (Arc::clone(sender), Arc::clone(&next));
        callers.spawn(async move {
            let mut recorder = Recorder::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let over = match end {
                    End::Count(count) => index >= count,
                    End::After(limit) => started.elapsed() >= limit,
                };
                if over {
                    return recorder;
                }
                recorder.record(&sender.send(index, Instant::now()).await);
            }
        });
    }
    let mut all = Recorder::new();
    while let Some(recorder) = callers.join_next().await {
        // A caller ends early only if `on_answer` panics; its figures are lost with it.
        if let Ok(recorder) = recorder {
            all.add(&recorder);
        }
    }
    all
}

async fn open(sender: &Arc<Sender>, rate: f64, end: End) -> Recorder {
    let mut due = pace::ticks(rate, end);
    let room = Arc::new(Semaphore::new(MOST_OUTSTANDING));
    let mut requests = JoinSet::new();
    let mut recorder = Recorder::new();
    while let Some((index, at)) = due.recv().await {
        while let Some(done) = requests.try_join_next() {
            if let Ok(answer) = done {
                recorder.record(&answer);
            }
        }
        let permit = Arc::clone(&room).acquire_owned().await;
        let sender = Arc::clone(sender);
        requests.spawn(async move {
            let _permit = permit;
            sender.send(index, at).await
        });
    }
    while let Some(done) = requests.join_next().await {
        if let Ok(answer) = done {
            recorder.record(&answer);
        }
    }
    recorder
}

struct Sender {
    client: Client,
    options: BenchOptions,
    on_answer: Box<dyn Fn(&Answer) + Send + Sync>,
}

impl Sender {
    /// Sends one request; its latency counts from `since`.
    async fn send(&self, index: u64, since: Instant) -> Answer {
        let result = match self.job(index) {
            None => Err((ErrorCode::BadInput, "there is no body to send".to_owned())),
            Some(job) => match self.options.mode {
                Mode::Rpc => self
                    .client
                    .call(job)
                    .await
                    .map_err(|error| (error.code(), error.to_string())),
                Mode::Jobs => match self.client.run(job).await {
                    Ok(outcome) => judge(outcome),
                    Err(error) => Err((error.code(), error.to_string())),
                },
            },
        };
        let answer = Answer {
            index,
            latency: since.elapsed(),
            result,
        };
        (self.on_answer)(&answer);
        answer
    }

    fn job(&self, index: u64) -> Option<Job> {
        let bodies = &self.options.bodies;
        let place = index.checked_rem(bodies.len() as u64)?;
        let body = bodies.get(usize::try_from(place).ok()?)?;
        let mut job =
            Job::new(self.options.model.clone(), body.clone()).timeout(self.options.timeout);
        if let Some(lane) = self.options.lane {
            job = job.lane(lane);
        }
        Some(if self.options.cache {
            job
        } else {
            job.no_cache()
        })
    }
}

fn judge(outcome: Outcome) -> Result<Outcome, (ErrorCode, String)> {
    match outcome.failure() {
        Some(failure) => Err((failure.code, failure.message)),
        None if outcome.is_ok() => Ok(outcome),
        None => Err((
            ErrorCode::Model,
            format!("the job ended {} without a reason", outcome.status()),
        )),
    }
}
