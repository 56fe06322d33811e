//! Emptying a queue: each job ends as `cancelled`, then leaves its stream.
//!
//! The order is that of a worker: the outcome by compare-and-set, the reply, and the message last.
//! So a purge that is cut short at any point leaves a job that some worker ends, and a worker that
//! holds a job meanwhile finds that its outcome stands, or has written its own before: then the
//! purge leaves the job to it.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        self, ErrorCode as NatsErrorCode,
        context::{PublishError, PublishErrorKind},
        message::{PublishMessage, StreamMessage},
        response::Response,
        stream::{DeleteStatus, LastRawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;
use futures::TryStreamExt;
use inferq_schemas::{
    ContentType, ErrorCode, Failure, JobHeaders, JobId, Lane, ModelName, OutcomeHeaders,
    ReplyPrefixes, ResultMode, Status,
};
use serde_json::json;

use super::{QueueError, Queues};
use crate::{denied::DeniedSubject, error::Source, outcome::pairs, submit::header_map};

/// Jobs that are ended at once, each with its body in memory.
const AT_ONCE: usize = 64;
/// Longest time to end one job, which takes milliseconds.
const JOB_WITHIN: Duration = Duration::from_secs(20);
/// What outcomes name as the worker that wrote them.
const WORKER: &str = "inferq-queue-purge";
/// A purged job is not delivered to anybody; attempts count from 1.
const ATTEMPT: u64 = 1;

/// How queues are emptied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PurgeOptions {
    /// Where replies may be sent, as workers are told with `--reply-prefix`.
    pub reply_prefixes: ReplyPrefixes,
}

/// What became of the jobs that were in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Jobs that ended as `cancelled` and left the queue.
    pub removed: u64,
    /// Jobs that had another outcome already: a worker is about to take them off.
    pub answered: u64,
    /// Bodies by reference of removed jobs that the bucket did not delete; it does so after a day.
    pub bodies_left: u64,
}

/// A job as it lies in its stream.
struct Queued {
    sequence: u64,
    headers: JobHeaders,
    outcome: OutcomeHeaders,
    body: Bytes,
}

impl Queues {
    /// Ends every job that a queue holds at this moment as `cancelled` (409), and removes it.
    ///
    /// Jobs that workers hold are among them: whichever outcome is written first is the one.
    ///
    /// # Errors
    /// [`QueueError`]; the jobs that were reached until then have ended, and a second purge goes on.
    pub async fn purge(
        &self,
        model: &ModelName,
        lane: Lane,
        options: &PurgeOptions,
    ) -> Result<Purged, QueueError> {
        let inner = &self.client.inner;
        let name = inner.names.stream_of(lane);
        let asked = format!("$JS.API.STREAM.INFO.{name}");
        let found = inner.jetstream.get_stream(name);
        let stream = inner.denials.watch(&asked, found).await?;
        let stream = stream.map_err(|error| QueueError::of_stream(name, error))?;
        let last = stream.cached_info().state.last_sequence;
        let subject = inner.subjects.job(model, lane);
        let waiting = futures::stream::try_unfold(1, |next| {
            let (stream, subject) = (&stream, &subject);
            async move {
                let message = next_on(stream, name, subject, next).await?;
                let message = message.filter(|message| message.sequence <= last);
                Ok::<_, QueueError>(message.map(|message| {
                    let after = message.sequence + 1;
                    (message, after)
                }))
            }
        });
        let ends = waiting.map_ok(|message| {
            let (stream, replies) = (&stream, &options.reply_prefixes);
            async move {
                let job = Queued::read(name, model, &message, replies);
                if !within(name, self.end(stream, name, &message.subject, &job)).await? {
                    let answered = 1;
                    return Ok(Purged {
                        answered,
                        ..Purged::default()
                    });
                }
                Ok(Purged {
                    removed: 1,
                    bodies_left: u64::from(!self.delete_body(&job).await),
                    ..Purged::default()
                })
            }
        });
        let purged =
            ends.try_buffer_unordered(AT_ONCE)
                .try_fold(Purged::default(), |sum, job| async move {
                    Ok(Purged {
                        removed: sum.removed + job.removed,
                        answered: sum.answered + job.answered,
                        bodies_left: sum.bodies_left + job.bodies_left,
                    })
                });
        let purged = purged.await?;
        // Replies have no confirmation of their own.
        within(name, async {
            let flushed = inner.nats.flush().await;
            flushed.map_err(|error| QueueError::of(name, error.into()))
        })
        .await?;
        Ok(purged)
    }

    /// Ends one job; says whether it left the queue.
    async fn end<I>(
        &self,
        stream: &Stream<I>,
        name: &str,
        subject: &str,
        job: &Queued,
    ) -> Result<bool, QueueError> {
        if !self.cancel(name, job).await? {
            return Ok(false);
        }
        self.reply(name, job).await?;
        if let Err(error) = self.take_off(name, job.sequence).await? {
            // Taken off by a worker that held it is as good.
            let found = next_on(stream, name, subject, job.sequence).await?;
            if found.is_some_and(|found| found.sequence == job.sequence) {
                return Err(QueueError::of(name, error));
            }
        }
        Ok(true)
    }

    /// Takes one message off a stream.
    ///
    /// `Stream::delete_message` would have it erased, too: then the server overwrites it and syncs the file, and nobody
    /// can publish to the stream meanwhile.
    async fn take_off(
        &self,
        name: &str,
        sequence: u64,
    ) -> Result<Result<(), Source>, DeniedSubject> {
        let inner = &self.client.inner;
        let request = format!("STREAM.MSG.DELETE.{name}");
        let asked = format!("$JS.API.{request}");
        let removal = json!({ "seq": sequence, "no_erase": true });
        let answer = inner.jetstream.request(request, &removal);
        Ok(match inner.denials.watch(&asked, answer).await? {
            Ok(Response::Ok(DeleteStatus { .. })) => Ok(()),
            Ok(Response::Err { error }) => Err(error.into()),
            Err(error) => Err(error.into()),
        })
    }

    /// Deletes the body of a job that has ended, if it has one by reference; false if that failed.
    async fn delete_body(&self, job: &Queued) -> bool {
        let Some(reference) = &job.headers.payload_ref else {
            return true;
        };
        let deleted = self.client.delete_body(reference).await;
        deleted
            .inspect_err(|error| tracing::debug!(%error, "a body was left to its age"))
            .is_ok()
    }

    /// Makes `cancelled` the outcome of a job, unless it has another.
    async fn cancel(&self, name: &str, job: &Queued) -> Result<bool, QueueError> {
        let inner = &self.client.inner;
        let subject = inner.subjects.result(&job.outcome.job_id);
        let mut expected = job.headers.supersedes.unwrap_or(0);
        loop {
            let publish = PublishMessage::build()
                .headers(job.outcome_headers(name)?)
                .payload(job.body.clone())
                .expected_last_subject_sequence(expected);
            let attempt = async {
                let sent = inner
                    .jetstream
                    .send_publish(subject.clone(), publish)
                    .await?;
                sent.await
            };
            let error = match inner.denials.watch(&subject, attempt).await? {
                Ok(_) => return Ok(true),
                Err(error) if is_refused(&error) => error,
                Err(error) => return Err(QueueError::of(name, error.into())),
            };
            let standing = self.client.read_outcome(&job.outcome.job_id).await;
            match standing.map_err(|error| QueueError::of(name, error.into()))? {
                // An earlier purge that got no further, or a cancellation: nothing is lost with it.
                Some(standing) => {
                    let ours = standing.headers.body_digest == job.outcome.body_digest;
                    return Ok(ours && standing.status() == Status::Cancelled);
                }
                // What a replay replaces has left its stream by age.
                None if expected != 0 => expected = 0,
                None => return Err(QueueError::of(name, error.into())),
            }
        }
    }

    async fn reply(&self, name: &str, job: &Queued) -> Result<(), QueueError> {
        let Some(address) = job.reply_to() else {
            return Ok(());
        };
        let headers = job.outcome_headers(name)?;
        let nats = &self.client.inner.nats;
        let sent = nats.publish_with_headers(address.to_owned(), headers, job.body.clone());
        sent.await
            .map_err(|error| QueueError::of(name, error.into()))
    }
}

impl Queued {
    fn read(
        stream: &str,
        model: &ModelName,
        message: &StreamMessage,
        replies: &ReplyPrefixes,
    ) -> Self {
        let fallback = JobId::derived(stream, message.sequence);
        let headers = JobHeaders::parse(pairs(&message.headers), fallback, replies).headers;
        let content_type = headers
            .content_type
            .unwrap_or_else(|| ContentType::detect(&message.payload));
        let failure = Failure::new(
            ErrorCode::Conflict,
            "the job was taken off its queue before it was answered",
        );
        let body = failure.body(content_type);
        let outcome = OutcomeHeaders {
            job_id: headers.id.clone(),
            status: Status::Cancelled,
            failure: Some(failure),
            worker: WORKER.to_owned(),
            model_version: None,
            attempt: ATTEMPT,
            body_digest: Some(headers.body_digest(model, &message.payload)),
            payload_ref: None,
            content_type,
            traceparent: headers.traceparent.clone(),
        };
        Self {
            sequence: message.sequence,
            headers,
            outcome,
            body,
        }
    }

    fn reply_to(&self) -> Option<&str> {
        match self.headers.result_mode() {
            ResultMode::Store => None,
            ResultMode::Both | ResultMode::Reply => self.headers.reply_to.as_deref(),
        }
    }

    fn outcome_headers(&self, stream: &str) -> Result<HeaderMap, QueueError> {
        let headers = header_map(self.outcome.pairs());
        headers.map_err(|error| QueueError::of(stream, error.into()))
    }
}

/// `work`, unless the connection does not take it, as while a server is away.
async fn within<T>(
    stream: &str,
    work: impl Future<Output = Result<T, QueueError>>,
) -> Result<T, QueueError> {
    match tokio::time::timeout(JOB_WITHIN, work).await {
        Ok(done) => done,
        Err(elapsed) => Err(QueueError::of(stream, elapsed.into())),
    }
}

/// The first message on `subject` from sequence `next` on.
async fn next_on<I>(
    stream: &Stream<I>,
    name: &str,
    subject: &str,
    next: u64,
) -> Result<Option<StreamMessage>, QueueError> {
    match stream.get_first_raw_message_by_subject(subject, next).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(QueueError::of(name, error.into())),
    }
}

/// Whether another outcome stands. Newer servers say so with 10164 where older ones say 10071.
fn is_refused(error: &PublishError) -> bool {
    let source = std::error::Error::source(error);
    let answer = source.and_then(|source| source.downcast_ref::<jetstream::Error>());
    error.kind() == PublishErrorKind::WrongLastSequence
        || answer.is_some_and(|answer| answer.error_code() == NatsErrorCode(10_164))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(headers: &[(&str, &str)], body: &'static str) -> StreamMessage {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, *value);
        }
        StreamMessage {
            subject: "infer.jobs.digits.normal".into(),
            sequence: 7,
            headers: map,
            payload: body.into(),
            time: std::time::SystemTime::UNIX_EPOCH.into(),
        }
    }

    fn read(headers: &[(&str, &str)], body: &'static str) -> Queued {
        let model = "digits".parse().expect("a valid name");
        let message = message(headers, body);
        Queued::read("INFER_JOBS", &model, &message, &ReplyPrefixes::default())
    }

    #[test]
    fn a_job_without_an_id_ends_under_the_one_its_publisher_knows() {
        let job = read(&[], "{}");
        assert_eq!(job.outcome.job_id.as_str(), "INFER_JOBS-7");
        assert_eq!(job.reply_to(), None);
        let body = Failure::from_body(&job.body, ContentType::Json).expect("it is a failure");
        assert_eq!(body.code, ErrorCode::Conflict);
    }

    #[test]
    fn a_reply_goes_only_where_it_is_wanted_and_allowed() {
        let asked = [("Infer-Reply-To", "_INBOX.a.b")];
        assert_eq!(read(&asked, "{}").reply_to(), Some("_INBOX.a.b"));
        let stored = [asked[0], ("Infer-Result", "store")];
        assert_eq!(read(&stored, "{}").reply_to(), None);
        let elsewhere = [("Infer-Reply-To", "infer.jobs.digits.high")];
        assert_eq!(read(&elsewhere, "{}").reply_to(), None);
    }
}
