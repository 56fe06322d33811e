//! A suspect that waits for its turn: it need not be let in to end by its deadline or a cancellation.

use std::pin::pin;

use futures::future::{Either, select, select_all};
use inferq_schemas::headers::JobHeaders;

use super::Suspects;
use crate::cancel::{Grip, InHand};
use crate::cancelled::Tombstones;
use crate::deadline::{Deadline, passed};
use crate::job::Delivery;

/// A delivery, and what may end it.
#[derive(Debug)]
pub(crate) struct Held {
    delivery: Delivery,
    deadline: Option<Deadline>,
    grip: Grip,
}

impl Held {
    /// Within reach of cancellations from now on; one that came before is called off already.
    pub(crate) fn new(
        mut delivery: Delivery,
        headers: &JobHeaders,
        deadline: Option<Deadline>,
        (in_hand, tombstones): (&InHand, &Tombstones),
    ) -> Self {
        let grip = in_hand.take(&headers.id);
        delivery.called_off = tombstones.call_off(headers, &delivery.origin);
        Self {
            delivery,
            deadline,
            grip,
        }
    }

    /// The delivery, and whether it was called off meanwhile.
    pub(crate) fn into_delivery(self) -> Delivery {
        let Self {
            mut delivery, grip, ..
        } = self;
        delivery.called_off |= grip.is_stopped();
        delivery
    }

    fn is_over(&self) -> bool {
        let has_passed = self.deadline.is_some_and(Deadline::has_passed);
        has_passed || self.delivery.called_off || self.grip.is_stopped()
    }

    async fn over(&self) {
        match select(pin!(self.grip.stopped()), pin!(passed(self.deadline))).await {
            Either::Left(_) | Either::Right(_) => {}
        }
    }
}

impl Suspects<Held> {
    /// Waits until one that waits here is over; for ever without any.
    pub(crate) async fn one_over(&self) {
        let waiting: Vec<_> = self
            .waiting
            .iter()
            .map(|(_, held)| Box::pin(held.over()))
            .collect();
        if waiting.is_empty() {
            return std::future::pending().await;
        }
        select_all(waiting).await;
    }

    /// Takes out those that are over: they are answered without a run, so beside any other.
    pub(crate) fn take_over(&mut self) -> Vec<Delivery> {
        let over = self.waiting.extract_if(.., |(_, held)| held.is_over());
        over.map(|(_, held)| held.into_delivery()).collect()
    }
}
