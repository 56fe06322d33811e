//! Durable jobs: published to JetStream and confirmed by it.

mod many;

use std::time::{Duration, Instant, SystemTime};

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
    },
};
use bytes::Bytes;
use inferq_schemas::{
    Digest, JobHeaders, JobId, ModelName, PayloadRef, ReplyPrefixes, check_subject,
};
use tracing::Instrument;

pub use many::Window;
pub(crate) use many::in_order;

use crate::{
    blobs::{inline_limit, travel_time},
    client::Client,
    error::SubmitError,
    job::Job,
    outcome::pairs,
};

/// JetStream's answer to a publish that a limit of the stream refuses.
const STREAM_FULL: u64 = 10_077;
/// JetStream's answer when its own intake is full (servers from 2.11 on).
const TOO_MANY_REQUESTS: u64 = 10_167;
/// How long one confirmation may take before the same publish is repeated.
const ATTEMPT: Duration = Duration::from_secs(5);
/// A stream without a leader answers like a missing one, so it is asked again for so long.
const MISSING_FOR: Duration = Duration::from_millis(750);
/// In a cluster a stream whose leader died has none until another is elected: 4 to 9 s, and again as
/// long if that one loses.
const LEADERLESS_FOR: Duration = Duration::from_secs(20);
const MISSING_PAUSE: Duration = Duration::from_millis(250);

/// A job that is in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Its id: ask for the outcome with it.
    pub id: JobId,
    /// The same id was queued before, with the same body; nothing was added.
    pub duplicate: bool,
    /// The stream that holds it.
    pub stream: String,
    /// Its number in that stream.
    pub sequence: u64,
    /// No worker starts it later than this.
    pub deadline: Option<SystemTime>,
}

/// A job as it goes over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) id: JobId,
    pub(crate) model: ModelName,
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Of model and body, wherever the body is.
    pub(crate) digest: Digest,
    /// Where the body is that did not fit into the message, if this client has put it there.
    pub(crate) stored: Option<PayloadRef>,
    pub(crate) deadline: Option<SystemTime>,
}

impl Client {
    /// Puts a job into its queue and waits until the server has it.
    ///
    /// A publish without answer is repeated under the same id, which the server recognizes, for at
    /// most 30 s ([`submit_within`](crate::ClientBuilder::submit_within)). A body too large for a message
    /// is stored first, which may take as long again and 1 s for each MiB.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing is queued, except perhaps with [`SubmitError::Unconfirmed`].
    pub async fn submit(&self, job: Job) -> Result<Submitted, SubmitError> {
        let span = tracing::debug_span!("publish", model = %job.model(), otel.kind = "producer");
        async {
            let prepared = self.prepare(&job, self.submit_until()).await?;
            let submitted = self.publish(&prepared, self.submit_until()).await;
            self.tidy(&prepared, &submitted);
            submitted
        }
        .instrument(span)
        .await
    }

    /// When a submit that begins now gives up.
    pub(crate) fn submit_until(&self) -> Instant {
        Instant::now() + self.inner.settings.submit_within
    }

    /// Refuses a model that nobody knows, unless the client was told not to look.
    pub(crate) async fn check_model(
        &self,
        model: &ModelName,
        until: Instant,
    ) -> Result<(), SubmitError> {
        if self.inner.settings.check_models {
            self.inner.known.check(model, until).await?;
        }
        Ok(())
    }

    /// Everything that can be refused without asking the queue. A large body is stored then.
    pub(crate) async fn prepare(&self, job: &Job, until: Instant) -> Result<Prepared, SubmitError> {
        let subject = self.inner.subjects.job(job.model(), job.queue());
        self.prepare_for(job, subject, until, travel_time).await
    }

    /// Forgets the body of a job that was not queued, or is queued already with a body of its own.
    pub(crate) fn tidy(&self, job: &Prepared, submitted: &Result<Submitted, SubmitError>) {
        let is_needed = match submitted {
            Ok(submitted) => !submitted.duplicate,
            Err(error) => matches!(error, SubmitError::Unconfirmed { .. }),
        };
        if let Some(stored) = job.stored.as_ref().filter(|_| !is_needed) {
            self.forget_body(stored);
        }
    }

    pub(crate) async fn prepare_for(
        &self,
        job: &Job,
        subject: String,
        until: Instant,
        more_time: fn(usize) -> Duration,
    ) -> Result<Prepared, SubmitError> {
        self.check_model(job.model(), until).await?;
        if let Some(reply) = job.reply_subject() {
            check_subject(reply).map_err(|error| SubmitError::Header {
                field: "the reply address",
                value: reply.to_owned(),
                reason: error.to_string(),
            })?;
        }
        let (mut headers, mut body) = job.encode()?;
        let digest = headers.body_digest(job.model(), &body);
        let mut sent = header_map(headers.pairs())?;
        let mut stored = None;
        if body.len() > inline_limit(self.inner.nats.max_payload()) {
            let until = until + more_time(body.len());
            stored = Some(self.store_body(&body, until).await?);
            headers.payload_ref.clone_from(&stored);
            sent = header_map(headers.pairs())?;
            body = Bytes::new();
        }
        Ok(Prepared {
            id: headers.id.clone(),
            model: job.model().clone(),
            subject,
            headers: sent,
            body,
            digest,
            stored,
            deadline: job.deadline_after(SystemTime::now()),
        })
    }

    /// Publishes until the server confirms, refuses, or the time is up.
    pub(crate) async fn publish(
        &self,
        job: &Prepared,
        until: Instant,
    ) -> Result<Submitted, SubmitError> {
        let mut missing_until = None;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let unconfirmed = || SubmitError::Unconfirmed {
                id: job.id.clone(),
                after: self.inner.settings.submit_within,
            };
            if left.is_zero() {
                return Err(unconfirmed());
            }
            let attempt = tokio::time::timeout(left.min(ATTEMPT), self.publish_once(job));
            let error = match self.inner.denials.watch(&job.subject, attempt).await? {
                Ok(Ok(ack)) => return self.confirmed(job, ack).await,
                Ok(Err(error)) => error,
                // No answer: the same id makes the repetition harmless.
                Err(_) => continue,
            };
            match error.kind() {
                PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => {
                    tokio::time::sleep(MISSING_PAUSE.min(left)).await;
                }
                PublishErrorKind::StreamNotFound => {
                    let end = || Instant::now() + self.believes_missing_after();
                    if Instant::now() >= *missing_until.get_or_insert_with(end) {
                        return Err(SubmitError::NoStream {
                            subject: job.subject.clone(),
                        });
                    }
                    tokio::time::sleep(MISSING_PAUSE.min(left)).await;
                }
                PublishErrorKind::MaxPayloadExceeded => {
                    return Err(SubmitError::TooLarge {
                        bytes: job.body.len(),
                        max_payload: self.inner.nats.max_payload(),
                    });
                }
                PublishErrorKind::WrongLastMessageId
                | PublishErrorKind::WrongLastSequence
                | PublishErrorKind::MaxAckPending
                | PublishErrorKind::Other => return Err(refused(&error)),
            }
        }
    }

    /// How long a stream that nobody answers for may be there all the same.
    fn believes_missing_after(&self) -> Duration {
        match self.inner.nats.server_info().cluster {
            Some(_) => LEADERLESS_FOR,
            None => MISSING_FOR,
        }
    }

    async fn publish_once(
        &self,
        job: &Prepared,
    ) -> Result<jetstream::publish::PublishAck, PublishError> {
        let message = PublishMessage::build()
            .headers(job.headers.clone())
            .payload(job.body.clone());
        let sent = self
            .inner
            .jetstream
            .send_publish(job.subject.clone(), message)
            .await?;
        sent.await
    }

    async fn confirmed(
        &self,
        job: &Prepared,
        ack: jetstream::publish::PublishAck,
    ) -> Result<Submitted, SubmitError> {
        if ack.duplicate && self.belongs_to_another_body(job, &ack).await {
            return Err(SubmitError::Conflict { id: job.id.clone() });
        }
        Ok(Submitted {
            id: job.id.clone(),
            duplicate: ack.duplicate,
            stream: ack.stream,
            sequence: ack.sequence,
            deadline: job.deadline,
        })
    }

    /// A duplicate never reaches a worker, so the comparison of digests happens here: with the job
    /// that still waits, else with its outcome. In this order, since a job leaves its queue only
    /// after its outcome is written: whichever moment this is, one of the two is found.
    async fn belongs_to_another_body(
        &self,
        job: &Prepared,
        ack: &jetstream::publish::PublishAck,
    ) -> bool {
        let theirs = match self.queued_digest(ack).await {
            Some(digest) => Some(digest),
            None => self.outcome_digest(&job.id).await,
        };
        theirs.is_some_and(|theirs| theirs != job.digest)
    }

    async fn outcome_digest(&self, id: &JobId) -> Option<Digest> {
        let outcome = self.read_outcome(id).await.ok()??;
        outcome.headers.body_digest
    }

    async fn queued_digest(&self, ack: &jetstream::publish::PublishAck) -> Option<Digest> {
        let stream = self
            .inner
            .jetstream
            .get_stream_no_info(&ack.stream)
            .await
            .ok()?;
        let message = stream.direct_get(ack.sequence).await.ok()?;
        let subject = self.inner.subjects.parse_job(&message.subject)?;
        let id = JobId::derived(&ack.stream, ack.sequence);
        let headers =
            JobHeaders::parse(pairs(&message.headers), id, &ReplyPrefixes::default()).headers;
        Some(headers.body_digest(&subject.model, &message.payload))
    }
}

/// Is this the queue's way to say "later"?
fn is_full(code: u64) -> bool {
    code == STREAM_FULL || code == TOO_MANY_REQUESTS
}

fn refused(error: &PublishError) -> SubmitError {
    let source = std::error::Error::source(error);
    let answer = source.and_then(|source| source.downcast_ref::<jetstream::Error>());
    match answer {
        Some(answer) if is_full(answer.error_code().0) => SubmitError::Overloaded {
            reason: answer.to_string(),
        },
        Some(answer) => SubmitError::Refused {
            reason: answer.to_string(),
        },
        None => SubmitError::Refused {
            reason: error.to_string(),
        },
    }
}

pub(crate) fn header_map(pairs: Vec<(&'static str, String)>) -> Result<HeaderMap, SubmitError> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.insert(name, header_value(name, &value)?);
    }
    Ok(headers)
}

/// The value of a header, unless it would break the line; `field` is what the caller calls it.
pub(crate) fn header_value(
    field: &'static str,
    value: &str,
) -> Result<async_nats::HeaderValue, SubmitError> {
    value.parse().map_err(|_| SubmitError::Header {
        field,
        value: value.to_owned(),
        reason: "a header value is one line without control characters".to_owned(),
    })
}
