//! A job on its way: where it stands in its queue, what workers tell of it, and last its outcome.
//!
//! Workers tell on core NATS, and may not be heard. Where a job stands is asked of the server. The outcome
//! is waited for as ever, so the end comes whatever else was lost.
//!
//! ```text
//! events/place.rs   position and estimate from what the server counts; no I/O
//! events/watch.rs   asks the server for that
//! ```

mod place;
mod watch;

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use async_nats::Subscriber;
use futures::{
    FutureExt, Stream, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use inferq_schemas::{JobEvent, JobId};

use crate::{
    client::Client,
    error::{ResultError, SubmitError},
    job::{Job, millis},
    outcome::Outcome,
    result::ANY,
    submit::Submitted,
};

use watch::{Seen, Watch};

/// What comes before the outcome is waited for, a subscription and the first look at the queue, takes a
/// millisecond; a server that does not answer must not hold that up.
const FIRST_WITHIN: Duration = Duration::from_secs(2);

/// Something that happened to a job.
#[derive(Debug, Clone)]
pub enum Event {
    /// It is in its queue: told first, unless it has ended by then, and whenever the position changes.
    Queued {
        /// Jobs of its model and lane in front of it that no worker has been given yet. 0 is next, or with
        /// a worker already. Exact if nobody else published to its model between its own submission and
        /// the first look; else no less than there are. A job that is delivered again meanwhile counts as
        /// one that has gone.
        position: u64,
        /// Time until those have gone, at the pace of the last minute; `None` while none has gone.
        estimated_wait: Option<Duration>,
    },
    /// An executor has its first rows. Not told of a job whose answer was known or is computed for another.
    Running {
        /// The worker.
        worker: String,
        /// Which delivery this is, from 1.
        attempt: u64,
        /// The version that runs it.
        model_version: u64,
    },
    /// A delivery ended without an outcome, and the job comes again.
    Retrying {
        /// The worker that gave it back.
        worker: String,
        /// Which delivery that was, from 1.
        attempt: u64,
        /// How long until it may be delivered again.
        delay: Duration,
        /// Why, in one line.
        reason: String,
    },
    /// It has ended, with this outcome. Nothing comes after it.
    Done(Box<Outcome>),
}

impl Event {
    /// The same as a JSON document, the one that travels on `infer.events.<job>`.
    pub fn document(&self) -> JobEvent {
        match self.clone() {
            Self::Queued {
                position,
                estimated_wait,
            } => JobEvent::Queued {
                position,
                estimated_wait_ms: estimated_wait.map(millis),
            },
            Self::Running {
                worker,
                attempt,
                model_version,
            } => JobEvent::Running {
                worker,
                attempt,
                model_version,
            },
            Self::Retrying {
                worker,
                attempt,
                delay,
                reason,
            } => JobEvent::Retrying {
                worker,
                attempt,
                delay_ms: millis(delay),
                reason,
            },
            Self::Done(outcome) => JobEvent::Done {
                status: outcome.status(),
            },
        }
    }

    /// What a worker tells; `None` for what counts only from the server itself.
    fn told(document: JobEvent) -> Option<Self> {
        match document {
            JobEvent::Running {
                worker,
                attempt,
                model_version,
            } => Some(Self::Running {
                worker,
                attempt,
                model_version,
            }),
            JobEvent::Retrying {
                worker,
                attempt,
                delay_ms,
                reason,
            } => Some(Self::Retrying {
                worker,
                attempt,
                delay: Duration::from_millis(delay_ms),
                reason,
            }),
            // The queue is asked, and the outcome is read where it is kept.
            JobEvent::Queued { .. } | JobEvent::Done { .. } => None,
        }
    }
}

/// Which job to follow.
///
/// From a [`Submitted`] its place in the queue and its deadline are known; from a [`JobId`] alone, only
/// what workers tell and the outcome.
#[derive(Debug, Clone)]
pub struct Followed {
    id: JobId,
    /// The stream that holds it, and its number there.
    stored: Option<(String, u64)>,
    deadline: Option<SystemTime>,
}

impl From<&Submitted> for Followed {
    fn from(job: &Submitted) -> Self {
        Self {
            id: job.id.clone(),
            stored: Some((job.stream.clone(), job.sequence)),
            deadline: job.deadline,
        }
    }
}

impl From<&JobId> for Followed {
    fn from(id: &JobId) -> Self {
        Self {
            id: id.clone(),
            stored: None,
            deadline: None,
        }
    }
}

/// The events of one job, from [`Client::events`] or [`Client::follow`]. The last is [`Event::Done`] or an
/// error.
pub struct Events(BoxStream<'static, Result<Event, ResultError>>);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Stream for Events {
    type Item = Result<Event, ResultError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl Client {
    /// What happens to a job from now on, at most for so long.
    ///
    /// [`Event::Queued`] first, while the job is in its queue; then what workers tell of it, if it was
    /// submitted with [`Job::events`]; [`Event::Done`] last and once, however late one begins and whatever
    /// was lost. Nothing of the past is told but the outcome. Asks the server about the queue once a second
    /// while the job waits there; a user who may not ask is told no positions. Begins when it is polled.
    ///
    /// ```no_run
    /// # async fn example(client: inferq::Client, job: inferq::Job) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use futures::StreamExt;
    /// use inferq::Event;
    ///
    /// let submitted = client.submit(job.events()).await?;
    /// let mut events = client.events(&submitted, Duration::from_secs(60));
    /// while let Some(event) = events.next().await {
    ///     match event? {
    ///         Event::Queued { position, .. } => println!("{position} in front"),
    ///         Event::Running { worker, .. } => println!("running on {worker}"),
    ///         Event::Retrying { reason, .. } => println!("again, since {reason}"),
    ///         Event::Done(outcome) => println!("{}: {}", outcome.status(), outcome.text()),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As the last item: [`ResultError::Expired`] once the deadline has passed, [`ResultError::NotYet`]
    /// after `wait`, [`ResultError::Missing`] if the job is in no queue and has no outcome, and the others of
    /// [`wait`](Self::wait).
    pub fn events(&self, job: impl Into<Followed>, wait: Duration) -> Events {
        let (client, job) = (self.clone(), job.into());
        let told = async move {
            let told = client.told(&job.id).await;
            Following::new(client, job, told, wait).events()
        };
        Events(told.flatten_stream().boxed())
    }

    /// Submits a job and follows it, at most for so long. Listens before it submits, so that nothing which
    /// workers tell comes too early. Otherwise as [`events`](Self::events).
    ///
    /// # Errors
    /// [`SubmitError`] if the job was not accepted.
    pub async fn follow(
        &self,
        job: Job,
        wait: Duration,
    ) -> Result<(Submitted, Events), SubmitError> {
        let told = self.told(&job.id()).await;
        let submitted = self.submit(job.events()).await?;
        let following = Following::new(self.clone(), (&submitted).into(), told, wait);
        Ok((submitted, Events(following.events().boxed())))
    }

    /// Listens for what workers tell of a job; without a connection there is nothing to hear.
    async fn told(&self, id: &JobId) -> Option<Subscriber> {
        let subject = self.inner.subjects.events(id);
        let told = self.inner.nats.subscribe(subject);
        let told = tokio::time::timeout(FIRST_WITHIN, told).await.ok()?;
        told.inspect_err(|error| tracing::debug!(%error, "events are not heard"))
            .ok()
    }
}

/// A job that is followed.
struct Following {
    client: Client,
    id: JobId,
    told: Option<Subscriber>,
    /// Until workers have the job, as far as is known.
    watch: Option<Watch>,
    outcome: BoxFuture<'static, Result<Outcome, ResultError>>,
    /// The longest that the first look may take; `None` once there was one.
    first: Option<Duration>,
}

impl Following {
    fn new(client: Client, job: Followed, told: Option<Subscriber>, wait: Duration) -> Self {
        let (waiting, id, deadline) = (client.clone(), job.id.clone(), job.deadline);
        let begun = Instant::now();
        let outcome = async move {
            // Zero would mean one look however long that takes, which only who asked for it wants.
            let left = wait.saturating_sub(begun.elapsed());
            let left = left.max(wait.min(Duration::from_millis(1)));
            waiting.outcome(&id, left, deadline, ANY).await
        };
        let watch = job
            .stored
            .map(|(stream, sequence)| Watch::new(client.clone(), stream, sequence));
        Self {
            id: job.id,
            told,
            watch,
            outcome: outcome.boxed(),
            first: Some(wait.min(FIRST_WITHIN)),
            client,
        }
    }

    fn events(self) -> impl Stream<Item = Result<Event, ResultError>> + Send + 'static {
        stream::unfold(Some(self), |following| async move {
            let mut following = following?;
            let event = following.next().await;
            let goes_on = matches!(&event, Ok(event) if !matches!(event, Event::Done(_)));
            Some((event, goes_on.then_some(following)))
        })
    }

    async fn next(&mut self) -> Result<Event, ResultError> {
        if let (Some(within), Some(watch)) = (self.first.take(), &mut self.watch) {
            // Alone, so that it comes before what has been told meanwhile.
            let seen = tokio::time::timeout(within, watch.look()).await;
            if let Some(event) = self.queued(seen.unwrap_or(Seen::Unchanged)).await? {
                return Ok(event);
            }
        }
        loop {
            tokio::select! {
                // What a worker told before it wrote the outcome is here before the outcome is.
                biased;
                document = heard(&mut self.told) => {
                    let event = JobEvent::from_body(&document).and_then(Event::told);
                    if let Some(event) = event {
                        self.watch = None;
                        return Ok(event);
                    }
                }
                outcome = &mut self.outcome => return outcome.map(|outcome| Event::Done(Box::new(outcome))),
                seen = look(&mut self.watch) => {
                    if let Some(event) = self.queued(seen).await? {
                        return Ok(event);
                    }
                }
            }
        }
    }

    /// What is to be told of what was seen of the queue.
    async fn queued(&mut self, seen: Seen) -> Result<Option<Event>, ResultError> {
        match seen {
            Seen::Unchanged => Ok(None),
            Seen::Stands(standing) => Ok(Some(Event::Queued {
                position: standing.position,
                estimated_wait: standing.estimated_wait,
            })),
            // It leaves its queue after its outcome is written, so that is looked for last.
            Seen::Gone => match self.client.look_again(&self.id).await? {
                None => Err(ResultError::Missing {
                    id: self.id.clone(),
                }),
                Some(_) => {
                    self.watch = None;
                    Ok(None)
                }
            },
        }
    }
}

/// The next document; never, if nobody can be heard.
async fn heard(told: &mut Option<Subscriber>) -> bytes::Bytes {
    if let Some(subscriber) = told {
        if let Some(message) = subscriber.next().await {
            return message.payload;
        }
        *told = None;
    }
    std::future::pending().await
}

/// The next look at the queue; never, if there is nothing more to see.
async fn look(watch: &mut Option<Watch>) -> Seen {
    match watch {
        Some(watch) => watch.look().await,
        None => std::future::pending().await,
    }
}
