//! A place in a queue group: taken, and left without losing a request.

use async_nats::{Client, Message, SubscribeError, Subscriber, UnsubscribeError};
use futures::StreamExt;
use tracing::warn;

use super::QUEUE_GROUP;
use crate::ledger::Ledger;

/// More requests than there can be, and more than a server reads as a limit: it takes nine digits.
const NO_LIMIT: u64 = u64::MAX;

/// A subscription to this worker's share of the requests on a subject.
#[derive(Debug)]
pub struct Member {
    requests: Subscriber,
}

impl Member {
    /// Joins the queue group of `subject`.
    ///
    /// # Errors
    /// If the connection is closed.
    pub async fn join(client: &Client, subject: String) -> Result<Self, SubscribeError> {
        let group = QUEUE_GROUP.to_owned();
        let requests = client.queue_subscribe(subject, group).await?;
        Ok(Self { requests })
    }

    /// The next request; `None` once the connection is closed for good.
    pub async fn next(&mut self) -> Option<Message> {
        self.requests.next().await
    }

    /// Leaves the group, with `ledger` over the connection it was joined over; what is left are the requests that
    /// were on their way.
    ///
    /// The client library forgets a subscription before the server has heard of it, and drops what
    /// arrives between. With a limit it goes on listening until that is reached, while the server ends the
    /// subscription at once if it cannot read the limit. After a round trip all that it had picked this
    /// worker for is here. A server that could read it would go on until then, and what it picked in
    /// the very last moment would be lost, as if the library had been asked.
    ///
    /// # Errors
    /// If the connection is closed.
    pub async fn leave(mut self, ledger: &Ledger) -> Result<LastRequests, UnsubscribeError> {
        self.requests.unsubscribe_after(NO_LIMIT).await?;
        if let Err(error) = ledger.barrier().await {
            warn!(%error, "the server did not confirm that a queue group was left, requests may be lost");
        }
        self.requests.unsubscribe().await?;
        Ok(LastRequests(self.requests))
    }
}

/// Requests that were on their way when a queue group was left.
#[derive(Debug)]
pub struct LastRequests(Subscriber);

impl LastRequests {
    /// The next of them.
    pub async fn next(&mut self) -> Option<Message> {
        self.0.next().await
    }
}
