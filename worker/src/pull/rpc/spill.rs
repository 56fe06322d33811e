//! Requests that found no room: passed on to the queue, or their callers told why not.

use std::time::Duration;

use async_nats::jetstream::{self, ErrorCode as NatsErrorCode};
use async_nats::{HeaderMap, Message};
use inferq_schemas::headers::{JobHeaders, names};
use inferq_schemas::identity::JobId;
use inferq_schemas::subjects::{Lane, ModelName};
use inferq_schemas::{ContentType, ErrorCode, Failure};

use super::Doors;
use crate::clock::unix_ms_now;
use crate::deadline::rpc_deadline_unix_ms;
use crate::ledger::{header_pairs, server_code};

/// How long a spilled request waits for the stream's word.
const SPILL_TIMEOUT: Duration = Duration::from_millis(250);

impl Doors {
    /// Passes a request on to the queue, or tells its caller why not.
    pub(super) async fn spill(&self, model: &ModelName, request: Message, reply: &str) {
        let given = request.headers.unwrap_or_default();
        let parsed =
            JobHeaders::parse(header_pairs(&given), JobId::random(), &self.replies).headers;
        let Some(headers) = self.spill_headers(&given, &parsed, reply) else {
            self.refuse(
                reply,
                &parsed,
                ErrorCode::Overloaded,
                "all workers are busy; try again in a moment",
            )
            .await;
            return;
        };
        let subject = self
            .ledger
            .subjects()
            .queued_rpc(model, parsed.lane.unwrap_or(Lane::High));
        let publish = async {
            let ack = self
                .ledger
                .jetstream()
                .publish_with_headers(subject, headers, request.payload)
                .await?;
            ack.await
        };
        match tokio::time::timeout(SPILL_TIMEOUT, publish).await {
            Ok(Ok(_)) => self.metrics.rpc_spilled(),
            Ok(Err(error)) if is_full(&error) => {
                self.metrics.rpc_refused();
                self.refuse(
                    reply,
                    &parsed,
                    ErrorCode::Overloaded,
                    "all workers are busy and the queue is full; try again in a moment",
                )
                .await;
            }
            Ok(Err(_)) | Err(_) => {
                self.metrics.rpc_refused();
                self.refuse(
                    reply,
                    &parsed,
                    ErrorCode::Unavailable,
                    "all workers are busy and the queue does not answer; try again in a moment",
                )
                .await;
            }
        }
    }

    /// The request's own headers with the address and the deadline the queue needs, unless replies
    /// may not go to that address.
    fn spill_headers(
        &self,
        given: &HeaderMap,
        parsed: &JobHeaders,
        reply: &str,
    ) -> Option<HeaderMap> {
        self.replies.allows(reply).ok()?;
        let now = unix_ms_now();
        let deadline = rpc_deadline_unix_ms(parsed, now, self.times);
        let replaced = [names::REPLY_TO, names::DEADLINE, names::TIMEOUT];
        let mut headers = HeaderMap::new();
        for (name, value) in header_pairs(given) {
            // Those of the server would steer the stream: a repeated Nats-Msg-Id is not stored again.
            let of_server = name.to_ascii_lowercase().starts_with("nats-");
            if !of_server
                && !replaced
                    .iter()
                    .any(|replaced| name.eq_ignore_ascii_case(replaced))
            {
                headers.append(name, value);
            }
        }
        let is_id = |(name, _): (&str, &str)| name.eq_ignore_ascii_case(names::JOB_ID);
        if !header_pairs(given).any(is_id) {
            headers.insert(names::JOB_ID, parsed.id.as_str());
        }
        headers.insert(names::REPLY_TO, reply);
        headers.insert(names::DEADLINE, deadline.to_string());
        Some(headers)
    }

    async fn refuse(&self, reply: &str, asked: &JobHeaders, code: ErrorCode, message: &str) {
        let failure = Failure::new(code, message);
        let content_type = asked.content_type.unwrap_or(ContentType::Json);
        self.ledger.refuse(reply, &failure, content_type).await;
    }
}

/// Whether the stream refused a message because a limit of it, or its intake (servers from 2.11 on), is full.
fn is_full(error: &jetstream::context::PublishError) -> bool {
    const FULL: [NatsErrorCode; 2] = [NatsErrorCode(10_077), NatsErrorCode(10_167)];
    server_code(error).is_some_and(|code| FULL.contains(&code))
}
