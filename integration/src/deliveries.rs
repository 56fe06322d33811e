//! Deliveries that come to nothing, as those to a worker that ended.

use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream::{AckKind, consumer::PullConsumer};
use futures::StreamExt;
use inferq::{Client, Lane};

use crate::PATIENCE;

/// Takes the next job for `digits` of a lane and gives it back, to be delivered again after `delay`.
///
/// # Errors
/// If there is none within [`PATIENCE`].
pub async fn in_vain(client: &Client, lane: Lane, delay: Duration) -> Result<()> {
    let stream = if lane == Lane::Low {
        "INFER_BULK"
    } else {
        "INFER_JOBS"
    };
    let jetstream = async_nats::jetstream::new(client.nats().clone());
    let consumer: PullConsumer = jetstream
        .get_consumer_from_stream(format!("digits__{lane}"), stream)
        .await?;
    let next = consumer.batch().max_messages(1).expires(PATIENCE);
    let mut messages = next.messages().await?;
    let message = messages.next().await.context("no delivery")?;
    let message = message.map_err(|error| anyhow::anyhow!(error))?;
    let delay = (!delay.is_zero()).then_some(delay);
    let given_back = message.ack_with(AckKind::Nak(delay)).await;
    given_back.map_err(|error| anyhow::anyhow!(error))
}
