//! Bodies that travel beside their messages: fetched, stored and deleted in the bucket of bodies.
//!
//! Every step has a time limit, so that a bucket that falls silent is told from one that lacks the body.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::push::OrderedConfig;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{
    DirectGetErrorKind, InfoError, LastRawMessageErrorKind, Stream,
};
use async_nats::jetstream::{self, ErrorCode as NatsErrorCode};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use inferq_schemas::PayloadRef;
use inferq_schemas::assets::Assets;
use inferq_schemas::blob::{Assembly, BlobRecord, parts};

use crate::ledger::{Ledger, server_code};

/// Longest wait for one answer of the server, and for the next part of a body.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Parts on their way without confirmation: 4 MiB, enough to fill a connection and no more.
const WINDOW: usize = 8;
/// What the server says when there is no place for a part: in the stream, the account or the server.
const FULL: [NatsErrorCode; 3] = [
    NatsErrorCode(10_077),
    NatsErrorCode(10_023),
    NatsErrorCode(10_047),
];

/// Why a body was not fetched or stored.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The bucket has no such object, or no longer.
    #[error(
        "it is not there: it was never stored, was deleted with its job, or is older than a day"
    )]
    Missing,
    /// What is stored there is another body.
    #[error("what is stored there is not the body that size and digest name")]
    Damaged,
    /// The bucket takes no more.
    #[error("the bucket is full ({0})")]
    Full(String),
    /// No answer, or none that we understand: it may be there or not.
    #[error("the bucket does not answer ({0})")]
    Unanswered(String),
}

impl BlobError {
    fn unanswered(error: impl std::fmt::Display) -> Self {
        Self::Unanswered(error.to_string())
    }
}

/// The bucket of bodies.
#[derive(Debug, Clone)]
pub struct Blobs {
    jetstream: jetstream::Context,
    assets: Assets,
}

impl Blobs {
    /// The bucket of the deployment that `ledger` writes to.
    pub fn of(ledger: &Ledger) -> Self {
        Self {
            jetstream: ledger.jetstream().clone(),
            assets: ledger.assets().clone(),
        }
    }

    /// Fetches a body and holds it against its reference. Takes as much memory as that says.
    ///
    /// # Errors
    /// [`BlobError`]; never [`BlobError::Full`].
    pub async fn fetch(&self, reference: &PayloadRef) -> Result<Bytes, BlobError> {
        let stream = self.stream().await?;
        let record = self.record(&stream, reference).await?;
        if record.size != reference.size() {
            return Err(BlobError::Damaged);
        }
        let subject = self.assets.blob_parts(&record.parts);
        let config = OrderedConfig {
            deliver_subject: self.jetstream.client().new_inbox(),
            filter_subject: subject.clone(),
            ..OrderedConfig::default()
        };
        let consumer = within(stream.create_consumer(config)).await?;
        // Parts that are gone would be waited for in vain. A replica that lags behind gets them yet.
        if consumer.cached_info().num_pending != record.chunks
            && count(&stream, &subject).await? != record.chunks
        {
            return Err(BlobError::Damaged);
        }
        let mut parts = within(consumer.messages()).await?;
        let mut assembly = Assembly::new(reference)
            .ok_or_else(|| BlobError::unanswered("there is no memory for it"))?;
        for _ in 0..record.chunks {
            let part = tokio::time::timeout(STEP_TIMEOUT, parts.next()).await;
            let part = part.map_err(BlobError::unanswered)?;
            let part = part.ok_or_else(|| BlobError::unanswered("the connection closed"))?;
            let part = part.map_err(BlobError::unanswered)?;
            if !assembly.add(&part.payload) {
                return Err(BlobError::Damaged);
            }
        }
        assembly.finish().ok_or(BlobError::Damaged)
    }

    /// Stores a body as what `reference` names. What an attempt that fails leaves behind has no
    /// record, so that nobody reads it, and is deleted if the bucket answers.
    ///
    /// # Errors
    /// [`BlobError::Full`] or [`BlobError::Unanswered`].
    pub async fn store(&self, reference: &PayloadRef, body: &Bytes) -> Result<(), BlobError> {
        let max_payload = self.jetstream.client().server_info().max_payload;
        let record = BlobRecord::new(self.assets.blobs_obj(), reference, body, max_payload);
        let subject = self.assets.blob_parts(&record.parts);
        let stored = async {
            let mut unconfirmed = VecDeque::with_capacity(WINDOW);
            for part in parts(body, max_payload) {
                if unconfirmed.len() == WINDOW {
                    confirm(unconfirmed.pop_front()).await?;
                }
                let part = PublishMessage::build().payload(part);
                let sent = self.jetstream.send_publish(subject.clone(), part).await;
                unconfirmed.push_back(sent.map_err(refused)?);
            }
            while !unconfirmed.is_empty() {
                confirm(unconfirmed.pop_front()).await?;
            }
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Rollup", "sub");
            let text = record.encode().map_err(BlobError::unanswered)?;
            let message = PublishMessage::build().headers(headers).payload(text);
            let sent = self
                .jetstream
                .send_publish(self.assets.blob_record(reference.name()), message)
                .await;
            confirm(Some(sent.map_err(refused)?)).await
        }
        .await;
        if stored.is_err() {
            let stream = self.stream().await?;
            // The first error is the one to tell; age deletes what this does not.
            let _ = within(stream.purge().filter(subject)).await;
        }
        stored
    }

    /// Deletes a body; one that is not there is as good as deleted.
    ///
    /// # Errors
    /// [`BlobError::Unanswered`]; age deletes it then.
    pub async fn delete(&self, reference: &PayloadRef) -> Result<(), BlobError> {
        let stream = self.stream().await?;
        let record = match self.record(&stream, reference).await {
            Ok(record) => record,
            Err(BlobError::Missing | BlobError::Damaged) => return Ok(()),
            Err(error) => return Err(error),
        };
        // The record first: a body is there as long as its record is.
        for subject in [
            self.assets.blob_record(reference.name()),
            self.assets.blob_parts(&record.parts),
        ] {
            within(stream.purge().filter(subject)).await?;
        }
        Ok(())
    }

    async fn stream(&self) -> Result<Stream<()>, BlobError> {
        let name = self.assets.blobs_stream();
        within(self.jetstream.get_stream_no_info(name)).await
    }

    async fn record(
        &self,
        stream: &Stream<()>,
        reference: &PayloadRef,
    ) -> Result<BlobRecord, BlobError> {
        let subject = self.assets.blob_record(reference.name());
        let read = stream.direct_get_last_for_subject(subject.as_str());
        let read = tokio::time::timeout(STEP_TIMEOUT, read).await;
        let message = match read.map_err(BlobError::unanswered)? {
            Ok(message) => message,
            // Any replica answers that, also one that lags behind: only the leader knows.
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {
                let read = stream.get_last_raw_message_by_subject(&subject);
                let read = tokio::time::timeout(STEP_TIMEOUT, read).await;
                read.map_err(BlobError::unanswered)?
                    .map_err(|error| match error.kind() {
                        LastRawMessageErrorKind::NoMessageFound => BlobError::Missing,
                        _ => BlobError::unanswered(error),
                    })?
            }
            Err(error) => return Err(BlobError::unanswered(error)),
        };
        let record = BlobRecord::decode(&message.payload).ok_or(BlobError::Damaged)?;
        if record.deleted {
            return Err(BlobError::Missing);
        }
        Ok(record)
    }
}

/// Messages on one subject, as the leader of the stream counts them.
async fn count(stream: &Stream<()>, subject: &str) -> Result<u64, BlobError> {
    let mut counted = within(stream.info_with_subjects(subject)).await?;
    let counts = async {
        let mut messages = 0;
        while let Some((_, count)) = counted.try_next().await? {
            messages += count as u64;
        }
        Ok::<_, InfoError>(messages)
    };
    within(counts).await
}

/// One request to the server.
async fn within<T, E: std::fmt::Display>(
    request: impl IntoFuture<Output = Result<T, E>>,
) -> Result<T, BlobError> {
    let answer = tokio::time::timeout(STEP_TIMEOUT, request.into_future()).await;
    answer
        .map_err(BlobError::unanswered)?
        .map_err(BlobError::unanswered)
}

async fn confirm(sent: Option<jetstream::context::PublishAckFuture>) -> Result<(), BlobError> {
    match sent {
        Some(sent) => sent.await.map(|_| ()).map_err(refused),
        None => Ok(()),
    }
}

fn refused(error: PublishError) -> BlobError {
    match (error.kind(), server_code(&error)) {
        (PublishErrorKind::Other, Some(code)) if FULL.contains(&code) => {
            BlobError::Full(error.to_string())
        }
        _ => BlobError::unanswered(error),
    }
}
