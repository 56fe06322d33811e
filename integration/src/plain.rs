//! A NATS client that knows nothing of inferq: publishes, asks and reads as any other would.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::{Client, HeaderMap, Request};
use bytes::Bytes;
use futures::StreamExt;

/// A message as such a client sees it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its headers, one value each.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    fn new(headers: Option<HeaderMap>, body: Bytes) -> Self {
        let headers = headers.unwrap_or_default();
        let one = |values: &[async_nats::HeaderValue]| {
            values.first().map(|value| value.as_str().to_owned())
        };
        let headers = headers
            .iter()
            .filter_map(|(name, values)| Some((name.to_string(), one(values)?)))
            .collect();
        Self { headers, body }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// If it is something else.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {:?}", self.body))
    }

    /// The code of an error answer.
    pub fn code(&self) -> Option<u16> {
        self.header("Nats-Service-Error-Code")?.parse().ok()
    }
}

/// Sends a request and waits for its answer.
///
/// # Errors
/// If none comes.
pub async fn request(
    client: &Client,
    subject: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Answer> {
    let request = Request::new()
        .headers(header_map(headers))
        .payload(body.into())
        .timeout(Some(crate::PATIENCE));
    let message = client.send_request(subject.to_owned(), request).await?;
    Ok(Answer::new(message.headers, message.payload))
}

/// Publishes a job with a reply address and waits for the reply there.
///
/// # Errors
/// If the job is not stored or no reply comes within `patience`.
pub async fn job_with_reply(
    client: &Client,
    subject: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
    patience: Duration,
) -> Result<Answer> {
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await?;
    let mut all = header_map(headers);
    all.insert("Infer-Reply-To", inbox.as_str());
    publish(client, subject, all, body.into()).await?;
    let reply = tokio::time::timeout(patience, replies.next())
        .await
        .context("no reply in time")?;
    let reply = reply.context("the connection closed")?;
    Ok(Answer::new(reply.headers, reply.payload))
}

/// Publishes a job and returns its sequence in the stream.
///
/// # Errors
/// If the stream does not confirm it.
pub async fn job(
    client: &Client,
    subject: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<u64> {
    publish(client, subject, header_map(headers), body.into()).await
}

async fn publish(client: &Client, subject: &str, headers: HeaderMap, body: Bytes) -> Result<u64> {
    let jetstream = async_nats::jetstream::new(client.clone());
    let stored = jetstream
        .publish_with_headers(subject.to_owned(), headers, body)
        .await?
        .await?;
    Ok(stored.sequence)
}

/// The outcome of a job, read from the stream by whoever knows its id.
///
/// # Errors
/// If there is none within `patience`.
pub async fn outcome(client: &Client, job: &str, patience: Duration) -> Result<Answer> {
    let jetstream = async_nats::jetstream::new(client.clone());
    let stream = jetstream.get_stream("INFER_RESULTS").await?;
    let read = async {
        loop {
            match stream
                .direct_get_last_for_subject(format!("infer.results.{job}"))
                .await
            {
                Ok(message) => return Answer::new(Some(message.headers), message.payload),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(patience, read)
        .await
        .with_context(|| format!("no outcome of {job} in time"))
}

fn header_map(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.insert(*name, *value);
    }
    headers
}
