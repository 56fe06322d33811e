//! Remote procedure calls: a worker answers directly, nothing is stored.

use std::time::{Duration, Instant};

use async_nats::{Request, RequestErrorKind};
use inferq_schemas::{Failure, Status, headers::names};
use tracing::Instrument;

use crate::{
    client::Client,
    error::CallError,
    job::Job,
    outcome::{Outcome, service_error},
    submit::Prepared,
};

/// The worker answers 408 at the deadline itself; this is the time its answer may travel.
const GRACE: Duration = Duration::from_millis(100);
/// Workers refuse to hold a call longer than this.
const LONGEST: Duration = Duration::from_secs(55);

impl Client {
    /// Asks a worker for an answer and waits for it.
    ///
    /// The time limit is the job's [`timeout`](Job::timeout), 5 s without one and 55 s at most. The
    /// lane is `high`: callers wait. Use [`submit`](Self::submit) for work that must not be lost.
    ///
    /// ```no_run
    /// # async fn example(client: inferq::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let request = inferq::Job::new("digits".parse()?, r#"{"instances": [[0.0, 1.0]]}"#);
    /// let answer = client.call(request).await?;
    /// println!("{}", answer.text());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`CallError`]; its code is that of the worker where one answered.
    pub async fn call(&self, request: Job) -> Result<Outcome, CallError> {
        let span = tracing::debug_span!("call", model = %request.model(), otel.kind = "client");
        self.call_in_span(request).instrument(span).await
    }

    async fn call_in_span(&self, request: Job) -> Result<Outcome, CallError> {
        let limit = request
            .call_timeout()
            .unwrap_or(self.inner.settings.call_within);
        let limit = limit.min(LONGEST);
        let request = request.into_call(limit);
        let subject = self.inner.subjects.rpc(request.model());
        let until = Instant::now() + limit;
        let mut prepared = self
            .prepare_for(&request, subject, until, |_| Duration::ZERO)
            .await?;
        let stored = prepared.stored.clone();
        if stored.is_some() {
            // What storing has taken is gone for the worker.
            let left = until.saturating_duration_since(Instant::now());
            prepared
                .headers
                .insert(names::TIMEOUT, left.as_millis().to_string());
        }
        let answer = self.ask(prepared, until, limit).await;
        if let Some(stored) = stored {
            self.forget_body(&stored);
        }
        answer
    }

    /// Sends a call and waits for its answer, wherever that is, until `until`.
    async fn ask(
        &self,
        prepared: Prepared,
        until: Instant,
        limit: Duration,
    ) -> Result<Outcome, CallError> {
        let until = until + GRACE;
        let left = until.saturating_duration_since(Instant::now());
        // An inbox of its own ends with the call, so a worker can see that nobody listens.
        let message = Request::new()
            .inbox(self.inner.nats.new_inbox())
            .headers(prepared.headers)
            .payload(prepared.body)
            .timeout(Some(left));
        let deadline = || CallError::Deadline {
            model: prepared.model.clone(),
            after: limit,
        };
        let subject = prepared.subject.clone();
        let request = self.inner.nats.send_request(prepared.subject, message);
        // The client's own limit starts when the request is sent, which a full connection delays.
        let request = tokio::time::timeout_at(until.into(), request);
        let answer = self.inner.denials.watch(&subject, request).await?;
        let answer = answer.map_err(|_| deadline())?;
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => CallError::NoWorker {
                model: prepared.model.clone(),
            },
            RequestErrorKind::TimedOut => deadline(),
            _ => CallError::Request(error.into()),
        })?;
        match Outcome::read(answer.headers.as_ref(), answer.payload) {
            Ok(outcome) => {
                let outcome = judge(outcome)?;
                let reference = outcome.headers.payload_ref.clone();
                let whole = tokio::time::timeout_at(until.into(), self.whole(outcome)).await;
                if let Some(reference) = reference {
                    // Nobody else knows of it.
                    self.forget_body(&reference);
                }
                whole.map_err(|_| deadline())?.map_err(CallError::Blob)
            }
            Err(reason) => Err(match service_error(answer.headers.as_ref()) {
                Some(failure) => CallError::Failed(failure),
                None => CallError::Unreadable { reason },
            }),
        }
    }
}

fn judge(outcome: Outcome) -> Result<Outcome, CallError> {
    match (outcome.status(), outcome.failure()) {
        (Status::Ok, _) => Ok(outcome),
        (_, Some(failure)) => Err(CallError::Failed(failure)),
        (status, None) => Err(CallError::Failed(Failure::new(
            inferq_schemas::ErrorCode::Model,
            format!("the worker answered `{status}` without a reason"),
        ))),
    }
}
