//! The subjects everything travels on, and the grammar a name must keep to become part of one.
//!
//! A header that ends up in a subject is checked here against the grammar, never only against a
//! prefix: no white space, control character, `*`, `>` or empty token, at most 255 bytes.

use std::sync::Arc;

use crate::error::shorten;
use crate::identity::JobId;
use crate::names::is_word;
pub use crate::names::{Lane, MAX_MODEL_NAME_BYTES, ModelName, NameError};
pub use crate::replies::ReplyPrefixes;

/// Longest subject in bytes; the protocol itself allows more, but servers slow down on long ones.
pub const MAX_SUBJECT_BYTES: usize = 255;
/// Longest subject prefix in bytes, so that `<PREFIX>_RESULTS-<sequence>` stays a valid job id.
pub const MAX_PREFIX_BYTES: usize = 32;

/// A subject that may not be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// More than [`MAX_SUBJECT_BYTES`].
    #[error("subject of {bytes} bytes, at most {MAX_SUBJECT_BYTES}")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// Nothing, a leading or trailing dot, or two dots in a row.
    #[error("subject `{subject}` has an empty token")]
    EmptyToken {
        /// The subject, shortened.
        subject: String,
    },
    /// White space, a control character or a wildcard.
    #[error("subject `{subject}` contains {character:?}")]
    Forbidden {
        /// The subject, shortened.
        subject: String,
        /// The first character that is not allowed.
        character: char,
    },
    /// A reply address outside of the configured prefixes.
    #[error("subject `{subject}` is outside of the allowed prefixes ({allowed})")]
    OutsidePrefixes {
        /// The subject, shortened.
        subject: String,
        /// The allowed prefixes, comma-separated.
        allowed: String,
    },
    /// A prefix for our own subjects that cannot also name streams and buckets.
    #[error(
        "prefix `{prefix}` must be 1 to {MAX_PREFIX_BYTES} of A-Z, a-z, 0-9, `_` and `-` in tokens parted by dots"
    )]
    Prefix {
        /// The prefix, shortened.
        prefix: String,
    },
}

/// Checks that `subject` can be published to: no wildcard, white space, control character or
/// empty token, at most [`MAX_SUBJECT_BYTES`].
///
/// # Errors
/// The first rule it breaks.
pub fn check_subject(subject: &str) -> Result<(), SubjectError> {
    if subject.len() > MAX_SUBJECT_BYTES {
        return Err(SubjectError::TooLong {
            bytes: subject.len(),
        });
    }
    let forbidden = |c: &char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>');
    if let Some(character) = subject.chars().find(forbidden) {
        return Err(SubjectError::Forbidden {
            subject: shorten(subject, 80),
            character,
        });
    }
    if subject.split('.').any(str::is_empty) {
        return Err(SubjectError::EmptyToken {
            subject: shorten(subject, 80),
        });
    }
    Ok(())
}

/// Which of the two queues of a model a subject belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueKind {
    /// A durable job: one outcome is kept.
    Job,
    /// A request that found no free worker: only its caller hears of it.
    Rpc,
}

/// What the subject of a queued message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSubject {
    /// The model to run.
    pub model: ModelName,
    /// The lane it waits in.
    pub lane: Lane,
    /// Job or queued RPC.
    pub kind: QueueKind,
}

/// What the subject of a dead letter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadSubject {
    /// The model the job was for.
    pub model: ModelName,
    /// The lane it waited in.
    pub lane: Lane,
    /// Its id.
    pub job: JobId,
}

/// Makes and reads the subjects of one deployment, which all start with its prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subjects {
    prefix: Arc<str>,
}

impl Default for Subjects {
    fn default() -> Self {
        Self {
            prefix: "infer".into(),
        }
    }
}

impl Subjects {
    /// Subjects below `prefix`, `infer` unless configured.
    ///
    /// # Errors
    /// [`SubjectError::Prefix`] if it could not also name streams and buckets.
    pub fn new(prefix: &str) -> Result<Self, SubjectError> {
        let token = |token| is_word(token, MAX_PREFIX_BYTES, |c| c.is_ascii_alphabetic());
        if prefix.len() > MAX_PREFIX_BYTES || !prefix.split('.').all(token) {
            return Err(SubjectError::Prefix {
                prefix: shorten(prefix, 80),
            });
        }
        Ok(Self {
            prefix: prefix.into(),
        })
    }

    /// The prefix itself.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where a job for `model` is published: `infer.jobs.<model>.<lane>`.
    pub fn job(&self, model: &ModelName, lane: Lane) -> String {
        format!("{}.jobs.{model}.{lane}", self.prefix)
    }

    /// Where workers listen for requests: `infer.rpc.<model>`.
    pub fn rpc(&self, model: &ModelName) -> String {
        format!("{}.rpc.{model}", self.prefix)
    }

    /// Where requests wait that found no free worker: `infer.rpcq.<model>.<lane>`.
    pub fn queued_rpc(&self, model: &ModelName, lane: Lane) -> String {
        format!("{}.rpcq.{model}.{lane}", self.prefix)
    }

    /// The outcome of a job: `infer.results.<job>`.
    pub fn result(&self, job: &JobId) -> String {
        format!("{}.results.{job}", self.prefix)
    }

    /// The dead letter of a job: `infer.dead.<model>.<lane>.<job>`.
    pub fn dead(&self, model: &ModelName, lane: Lane, job: &JobId) -> String {
        format!("{}.dead.{model}.{lane}.{job}", self.prefix)
    }

    /// The subject filter of all dead letters of a model, lane and job; `None` stands for any.
    pub fn dead_filter(
        &self,
        model: Option<&ModelName>,
        lane: Option<Lane>,
        job: Option<&JobId>,
    ) -> String {
        let model = model.map_or("*", ModelName::as_str);
        let lane = lane.map_or("*", Lane::as_str);
        let job = job.map_or("*", JobId::as_str);
        format!("{}.dead.{model}.{lane}.{job}", self.prefix)
    }

    /// Where a cancellation is asked for: `infer.cancel.<job>`.
    pub fn cancel(&self, job: &JobId) -> String {
        format!("{}.cancel.{job}", self.prefix)
    }

    /// All of these, for whoever listens: `infer.cancel.*`.
    pub fn every_cancel(&self) -> String {
        format!("{}.cancel.*", self.prefix)
    }

    /// The job that `infer.cancel.<job>` calls off; `None` for anything else.
    pub fn parse_cancel(&self, subject: &str) -> Option<JobId> {
        let job = subject
            .strip_prefix(&*self.prefix)?
            .strip_prefix(".cancel.")?;
        JobId::new(job).ok()
    }

    /// Where the progress of a job is told: `infer.events.<job>`.
    pub fn events(&self, job: &JobId) -> String {
        format!("{}.events.{job}", self.prefix)
    }

    /// Reads `infer.jobs.<model>.<lane>` or `infer.rpcq.<model>.<lane>`; `None` for anything else.
    pub fn parse_job(&self, subject: &str) -> Option<JobSubject> {
        let mut tokens = self.tokens(subject)?;
        let kind = match tokens.next()? {
            "jobs" => QueueKind::Job,
            "rpcq" => QueueKind::Rpc,
            _ => return None,
        };
        let model = ModelName::new(tokens.next()?).ok()?;
        let lane = tokens.next()?.parse().ok()?;
        tokens
            .next()
            .is_none()
            .then_some(JobSubject { model, lane, kind })
    }

    /// Reads `infer.dead.<model>.<lane>.<job>`; `None` for anything else.
    pub fn parse_dead(&self, subject: &str) -> Option<DeadSubject> {
        let mut tokens = self.tokens(subject)?;
        if tokens.next()? != "dead" {
            return None;
        }
        let model = ModelName::new(tokens.next()?).ok()?;
        let lane = tokens.next()?.parse().ok()?;
        let job = JobId::new(tokens.next()?).ok()?;
        tokens
            .next()
            .is_none()
            .then_some(DeadSubject { model, lane, job })
    }

    /// The tokens behind the prefix.
    fn tokens<'a>(&self, subject: &'a str) -> Option<std::str::Split<'a, char>> {
        let rest = subject.strip_prefix(&*self.prefix)?.strip_prefix('.')?;
        Some(rest.split('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits() -> ModelName {
        ModelName::new("digits").expect("a good name")
    }

    #[test]
    fn a_job_subject_reads_back_as_it_was_made() {
        let subjects = Subjects::new("acme.infer").expect("a good prefix");
        for lane in Lane::ALL {
            let job = subjects
                .parse_job(&subjects.job(&digits(), lane))
                .expect("our own");
            assert_eq!(
                (job.model, job.lane, job.kind),
                (digits(), lane, QueueKind::Job)
            );
            let rpc = subjects
                .parse_job(&subjects.queued_rpc(&digits(), lane))
                .expect("our own");
            assert_eq!((rpc.lane, rpc.kind), (lane, QueueKind::Rpc));
        }
    }

    #[test]
    fn a_cancel_subject_names_its_job_and_nothing_else() {
        let subjects = Subjects::new("acme.infer").expect("a good prefix");
        let job = JobId::new("order-17").expect("a good id");
        assert_eq!(subjects.parse_cancel(&subjects.cancel(&job)), Some(job));
        for foreign in [
            "acme.infer.cancel",
            "acme.infer.cancel.",
            "acme.infer.cancel.a.b",
            "acme.infer.cancel.a b",
            "acme.infer.cancelled.a",
            "infer.cancel.a",
        ] {
            assert_eq!(subjects.parse_cancel(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn foreign_subjects_are_not_jobs() {
        let subjects = Subjects::default();
        for foreign in [
            "infer.jobs.digits",
            "infer.jobs.digits.urgent",
            "infer.jobs.Digits.high",
            "infer.jobs.digits.high.0",
            "infer.results.abc.high",
            "inferx.jobs.digits.high",
            "infer",
            "",
        ] {
            assert_eq!(subjects.parse_job(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn the_subject_of_a_dead_letter_reads_back_and_lies_within_its_filters() {
        let subjects = Subjects::new("acme.infer").expect("a good prefix");
        let (model, lane, job) = (digits(), Lane::Low, JobId::derived("ACME_INFER_JOBS", 7));
        let subject = subjects.dead(&model, lane, &job);
        let read = subjects.parse_dead(&subject).expect("our own");
        assert_eq!((read.model, read.lane, read.job), (digits(), lane, job));
        assert_eq!(
            subjects.dead_filter(None, None, None),
            "acme.infer.dead.*.*.*"
        );
        let one = subjects.dead_filter(Some(&model), Some(lane), None);
        assert_eq!(one, "acme.infer.dead.digits.low.*");
        for foreign in [
            "acme.infer.dead.digits.low",
            "acme.infer.dead.digits.low.a.b",
            "acme.infer.dead.digits.urgent.a",
            "acme.infer.jobs.digits.low.a",
        ] {
            assert_eq!(subjects.parse_dead(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn prefixes_that_cannot_name_a_stream_are_refused() {
        for bad in ["", "a b", "a.", "a.*", "ü", &"p".repeat(33)] {
            assert!(Subjects::new(bad).is_err(), "{bad}");
        }
    }
}
