//! The inbox that all requests for messages answer to: entered, and left without losing a message.

use std::time::Duration;

use async_nats::{Message, SubscribeError, Subscriber};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tracing::warn;

use super::sources::SourceId;
use crate::ledger::Ledger;

/// Last token of the empty messages that end the inbox.
const LEAVING: &str = "leaving";
/// Longest a way out may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// A subscription of its own, with a subject below it for each consumer that is asked.
pub(super) struct Inbox {
    name: String,
    messages: Subscriber,
    received: u64,
}

impl Inbox {
    /// Listens under a fresh name.
    ///
    /// # Errors
    /// If the connection is closed.
    pub(super) async fn open(ledger: &Ledger) -> Result<Self, SubscribeError> {
        let name = ledger.client().new_inbox();
        let messages = ledger.client().subscribe(format!("{name}.*")).await?;
        Ok(Self {
            name,
            messages,
            received: 0,
        })
    }

    /// Where `source` answers.
    pub(super) fn of(&self, source: SourceId) -> String {
        format!("{}.{source}", self.name)
    }

    /// The next message: a job, or the server's word on a request. `None` once the connection is
    /// closed for good.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let message = self.messages.next().await?;
        self.received += 1;
        Some(message)
    }

    /// The next message, if it is here already.
    pub(super) fn ready(&mut self) -> Option<Message> {
        self.next().now_or_never().flatten()
    }

    /// The source a status message is about; job messages keep the subject of their stream.
    pub(super) fn source_of_status(&self, message: &Message) -> Option<SourceId> {
        message
            .subject
            .strip_prefix(&*self.name)?
            .strip_prefix('.')?
            .parse()
            .ok()
    }

    /// Leaves, which ends all requests, and returns the jobs that were on their way. `expected` is
    /// what the requests can still bring, status messages included.
    ///
    /// The client forgets a subscription before the server does, and drops what arrives between.
    /// So the end is set by count instead, beyond everything the requests under way can bring, and
    /// reached with empty messages of our own.
    ///
    /// nats-server 2.9.10, when it has picked a message for a request that has just lost its inbox so,
    /// may forget how often it had delivered that message, or deliver it only after ack_wait.
    pub(super) async fn leave(mut self, ledger: &Ledger, expected: usize) -> Vec<Message> {
        let mut jobs = Vec::new();
        let left = async {
            let fill = expected + 1;
            let end = self.received + fill as u64;
            self.messages.unsubscribe_after(end).await?;
            for _ in 0..fill {
                let own = format!("{}.{LEAVING}", self.name);
                ledger.client().publish(own, Bytes::new()).await?;
            }
            while let Some(message) = self.messages.next().await {
                if message.status.is_none() && message.reply.is_some() {
                    jobs.push(message);
                }
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(LEAVE_WITHIN, left).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "could not leave the inbox"),
            Err(_) => warn!("the inbox was left unread, what was on its way comes again"),
        }
        jobs
    }
}
