//! Bodies that do not fit into a message: stored beside it in the bucket of bodies, and fetched from
//! there.
//!
//! Above three quarters of what the server takes in a message ([`inline_limit`]) a body goes by
//! reference. Workers do the same with answers. Nobody but this file and its callers notices.

mod error;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        consumer::push::OrderedConfig,
        context::{PublishAckFuture, PublishError, PublishErrorKind},
        message::PublishMessage,
        stream::{DirectGetErrorKind, InfoError, LastRawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use inferq_schemas::{
    Limits, PayloadRef,
    blob::{Assembly, BlobRecord, parts},
};

use crate::{
    client::Client,
    error::Source,
    known::{direct_get, is_missing},
    outcome::Outcome,
};

pub use error::BlobError;

/// Longest wait for one answer of the server, and for the next part of a body.
const STEP: Duration = Duration::from_secs(5);
/// Pause before a body is stored again after the server did not answer.
const PAUSE: Duration = Duration::from_millis(250);
/// Parts on their way without confirmation: 4 MiB, enough to fill a connection and no more.
const WINDOW: usize = 8;
/// What the server says when there is no place for a part: in the stream, the account or the server.
const FULL: [u64; 3] = [10_077, 10_023, 10_047];
/// Bodies of one client on their way to the bucket at once; more would only share the connection.
pub(crate) const UPLOADS: usize = 4;

/// The largest body in bytes that goes inside a message, where the server takes so many in all.
pub(crate) fn inline_limit(max_payload: usize) -> usize {
    max_payload / 4 * 3
}

/// How long a body may take to be stored or fetched beyond any other limit: 1 s for each MiB.
pub(crate) fn travel_time(bytes: usize) -> Duration {
    Duration::from_millis((bytes / 1_049) as u64)
}

impl Client {
    /// Stores `body` and returns what names it. While the server does not answer it is tried again
    /// until `until`.
    pub(crate) async fn store_body(
        &self,
        body: &Bytes,
        until: Instant,
    ) -> Result<PayloadRef, BlobError> {
        let limit = Limits::default().max_body_bytes;
        if body.len() > limit {
            let bytes = body.len() as u64;
            return Err(BlobError::TooLarge { bytes, limit });
        }
        let reference = PayloadRef::fresh(body);
        let storing = async {
            let _one_of_few = self.inner.uploads.acquire().await;
            loop {
                match self.store_once(&reference, body).await {
                    Err(BlobError::Unanswered { .. }) if Instant::now() + PAUSE < until => {
                        tokio::time::sleep(PAUSE).await;
                    }
                    stored => return stored,
                }
            }
        };
        match tokio::time::timeout_at(until.into(), storing).await {
            Ok(stored) => stored.map(|()| reference),
            Err(elapsed) => Err(self.unanswered(elapsed)),
        }
    }

    async fn store_once(&self, reference: &PayloadRef, body: &Bytes) -> Result<(), BlobError> {
        let names = &self.inner.names;
        let max_payload = self.inner.nats.max_payload();
        let record = BlobRecord::new(names.blobs_obj(), reference, body, max_payload);
        let subject = names.blob_parts(&record.parts);
        let refused = |error| self.refused(reference, error);
        let stored = async {
            let mut unconfirmed = VecDeque::with_capacity(WINDOW);
            for part in parts(body, max_payload) {
                if unconfirmed.len() == WINDOW {
                    confirm(unconfirmed.pop_front()).await.map_err(refused)?;
                }
                let part = PublishMessage::build().payload(part);
                let sent = self.inner.jetstream.send_publish(subject.clone(), part);
                unconfirmed.push_back(sent.await.map_err(refused)?);
            }
            while !unconfirmed.is_empty() {
                confirm(unconfirmed.pop_front()).await.map_err(refused)?;
            }
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Rollup", "sub");
            let text = record.encode().map_err(|error| self.unanswered(error))?;
            let message = PublishMessage::build().headers(headers).payload(text);
            let subject = names.blob_record(reference.name());
            let sent = self.inner.jetstream.send_publish(subject, message).await;
            let sent = sent.map_err(refused)?;
            confirm(Some(sent)).await.map_err(refused)
        };
        let stored = self.inner.denials.watch(&subject, stored).await;
        match stored.map_err(BlobError::from).flatten() {
            Ok(()) => Ok(()),
            Err(error) => {
                // Parts without a record are read by nobody; age deletes what this does not.
                if let Ok(stream) = self.blobs_stream().await {
                    let purge = stream.purge().filter(subject).into_future();
                    tokio::time::timeout(STEP, purge).await.ok();
                }
                Err(error)
            }
        }
    }

    /// Fetches a body and holds it against its reference.
    pub(crate) async fn fetch_body(&self, reference: &PayloadRef) -> Result<Bytes, BlobError> {
        let limit = Limits::default().max_body_bytes;
        let bytes = reference.size();
        let mut assembly = usize::try_from(bytes)
            .ok()
            .filter(|bytes| *bytes <= limit)
            .and_then(|_| Assembly::new(reference))
            .ok_or(BlobError::TooLarge { bytes, limit })?;
        let damaged = || BlobError::Damaged {
            name: reference.name().to_owned(),
            bucket: self.inner.names.blobs_obj().to_owned(),
        };
        let record = self.blob_record(reference).await?;
        if record.size != bytes {
            return Err(damaged());
        }
        let stream = self.blobs_stream().await?;
        let subject = self.inner.names.blob_parts(&record.parts);
        let config = OrderedConfig {
            deliver_subject: self.inner.nats.new_inbox(),
            filter_subject: subject.clone(),
            ..OrderedConfig::default()
        };
        let consumer = self.answered(stream.create_consumer(config)).await?;
        // Parts that are gone would be waited for in vain. A replica that lags behind gets them yet.
        if consumer.cached_info().num_pending != record.chunks
            && self.count(&stream, &subject).await? != record.chunks
        {
            return Err(damaged());
        }
        let mut parts = self.answered(consumer.messages()).await?;
        for _ in 0..record.chunks {
            let part = tokio::time::timeout(STEP, parts.next()).await;
            let part = part.map_err(|error| self.unanswered(error))?;
            let part = part.ok_or_else(|| self.unanswered("the connection closed"))?;
            let part = part.map_err(|error| self.unanswered(error))?;
            if !assembly.add(&part.payload) {
                return Err(damaged());
            }
        }
        assembly.finish().ok_or_else(damaged)
    }

    /// The same outcome with its body, wherever that is.
    pub(crate) async fn whole(&self, outcome: Outcome) -> Result<Outcome, BlobError> {
        match &outcome.headers.payload_ref {
            Some(reference) if outcome.is_ok() && outcome.body.is_empty() => {
                let body = self.fetch_body(reference).await?;
                Ok(Outcome { body, ..outcome })
            }
            _ => Ok(outcome),
        }
    }

    /// What the bucket says about a body.
    pub(crate) async fn blob_record(
        &self,
        reference: &PayloadRef,
    ) -> Result<BlobRecord, BlobError> {
        let (bucket, name) = (self.inner.names.blobs_obj(), reference.name());
        let missing = || BlobError::Missing {
            name: name.to_owned(),
            bucket: bucket.to_owned(),
        };
        let stream_name = self.inner.names.blobs_stream();
        let stream = self.blobs_stream().await?;
        let subject = self.inner.names.blob_record(name);
        let asked = direct_get(&stream_name, &subject);
        let read = stream.direct_get_last_for_subject(subject.as_str());
        let message = match self.inner.denials.watch(&asked, read).await? {
            Ok(message) => message,
            // Any replica answers that, also one that lags behind: only the leader knows.
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {
                let asked = format!("$JS.API.STREAM.MSG.GET.{stream_name}");
                let read = stream.get_last_raw_message_by_subject(&subject);
                let read = self.inner.denials.watch(&asked, read).await?;
                read.map_err(|error| match error.kind() {
                    LastRawMessageErrorKind::NoMessageFound => missing(),
                    _ => self.unanswered(error),
                })?
            }
            Err(error) if is_missing(&self.inner.reader, &error, &stream_name).await => {
                let bucket = bucket.to_owned();
                return Err(BlobError::NoBucket { bucket });
            }
            Err(error) => return Err(self.unanswered(error)),
        };
        match BlobRecord::decode(&message.payload) {
            Some(record) if record.deleted => Err(missing()),
            Some(record) => Ok(record),
            None => Err(BlobError::Damaged {
                name: name.to_owned(),
                bucket: bucket.to_owned(),
            }),
        }
    }

    /// Deletes a body that nobody needs any more; one that is not there is as good as deleted.
    pub(crate) async fn delete_body(&self, reference: &PayloadRef) -> Result<(), BlobError> {
        let record = match self.blob_record(reference).await {
            Ok(record) => record,
            Err(BlobError::Missing { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let stream = self.blobs_stream().await?;
        // The record first: a body is there as long as its record is.
        for subject in [
            self.inner.names.blob_record(reference.name()),
            self.inner.names.blob_parts(&record.parts),
        ] {
            self.answered(stream.purge().filter(subject)).await?;
        }
        Ok(())
    }

    /// The same without waiting for it; what it does not delete its age does.
    pub(crate) fn forget_body(&self, reference: &PayloadRef) {
        let (client, reference) = (self.clone(), reference.clone());
        tokio::spawn(async move {
            if let Err(error) = client.delete_body(&reference).await {
                tracing::debug!(%error, "a body was left to its age");
            }
        });
    }

    /// Messages on one subject, as the leader of the stream counts them.
    async fn count(&self, stream: &Stream<()>, subject: &str) -> Result<u64, BlobError> {
        let mut counted = self.answered(stream.info_with_subjects(subject)).await?;
        let counts = async {
            let mut messages = 0;
            while let Some((_, count)) = counted.try_next().await? {
                messages += count as u64;
            }
            Ok::<_, InfoError>(messages)
        };
        self.answered(counts).await
    }

    async fn blobs_stream(&self) -> Result<Stream<()>, BlobError> {
        let stream = self.inner.names.blobs_stream();
        self.answered(self.inner.reader.get_stream_no_info(stream))
            .await
    }

    /// The answer to one request.
    async fn answered<T, E: Into<Source>>(
        &self,
        request: impl IntoFuture<Output = Result<T, E>>,
    ) -> Result<T, BlobError> {
        match tokio::time::timeout(STEP, request.into_future()).await {
            Ok(answer) => answer.map_err(|error| self.unanswered(error)),
            Err(elapsed) => Err(self.unanswered(elapsed)),
        }
    }

    fn unanswered(&self, source: impl Into<Source>) -> BlobError {
        BlobError::Unanswered {
            bucket: self.inner.names.blobs_obj().to_owned(),
            source: source.into(),
        }
    }

    fn refused(&self, reference: &PayloadRef, error: PublishError) -> BlobError {
        let bucket = self.inner.names.blobs_obj().to_owned();
        let answer = std::error::Error::source(&error)
            .and_then(|source| source.downcast_ref::<jetstream::Error>())
            .map(|answer| (answer.error_code().0, answer.to_string()));
        match (error.kind(), answer) {
            (PublishErrorKind::StreamNotFound, _) => BlobError::NoBucket { bucket },
            (_, Some((code, reason))) if FULL.contains(&code) => BlobError::Full {
                bucket,
                bytes: reference.size(),
                reason,
            },
            _ => self.unanswered(error),
        }
    }
}

async fn confirm(sent: Option<PublishAckFuture>) -> Result<(), PublishError> {
    match sent {
        Some(sent) => sent.await.map(|_| ()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_may_travel_at_a_mebibyte_a_second() {
        assert_eq!(travel_time(1_000).as_secs(), 0);
        assert_eq!(travel_time(200 << 20).as_secs(), 199);
    }

    #[test]
    fn three_quarters_of_a_message_are_for_its_body() {
        assert_eq!(inline_limit(1 << 20), 786_432);
    }
}
