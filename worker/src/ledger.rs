//! Carries out the steps of a settlement on NATS: outcome, dead letter, reply, acknowledgement.
//!
//! Every method is one publish or one read with a time limit, and says whether it took place, was
//! refused, or is unknown. What follows from that is decided in `settlement.rs`.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::pull::BatchConfig;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, ErrorCode as NatsErrorCode};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use inferq_schemas::assets::Assets;
use inferq_schemas::headers::{OutcomeHeaders, Status};
use inferq_schemas::identity::JobId;
use inferq_schemas::subjects::{Lane, ModelName, Subjects};
use tracing::{error, warn};

use crate::job::{Job, Outcome};
use crate::settlement::Event;

mod headers;
mod problem;
mod refusal;

use headers::{bytes_of, dead_headers, dead_reason, headers_again};
pub use headers::{header_map, header_pairs};
use problem::LastProblem;

/// Longest wait for the answer to one step. Longer than a leader election, shorter than ack_wait.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Why something could not be sent in time.
const CONGESTED: &str = "the connection takes no more";

/// Headers that a stream takes: the server's limit of 64 KiB, less what the client adds.
const MAX_HEADER_BYTES: usize = 63 * 1024;

/// Room for what the client adds to a message: expected sequence and protocol line.
const ENVELOPE_BYTES: usize = 256;

/// The connection that settlements are written over.
#[derive(Debug, Clone)]
pub struct Ledger {
    client: Client,
    jetstream: jetstream::Context,
    subjects: Subjects,
    assets: Assets,
    problem: LastProblem,
}

/// What a dead letter keeps of its job.
#[derive(Debug)]
pub struct DeadLetter<'a> {
    /// The model its subject names.
    pub model: &'a ModelName,
    /// Its lane.
    pub lane: Lane,
    /// Its headers as they came.
    pub headers: &'a HeaderMap,
    /// Its body as it came.
    pub body: &'a Bytes,
}

impl Ledger {
    /// A ledger over `client`.
    pub fn new(client: Client, subjects: Subjects) -> Self {
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(STEP_TIMEOUT);
        let assets = Assets::new(&subjects);
        Self {
            client,
            jetstream,
            subjects,
            assets,
            problem: LastProblem::default(),
        }
    }

    /// The same over another connection.
    pub fn over(&self, client: Client) -> Self {
        Self {
            problem: self.problem.clone(),
            ..Self::new(client, self.subjects.clone())
        }
    }

    /// What had no answer, and why, the last time that something had none.
    pub fn last_problem(&self) -> String {
        self.problem.text()
    }

    /// COMMIT: writes `outcome` if the last one for its job has sequence `expected`, 0 for none.
    /// With `keep` [`Keep::Status`] its outputs are left out.
    pub async fn commit(&self, outcome: &Outcome, expected: u64, keep: Keep) -> Event<Outcome> {
        let body = match keep {
            Keep::Status if outcome.headers.status == Status::Ok => Bytes::new(),
            Keep::Everything | Keep::Status => outcome.body.clone(),
        };
        let publish = PublishMessage::build()
            .headers(header_map(outcome.headers.pairs()))
            .payload(body)
            .expected_last_subject_sequence(expected);
        let subject = self.subjects.result(&outcome.headers.job_id);
        match self.publish_expecting(subject, publish).await {
            Published::At(sequence) => Event::Stands(Outcome {
                sequence: Some(sequence),
                ..outcome.clone()
            }),
            Published::Refused => Event::Refused,
            Published::Unanswered => Event::Unanswered,
        }
    }

    /// The outcome that stands for `job`.
    pub async fn read(&self, job: &JobId) -> Result<Option<Outcome>, Unanswered> {
        let read = self.read_once(job).await;
        if let Err(error) = &read {
            self.problem.note("a standing outcome not read", error);
        }
        read
    }

    async fn read_once(&self, job: &JobId) -> Result<Option<Outcome>, Unanswered> {
        let stream = self
            .jetstream
            .get_stream_no_info(self.assets.results())
            .await
            .map_err(Unanswered::of)?;
        let read = stream.direct_get_last_for_subject(self.subjects.result(job));
        let message = match tokio::time::timeout(STEP_TIMEOUT, read)
            .await
            .map_err(Unanswered::of)?
        {
            Ok(message) => message,
            Err(error) if error.kind() == jetstream::stream::DirectGetErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(Unanswered::of(error)),
        };
        let sequence = Some(message.sequence);
        match OutcomeHeaders::parse(header_pairs(&message.headers)) {
            Ok(headers) => Ok(Some(Outcome {
                headers,
                body: message.payload,
                sequence,
            })),
            Err(error) => {
                error!(%job, %error, "what stands as the outcome of a job is no outcome; its caller is told so");
                Ok(Some(Outcome::unreadable(job, sequence)))
            }
        }
    }

    /// Puts a job into its queue once more, under the id and with the deadline it has.
    ///
    /// # Errors
    /// If the stream does not confirm it.
    pub async fn queue_again(&self, job: &Job, subject: String) -> anyhow::Result<()> {
        let publish = PublishMessage::build()
            .headers(headers_again(job))
            .payload(job.body.clone());
        let publish = async {
            let sent = self.jetstream.send_publish(subject, publish).await?;
            anyhow::Ok(sent.await?)
        };
        let confirmed = tokio::time::timeout(STEP_TIMEOUT, publish).await;
        confirmed
            .context("the stream did not confirm a job in time")?
            .context("a job cannot be queued again")?;
        Ok(())
    }

    /// Publishes the dead letter of `outcome` if the last one for its job has sequence `expected`, 0
    /// for none. What does not fit beside the reason is left out, and the letter says so.
    pub async fn bury(
        &self,
        letter: &DeadLetter<'_>,
        outcome: &Outcome,
        expected: u64,
    ) -> Event<Outcome> {
        let job = &outcome.headers.job_id;
        let subject = self.subjects.dead(letter.model, letter.lane, job);
        let mut reason = dead_reason(letter.headers, outcome);
        let (nothing, mut own) = (HeaderMap::new(), letter.headers);
        let mut headers = dead_headers(own, job, &reason);
        if bytes_of(&headers) > MAX_HEADER_BYTES {
            warn!(%job, "dead letter kept without its own headers, which do not fit beside the reason");
            (reason.without_headers, own) = (true, &nothing);
            headers = dead_headers(own, job, &reason);
        }
        let header_bytes = bytes_of(&headers);
        let mut body = letter.body.clone();
        if body.len() + header_bytes + ENVELOPE_BYTES > self.max_payload() {
            warn!(%job, bytes = body.len(), "dead letter kept without its body, which does not fit beside the reason");
            reason.without_body = true;
            headers = dead_headers(own, job, &reason);
            body = Bytes::new();
        }
        let publish = PublishMessage::build()
            .headers(headers)
            .payload(body)
            .expected_last_subject_sequence(expected);
        match self.publish_expecting(subject, publish).await {
            Published::At(_) => Event::Done,
            Published::Refused => Event::Refused,
            Published::Unanswered => Event::Unanswered,
        }
    }

    /// Sends `outcome` to `address`. Nobody there is no failure: the requester has left.
    pub async fn reply(&self, address: &str, outcome: &Outcome) -> Event<Outcome> {
        let headers = header_map(outcome.headers.pairs());
        let sent =
            self.client
                .publish_with_headers(address.to_owned(), headers, outcome.body.clone());
        match tokio::time::timeout(STEP_TIMEOUT, sent).await {
            Ok(Ok(())) => Event::Done,
            Ok(Err(error))
                if error.kind() == async_nats::client::PublishErrorKind::MaxPayloadExceeded =>
            {
                // It fitted into the outcome, so only the headers make the difference: rare, and final.
                warn!(%error, "reply too large for the server, the outcome keeps it");
                Event::Done
            }
            Ok(Err(error)) => self.unanswered("reply not sent", &error),
            Err(_) => self.unanswered("reply not sent", &CONGESTED),
        }
    }

    /// Takes the message off the queue.
    pub async fn acknowledge(&self, ack: &str) -> Event<Outcome> {
        self.tell(ack, Bytes::from_static(b"+ACK")).await
    }

    /// Asks for another delivery after `delay`.
    pub async fn retry(&self, ack: &str, delay: Duration) -> Event<Outcome> {
        let verb = match delay {
            Duration::ZERO => Bytes::from_static(b"-NAK"),
            delay => Bytes::from(format!("-NAK {{\"delay\": {}}}", delay.as_nanos())),
        };
        self.tell(ack, verb).await
    }

    /// Tells the server that the message is being worked on.
    pub async fn progress(&self, ack: &str) {
        self.tell(ack, Bytes::from_static(b"+WPI")).await;
    }

    /// Asks `consumer` for messages; they and the server's word on the request come to `inbox`.
    ///
    /// # Errors
    /// If the connection does not take the request.
    pub async fn request_messages(
        &self,
        stream: &str,
        consumer: &str,
        request: &BatchConfig,
        inbox: String,
    ) -> Result<(), Unanswered> {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        let request = serde_json::to_vec(request).map_err(Unanswered::of)?;
        let sent = self
            .client
            .publish_with_reply(subject, inbox, request.into());
        tokio::time::timeout(STEP_TIMEOUT, sent)
            .await
            .map_err(Unanswered::of)?
            .map_err(Unanswered::of)
    }

    /// One round trip: everything sent before it over this connection has reached the server when it returns.
    pub async fn barrier(&self) -> Result<(), Unanswered> {
        let inbox = self.client.new_inbox();
        let round_trip = async {
            let mut subscription = self
                .client
                .subscribe(inbox.clone())
                .await
                .map_err(Unanswered::of)?;
            self.client
                .publish(inbox, Bytes::new())
                .await
                .map_err(Unanswered::of)?;
            futures::StreamExt::next(&mut subscription).await;
            Ok(())
        };
        tokio::time::timeout(STEP_TIMEOUT, round_trip)
            .await
            .map_err(Unanswered::of)?
    }

    /// The JetStream context, for assets and consumers.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// The NATS connection.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Subjects under this deployment's prefix.
    pub fn subjects(&self) -> &Subjects {
        &self.subjects
    }

    /// Names of streams, buckets and consumers.
    pub fn assets(&self) -> &Assets {
        &self.assets
    }

    /// Largest message the server takes, headers included, in bytes.
    pub fn max_payload(&self) -> usize {
        self.client.server_info().max_payload
    }

    async fn tell(&self, ack: &str, verb: Bytes) -> Event<Outcome> {
        match tokio::time::timeout(STEP_TIMEOUT, self.client.publish(ack.to_owned(), verb)).await {
            Ok(Ok(())) => Event::Done,
            Ok(Err(error)) => self.unanswered("acknowledgement not sent", &error),
            Err(_) => self.unanswered("acknowledgement not sent", &CONGESTED),
        }
    }

    fn unanswered(&self, what: &'static str, error: &dyn std::fmt::Display) -> Event<Outcome> {
        self.problem.note(what, error);
        Event::Unanswered
    }

    async fn publish_expecting(&self, subject: String, publish: PublishMessage) -> Published {
        let attempt = async {
            let ack: PublishAckFuture = self.jetstream.send_publish(subject, publish).await?;
            ack.await
        };
        match tokio::time::timeout(STEP_TIMEOUT * 2, attempt).await {
            Ok(Ok(ack)) => Published::At(ack.sequence),
            Ok(Err(error)) if error.kind() == PublishErrorKind::WrongLastSequence => {
                Published::Refused
            }
            Ok(Err(error)) if is_wrong_sequence(&error) => Published::Refused,
            Ok(Err(error)) => {
                self.problem.note("not written", &error);
                Published::Unanswered
            }
            Err(_) => {
                self.problem.note("not written", &"no answer in time");
                Published::Unanswered
            }
        }
    }
}

/// How a publish with an expected sequence went.
enum Published {
    At(u64),
    Refused,
    Unanswered,
}

/// How much of an `ok` outcome the results stream keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Headers and outputs.
    Everything,
    /// Headers alone: the outputs go to the reply (`Infer-Result: reply`).
    Status,
}

/// Newer servers refuse with 10164 what older ones refuse with 10071.
fn is_wrong_sequence(error: &jetstream::context::PublishError) -> bool {
    let codes = [
        NatsErrorCode::STREAM_WRONG_LAST_SEQUENCE,
        NatsErrorCode(10164),
    ];
    server_code(error).is_some_and(|code| codes.contains(&code))
}

/// The JetStream server's own code for what went wrong, if it was the server that said so.
pub(crate) fn server_code(error: &dyn std::error::Error) -> Option<NatsErrorCode> {
    let source = error.source()?.downcast_ref::<jetstream::Error>()?;
    Some(source.error_code())
}

/// The server did not answer, or not in a way we understand.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unanswered(String);

impl Unanswered {
    pub(crate) fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}
