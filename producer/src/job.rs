//! A job before it is sent: model, body and settings.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use inferq_schemas::{
    ContentType, InferRequest, JobHeaders, JobId, Lane, ModelName, ResultMode, VersionSelector,
};

use crate::error::SubmitError;

/// Work for a model.
///
/// ```
/// use std::time::Duration;
/// use inferq::{Job, Lane};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let job = Job::new("digits".parse()?, r#"{"instances": [[0.0, 1.0]]}"#)
///     .lane(Lane::Low)
///     .key("order 17")
///     .timeout(Duration::from_secs(60));
/// // The same key always names the same job.
/// assert_eq!(job.id(), Job::new("digits".parse()?, "{}").key("order 17").id());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Job {
    model: ModelName,
    body: Body,
    lane: Option<Lane>,
    identity: Identity,
    headers: Box<JobHeaders>,
}

/// What a job carries.
#[derive(Debug, Clone)]
pub enum Body {
    /// An encoded request; the type is recognized when it is not given.
    Encoded(Bytes, Option<ContentType>),
    /// A request that is encoded when the job is sent.
    Request(Box<InferRequest>, ContentType),
}

#[derive(Debug, Clone)]
enum Identity {
    Given(JobId),
    Key(String),
}

impl Job {
    /// A job for `model` on lane `normal`, under a fresh unguessable id.
    ///
    /// The body is a request as JSON text, bytes of JSON or CBOR, or an [`InferRequest`], which
    /// travels as CBOR.
    pub fn new(model: ModelName, body: impl Into<Body>) -> Self {
        let id = JobId::random();
        Self {
            model,
            body: body.into(),
            lane: None,
            headers: Box::new(JobHeaders::new(id.clone())),
            identity: Identity::Given(id),
        }
    }

    /// Which of the three queues of the model; `normal` for jobs and `high` for calls unless told.
    pub fn lane(mut self, lane: Lane) -> Self {
        self.lane = Some(lane);
        self
    }

    /// Uses this id. Whoever knows it can read the outcome, so it should not be guessable.
    pub fn with_id(mut self, id: JobId) -> Self {
        self.identity = Identity::Given(id);
        self
    }

    /// Makes the id from a key of yours: the same key for the same model and tenant is the same job.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.identity = Identity::Key(key.into());
        self
    }

    /// Publishes a copy of the outcome on this subject. An answer too large for a message comes there as a
    /// reference to it (`Infer-Payload-Ref`).
    pub fn reply_to(mut self, subject: impl Into<String>) -> Self {
        self.headers.reply_to = Some(subject.into());
        self
    }

    /// Where the answer goes: stored, replied, or both.
    pub fn result(mut self, mode: ResultMode) -> Self {
        self.headers.result = Some(mode);
        self
    }

    /// No worker starts the job later than this after it was queued.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.headers.timeout_ms = Some(millis(timeout));
        self
    }

    /// No worker starts the job after this point in time.
    pub fn deadline(mut self, deadline: SystemTime) -> Self {
        self.headers.deadline_unix_ms = Some(unix_ms(deadline));
        self
    }

    /// Runs on this version of the model.
    pub fn version(mut self, version: u64) -> Self {
        self.headers.version = VersionSelector::Version(version);
        self
    }

    /// Runs on the version that carries this label.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.headers.version = VersionSelector::Label(label.into());
        self
    }

    /// Jobs with equal affinity get the same version while weights are shared out.
    pub fn affinity(mut self, affinity: impl Into<String>) -> Self {
        self.headers.affinity = Some(affinity.into());
        self
    }

    /// Deliveries before the job is given up, 1 to 100; 8 unless told.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.headers.max_attempts = attempts;
        self
    }

    /// For whom the job is: keeps caches and keys of tenants apart.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.headers.tenant = Some(tenant.into());
        self
    }

    /// Workers tell whoever listens how it gets on ([`Client::events`](crate::Client::events)).
    pub fn events(mut self) -> Self {
        self.headers.events = true;
        self
    }

    /// Computes even if the answer is in the cache.
    pub fn no_cache(mut self) -> Self {
        self.headers.cache = false;
        self
    }

    /// Says what encoded bytes are, instead of looking at the first one.
    pub fn content_type(mut self, content_type: ContentType) -> Self {
        match &mut self.body {
            Body::Encoded(_, named) => *named = Some(content_type),
            Body::Request(_, chosen) => *chosen = content_type,
        }
        self
    }

    /// The model.
    pub fn model(&self) -> &ModelName {
        &self.model
    }

    /// The id the job will have.
    pub fn id(&self) -> JobId {
        match &self.identity {
            Identity::Given(id) => id.clone(),
            Identity::Key(key) => JobId::keyed(self.headers.tenant.as_deref(), &self.model, key),
        }
    }

    pub(crate) fn reply_subject(&self) -> Option<&str> {
        self.headers.reply_to.as_deref()
    }

    pub(crate) fn queue(&self) -> Lane {
        self.lane.unwrap_or(Lane::Normal)
    }

    /// The same as a direct call, which has its lane in a header and always a time limit.
    pub(crate) fn into_call(mut self, limit: Duration) -> Self {
        self.headers.lane = self.lane;
        self.timeout(limit)
    }

    pub(crate) fn call_timeout(&self) -> Option<Duration> {
        self.headers.timeout_ms.map(Duration::from_millis)
    }

    /// How long after `now` the job may still be started, if it says so.
    pub(crate) fn deadline_after(&self, now: SystemTime) -> Option<SystemTime> {
        let deadline = self.headers.deadline(unix_ms(now))?;
        Some(UNIX_EPOCH + Duration::from_millis(deadline))
    }

    /// The bytes and headers to send.
    pub(crate) fn encode(&self) -> Result<(JobHeaders, Bytes), SubmitError> {
        let (bytes, content_type) = match &self.body {
            Body::Encoded(bytes, named) => (
                bytes.clone(),
                named.unwrap_or_else(|| ContentType::detect(bytes)),
            ),
            Body::Request(request, content_type) => (request.encode(*content_type)?, *content_type),
        };
        let mut headers = (*self.headers).clone();
        headers.id = self.id();
        headers.accept_ref = true;
        headers.content_type = Some(content_type);
        let trace = crate::trace::current();
        headers.traceparent = Some(trace.traceparent);
        headers.tracestate = trace.tracestate;
        Ok((headers, bytes))
    }
}

impl From<&str> for Body {
    fn from(json: &str) -> Self {
        Self::Encoded(Bytes::copy_from_slice(json.as_bytes()), None)
    }
}

impl From<String> for Body {
    fn from(json: String) -> Self {
        Self::Encoded(json.into(), None)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Encoded(bytes.into(), None)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Encoded(bytes, None)
    }
}

impl From<serde_json::Value> for Body {
    fn from(json: serde_json::Value) -> Self {
        Self::Encoded(json.to_string().into(), Some(ContentType::Json))
    }
}

impl From<InferRequest> for Body {
    fn from(request: InferRequest) -> Self {
        Self::Request(Box::new(request), ContentType::Cbor)
    }
}

pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferq_schemas::headers::names;

    fn job(body: impl Into<Body>) -> Job {
        Job::new("digits".parse().expect("a valid name"), body)
    }

    fn header(job: &Job, name: &str) -> Option<String> {
        let (headers, _) = job.encode().expect("the body is encoded already");
        let pairs = headers.pairs();
        pairs
            .into_iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    #[test]
    fn every_job_has_an_id_of_its_own_under_both_headers() {
        let (one, two) = (job("{}"), job("{}"));
        assert_ne!(one.id(), two.id());
        let id = one.id().to_string();
        assert_eq!(header(&one, names::JOB_ID).as_deref(), Some(id.as_str()));
        assert_eq!(header(&one, "Nats-Msg-Id").as_deref(), Some(id.as_str()));
    }

    #[test]
    fn keys_are_apart_by_model_and_tenant_but_not_by_body() {
        let keyed = |body: &'static str| job(body).key("k");
        assert_eq!(keyed("{}").id(), keyed("[]").id());
        assert_ne!(keyed("{}").id(), keyed("{}").tenant("acme").id());
        let other = Job::new("other".parse().expect("a valid name"), "{}").key("k");
        assert_ne!(keyed("{}").id(), other.id());
        assert_eq!(keyed("{}").id().as_str().len(), 26);
    }

    #[test]
    fn the_type_of_the_body_is_recognized_or_taken_from_the_caller() {
        let kind = |job: Job| header(&job, "Content-Type");
        assert_eq!(kind(job(" {}")).as_deref(), Some("application/json"));
        assert_eq!(kind(job(vec![0xa0])).as_deref(), Some("application/cbor"));
        let told = job("{}").content_type(ContentType::Cbor);
        assert_eq!(kind(told).as_deref(), Some("application/cbor"));
    }

    #[test]
    fn the_earlier_of_timeout_and_deadline_applies() {
        let now = SystemTime::now();
        let job = job("{}")
            .timeout(Duration::from_secs(5))
            .deadline(now + Duration::from_secs(60));
        let deadline = job.deadline_after(now).expect("both are given");
        let left = deadline.duration_since(now).expect("it lies ahead");
        assert!(
            left <= Duration::from_secs(5) && left > Duration::from_secs(4),
            "{left:?}"
        );
    }

    #[test]
    fn workers_tell_of_a_job_only_if_it_asks_for_that() {
        assert_eq!(header(&job("{}"), names::EVENTS), None);
        let told = header(&job("{}").events(), names::EVENTS);
        assert_eq!(told.as_deref(), Some("1"));
    }

    #[test]
    fn each_job_carries_a_trace() {
        assert_ne!(header(&job("{}"), "traceparent"), None);
    }
}
