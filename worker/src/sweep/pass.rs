//! One look over the job streams: finds, one after the other, the jobs that have to be ended.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::datetime::DateTime;
use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DirectGetErrorKind, LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{self};
use futures::TryStreamExt;
use inferq_schemas::subjects::{JobSubject, Lane, ModelName, QueueKind, Subjects};
use inferq_schemas::{Assets, ErrorCode, Failure, JobHeaders, JobId, ReplyPrefixes, nearest};

use super::{Ages, SweepVerdict, SweptJob};
use crate::clock::{unix_ms, unix_ms_now};
use crate::ledger::header_pairs;

/// Jobs ended in one pass at most, so that a flood of them does not keep others waiting.
const MOST_PER_PASS: usize = 10_000;

/// Jobs without outcome that are passed over in one queue: workers hold them, and others may lie behind.
const MOST_UNANSWERED: usize = 64;

/// A walk along one subject filter of one stream.
struct Walk {
    stream: usize,
    filter: String,
    verdict: SweepVerdict,
    /// The first sequence that has not been looked at.
    next: u64,
    /// The last sequence to look at.
    last: u64,
    /// How many jobs may still be passed over.
    patience: usize,
}

/// What a look at the next job of a walk found.
enum Look {
    /// It is to be ended.
    Due(Box<StreamMessage>),
    /// The job with this sequence is not, but others behind it may be.
    Passed(u64),
    /// Nothing more is.
    Over,
}

pub(super) struct Pass<'a> {
    subjects: &'a Subjects,
    assets: Assets,
    ages: Ages,
    streams: Vec<(String, Stream)>,
    results: Stream<()>,
    walks: VecDeque<Walk>,
    /// Stream and sequence of the jobs that were found: two walks may come by the same one.
    found: BTreeSet<(usize, u64)>,
    /// Models that have a consumer: the known ones.
    known: BTreeSet<ModelName>,
    left: usize,
}

impl<'a> Pass<'a> {
    /// Looks which subjects hold messages that no consumer takes.
    pub(super) async fn begin(
        jetstream: &jetstream::Context,
        subjects: &'a Subjects,
        ages: Ages,
    ) -> anyhow::Result<Self> {
        let assets = Assets::new(subjects);
        let mut streams = Vec::new();
        for name in [assets.jobs(), assets.bulk()] {
            let stream = jetstream.get_stream(name).await;
            let stream = stream.with_context(|| {
                format!("cannot read stream {name}; is it missing? run `inferq init`")
            })?;
            streams.push((name.to_owned(), stream));
        }
        let results = jetstream.get_stream_no_info(assets.results()).await?;
        let (walks, known) = (VecDeque::new(), BTreeSet::new());
        let mut pass = Self {
            subjects,
            assets,
            ages,
            streams,
            results,
            walks,
            found: BTreeSet::new(),
            known,
            left: MOST_PER_PASS,
        };
        for stream in 0..pass.streams.len() {
            pass.plan(stream).await?;
        }
        Ok(pass)
    }

    async fn plan(&mut self, place: usize) -> anyhow::Result<()> {
        let (name, stream) = &self.streams[place];
        let failed = || format!("cannot look through stream {name}");
        let consumers: Vec<String> = stream
            .consumer_names()
            .try_collect()
            .await
            .with_context(failed)?;
        let mut waiting = stream.info_with_subjects(">").await.with_context(failed)?;
        let first = waiting.info.state.first_sequence;
        let oldest = age_of(waiting.info.state.first_timestamp);
        let walk = |filter: &str, verdict| Walk {
            stream: place,
            filter: filter.to_owned(),
            verdict,
            next: first,
            last: u64::MAX,
            patience: 0,
        };
        let consumers: BTreeSet<(ModelName, Lane)> = consumers
            .iter()
            .filter_map(|name| self.assets.parse_consumer(name))
            .collect();
        while let Some((subject, stored)) = waiting.try_next().await.with_context(failed)? {
            let job = self.subjects.parse_job(&subject);
            let taken = job.filter(|job| consumers.contains(&(job.model.clone(), job.lane)));
            let Some(job) = taken else {
                self.walks
                    .push_back(walk(&subject, SweepVerdict::UnknownModel));
                continue;
            };
            // One that is gone by now is seen by the next pass.
            let Some(consumer) = self.consumer(stream, &job).await.with_context(failed)? else {
                continue;
            };
            let acknowledged = consumer.ack_floor.stream_sequence;
            self.walks.push_back(Walk {
                last: acknowledged,
                ..walk(&subject, SweepVerdict::Left)
            });
            if u64::try_from(stored).unwrap_or(u64::MAX) > consumer.num_pending {
                self.walks.push_back(Walk {
                    next: first.max(acknowledged + 1),
                    last: consumer.delivered.stream_sequence,
                    patience: MOST_UNANSWERED,
                    ..walk(&subject, SweepVerdict::Answered)
                });
            }
        }
        if waiting.info.state.messages > 0 && oldest >= self.ages.too_old {
            self.walks.push_back(walk(">", SweepVerdict::TooOld));
        }
        self.known
            .extend(consumers.into_iter().map(|(model, _)| model));
        Ok(())
    }

    /// The consumer of a queue, unless it is gone.
    async fn consumer(&self, stream: &Stream, job: &JobSubject) -> anyhow::Result<Option<Info>> {
        let name = self.assets.consumer(&job.model, job.lane);
        match stream.consumer_info(name).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("cannot look for a consumer"),
        }
    }

    /// The next job to end.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<SweptJob>> {
        while self.left > 0
            && let Some(mut walk) = self.walks.pop_front()
        {
            match self.look(&walk).await? {
                Look::Due(message) => {
                    let (stream, verdict) = (walk.stream, walk.verdict);
                    walk.next = message.sequence + 1;
                    self.walks.push_front(walk);
                    if self.found.insert((stream, message.sequence)) {
                        self.left -= 1;
                        return Ok(Some(self.job(stream, verdict, *message)));
                    }
                }
                Look::Passed(sequence) if walk.patience > 0 => {
                    walk.next = sequence + 1;
                    walk.patience -= 1;
                    self.walks.push_front(walk);
                }
                Look::Passed(_) | Look::Over => {}
            }
        }
        Ok(None)
    }

    /// The walk's next message, if it is old enough to be ended and still nobody takes it.
    async fn look(&self, walk: &Walk) -> anyhow::Result<Look> {
        if walk.next > walk.last {
            return Ok(Look::Over);
        }
        let (name, stream) = &self.streams[walk.stream];
        let request = stream
            .raw_message_builder()
            .next_by_subject(&walk.filter)
            .sequence(walk.next.max(1));
        let message = match request.send().await {
            Ok(message) => message,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                return Ok(Look::Over);
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot read a message of stream {name}"));
            }
        };
        if message.sequence > walk.last {
            return Ok(Look::Over);
        }
        let age = age_of(message.time);
        let due = match walk.verdict {
            // The model may have become known since the pass began.
            SweepVerdict::UnknownModel => {
                age >= self.ages.unknown && !self.is_taken(stream, &walk.filter).await?
            }
            SweepVerdict::TooOld => age >= self.ages.too_old,
            SweepVerdict::Left => age >= self.ages.left,
            SweepVerdict::Answered if age < self.ages.answered => false,
            SweepVerdict::Answered if self.is_answered(name, &message).await? => true,
            SweepVerdict::Answered => return Ok(Look::Passed(message.sequence)),
        };
        Ok(if due {
            Look::Due(Box::new(message))
        } else {
            Look::Over
        })
    }

    /// Whether an outcome stands for a job for so long that whoever wrote it should have settled the job.
    async fn is_answered(&self, stream: &str, message: &StreamMessage) -> anyhow::Result<bool> {
        let derived = JobId::derived(stream, message.sequence);
        let replies = ReplyPrefixes::default();
        let job = JobHeaders::parse(header_pairs(&message.headers), derived, &replies).headers;
        let subject = self.subjects.result(&job.id);
        match self.results.direct_get_last_for_subject(subject).await {
            Ok(outcome) => Ok(job.supersedes != Some(outcome.sequence)
                && age_of(outcome.time) >= self.ages.answered),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).context("cannot read the outcome of a job"),
        }
    }

    async fn is_taken(&self, stream: &Stream, subject: &str) -> anyhow::Result<bool> {
        match self.subjects.parse_job(subject) {
            Some(job) => Ok(self.consumer(stream, &job).await?.is_some()),
            None => Ok(false),
        }
    }

    fn job(&self, stream: usize, verdict: SweepVerdict, message: StreamMessage) -> SweptJob {
        let raw_subject = message.subject.to_string();
        let failure = match verdict {
            SweepVerdict::UnknownModel => self.unknown_model(&raw_subject),
            SweepVerdict::TooOld => {
                let days = self.ages.too_old.as_secs() / 86_400;
                Failure::new(
                    ErrorCode::Deadline,
                    format!("waited in the queue for {days} days, longer is not kept"),
                )
            }
            SweepVerdict::Left | SweepVerdict::Answered => Failure::new(
                ErrorCode::Unavailable,
                "the server lost its place in the queue and its outcome",
            ),
        };
        SweptJob {
            stream: self.streams[stream].0.clone(),
            sequence: message.sequence,
            subject: made_to_fit(self.subjects, &raw_subject),
            raw_subject,
            headers: message.headers,
            body: message.payload,
            published_unix_ms: unix_ms(message.time.into()),
            verdict,
            failure,
        }
    }

    fn unknown_model(&self, subject: &str) -> Failure {
        let name = model_token(self.subjects, subject);
        let hint = match nearest(name, self.known.iter().map(ModelName::as_str)) {
            Some(near) if near != name => format!("; did you mean `{near}`?"),
            _ if ModelName::new(name).is_err() => {
                "; a model's name is 1 to 64 of the characters a-z 0-9 _ -".to_owned()
            }
            _ => String::new(),
        };
        Failure::new(ErrorCode::NotFound, format!("unknown model `{name}`{hint}"))
    }
}

/// How long ago that was, by the server's clock; what lies ahead has no age.
fn age_of(time: DateTime) -> Duration {
    Duration::from_millis(unix_ms_now().saturating_sub(unix_ms(time.into())))
}

/// The token of a job's subject that should name a model.
fn model_token<'a>(subjects: &Subjects, subject: &'a str) -> &'a str {
    let rest = subject.strip_prefix(subjects.prefix()).unwrap_or(subject);
    rest.trim_start_matches('.')
        .split('.')
        .nth(1)
        .unwrap_or(rest)
}

/// Model and lane of a job's subject. The streams take any token as a name; one that is none is made to fit, since
/// the dead letter's subject needs one.
fn made_to_fit(subjects: &Subjects, subject: &str) -> JobSubject {
    subjects.parse_job(subject).unwrap_or_else(|| {
        let fitting = |letter: char| match letter.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9' | '_' | '-') => letter,
            _ => '_',
        };
        let name: String = model_token(subjects, subject)
            .chars()
            .take(64)
            .map(fitting)
            .collect();
        let lane = subject
            .rsplit('.')
            .next()
            .and_then(|lane| lane.parse().ok())
            .unwrap_or(Lane::Normal);
        let model = ModelName::new(&name).or_else(|_| ModelName::new("_"));
        JobSubject {
            model: model.expect("only letters that fit are left"),
            lane,
            kind: QueueKind::Job,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_that_names_no_possible_model_still_gets_a_place_for_its_dead_letter() {
        let subjects = Subjects::default();
        let fit = |subject: &str| {
            let job = made_to_fit(&subjects, subject);
            (job.model.to_string(), job.lane)
        };
        assert_eq!(
            fit("infer.jobs.digits.low"),
            ("digits".to_owned(), Lane::Low)
        );
        assert_eq!(
            fit("infer.jobs.My+Model.high"),
            ("my_model".to_owned(), Lane::High)
        );
        assert_eq!(
            fit(&format!("infer.jobs.{}.normal", "ü".repeat(80))).0,
            "_".repeat(64)
        );
        assert_eq!(
            model_token(&subjects, "infer.jobs.My+Model.high"),
            "My+Model"
        );
    }
}
