//! The NATS micro service protocol (ADR-32): answers PING, INFO and STATS, so that
//! `nats micro ls|info|stats` shows the workers.
//!
//! The client library has this protocol too, but an endpoint of it cannot be drained: requests that
//! arrive between its unsubscribe and the server's note of it are dropped, and a rolling restart
//! loses calls. Here the endpoints are queue subscriptions that are left one by one (`micro/member.rs`).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_nats::Client;
use futures::{StreamExt, stream};
use inferq_schemas::subjects::ModelName;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::warn;

mod member;

pub use member::{LastRequests, Member};

/// The service name that every worker shares.
pub const SERVICE: &str = "inferq";
/// The queue group of its endpoints.
pub const QUEUE_GROUP: &str = "infer";

/// What this worker tells about itself. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Micro {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    id: String,
    started: String,
    endpoints: Mutex<BTreeMap<ModelName, Endpoint>>,
}

#[derive(Debug, Clone, Default)]
struct Endpoint {
    subject: String,
    requests: u64,
    errors: u64,
    last_error: String,
    processing: Duration,
}

impl Micro {
    /// The service of the worker `id`.
    pub fn new(id: &str) -> Self {
        let started = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let shared = Shared {
            id: id.to_owned(),
            started,
            endpoints: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Adds the endpoint of `model`; its counts start or go on.
    pub fn add(&self, model: &ModelName, subject: String) {
        self.endpoints().entry(model.clone()).or_default().subject = subject;
    }

    /// Removes the endpoint of `model`.
    pub fn remove(&self, model: &ModelName) {
        self.endpoints().remove(model);
    }

    /// Counts a finished request; `error` is "code:message".
    pub fn count(&self, model: &ModelName, took: Duration, error: Option<String>) {
        if let Some(endpoint) = self.endpoints().get_mut(model) {
            endpoint.requests += 1;
            endpoint.processing += took;
            if let Some(error) = error {
                endpoint.errors += 1;
                endpoint.last_error = error;
            }
        }
    }

    /// Answers the three verbs until `stop`.
    ///
    /// # Errors
    /// If the subjects cannot be subscribed to.
    pub async fn serve(
        self,
        client: Client,
        stop: CancellationToken,
    ) -> Result<(), async_nats::SubscribeError> {
        let mut all = Vec::new();
        for verb in ["PING", "INFO", "STATS"] {
            let scopes = [
                String::new(),
                format!(".{SERVICE}"),
                format!(".{SERVICE}.{}", self.shared.id),
            ];
            for scope in scopes {
                let asked = client.subscribe(format!("$SRV.{verb}{scope}")).await?;
                all.push(asked.map(move |message| (verb, message)));
            }
        }
        let mut asked = stream::select_all(all);
        loop {
            let (verb, message) = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                next = asked.next() => match next {
                    Some(next) => next,
                    None => return Ok(()),
                },
            };
            let Some(reply) = message.reply else { continue };
            let answer = self.answer(verb);
            if let Err(error) = client.publish(reply, answer.into()).await {
                warn!(%error, verb, "service discovery not answered");
            }
        }
    }

    fn endpoints(&self) -> MutexGuard<'_, BTreeMap<ModelName, Endpoint>> {
        self.shared
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, verb: &str) -> Vec<u8> {
        let endpoints = self.endpoints();
        let body = match verb {
            "PING" => self.response(
                "ping_response",
                Body {
                    description: None,
                    started: None,
                    endpoints: None,
                },
            ),
            "INFO" => {
                let infos = endpoints
                    .iter()
                    .map(|(model, endpoint)| info(model, endpoint))
                    .collect();
                let description = Some("Runs ONNX models behind a message queue");
                self.response(
                    "info_response",
                    Body {
                        description,
                        started: None,
                        endpoints: Some(infos),
                    },
                )
            }
            _ => {
                let stats = endpoints
                    .iter()
                    .map(|(model, endpoint)| stats(model, endpoint))
                    .collect();
                let started = Some(self.shared.started.as_str());
                self.response(
                    "stats_response",
                    Body {
                        description: None,
                        started,
                        endpoints: Some(stats),
                    },
                )
            }
        };
        serde_json::to_vec(&body).expect("strings and numbers are always JSON")
    }

    fn response<'a>(&'a self, kind: &str, body: Body<'a>) -> Response<'a> {
        Response {
            kind: format!("io.nats.micro.v1.{kind}"),
            name: SERVICE,
            id: &self.shared.id,
            version: env!("CARGO_PKG_VERSION"),
            metadata: HashMap::new(),
            body,
        }
    }
}

#[derive(Serialize)]
struct Response<'a> {
    #[serde(rename = "type")]
    kind: String,
    name: &'a str,
    id: &'a str,
    version: &'a str,
    metadata: HashMap<String, String>,
    #[serde(flatten)]
    body: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoints: Option<Vec<serde_json::Value>>,
}

fn info(model: &ModelName, endpoint: &Endpoint) -> serde_json::Value {
    serde_json::json!({
        "name": model.as_str(),
        "subject": endpoint.subject,
        "queue_group": QUEUE_GROUP,
        "metadata": {},
    })
}

/// Durations are nanoseconds, as the protocol has them.
fn stats(model: &ModelName, endpoint: &Endpoint) -> serde_json::Value {
    let processing = u64::try_from(endpoint.processing.as_nanos()).unwrap_or(u64::MAX);
    serde_json::json!({
        "name": model.as_str(),
        "subject": endpoint.subject,
        "queue_group": QUEUE_GROUP,
        "num_requests": endpoint.requests,
        "num_errors": endpoint.errors,
        "last_error": endpoint.last_error,
        "processing_time": processing,
        "average_processing_time": processing.checked_div(endpoint.requests).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_count_requests_errors_and_time() {
        let micro = Micro::new("w1");
        let model = ModelName::new("digits").expect("a valid name");
        micro.add(&model, "infer.rpc.digits".into());
        micro.count(&model, Duration::from_millis(2), None);
        micro.count(&model, Duration::from_millis(4), Some("400:bad".into()));
        let stats: serde_json::Value =
            serde_json::from_slice(&micro.answer("STATS")).expect("JSON");
        assert_eq!(stats["type"], "io.nats.micro.v1.stats_response");
        let endpoint = &stats["endpoints"][0];
        assert_eq!(
            (&endpoint["num_requests"], &endpoint["num_errors"]),
            (&2.into(), &1.into())
        );
        assert_eq!(endpoint["average_processing_time"], 3_000_000);
    }
}
