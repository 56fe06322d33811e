//! Whose the places of a room are: an equal share for each model that has work, and within it an
//! equal one for each way in.
//!
//! A model or way without work leaves its share to the others; it has work while it holds something
//! here, or more is known to wait for a place.

use std::collections::HashMap;

use inferq_schemas::subjects::ModelName;
use tokio::time::Instant;

/// By which kind of way a delivery comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is pulled from one of the queues of its model.
    Queue,
    /// It is a plain request, which comes unasked.
    Call,
}

/// Places that a model may still take by one way, and its share by that way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) places: usize,
    pub(super) of: usize,
}

/// Who holds places, and who wants more.
#[derive(Debug, Default)]
pub(super) struct Shares {
    models: HashMap<ModelName, Claims>,
}

#[derive(Debug, Default)]
struct Claims {
    queue: Claim,
    call: Claim,
}

#[derive(Debug, Default)]
struct Claim {
    taken: usize,
    waits_until: Option<Instant>,
}

impl Claim {
    fn has_work(&self, now: Instant) -> bool {
        self.taken > 0 || self.waits_until.is_some_and(|until| now < until)
    }
}

impl Claims {
    fn of(&mut self, kind: Kind) -> &mut Claim {
        match kind {
            Kind::Queue => &mut self.queue,
            Kind::Call => &mut self.call,
        }
    }

    fn has_work(&self, now: Instant) -> bool {
        self.queue.has_work(now) || self.call.has_work(now)
    }
}

impl Shares {
    /// `model` has so many more places.
    pub(super) fn take(&mut self, model: &ModelName, kind: Kind, places: usize) {
        if places > 0 {
            self.claims(model).of(kind).taken += places;
        }
    }

    /// It has so many less.
    pub(super) fn give_back(&mut self, model: &ModelName, kind: Kind, places: usize) {
        if let Some(claims) = self.models.get_mut(model) {
            let claim = claims.of(kind);
            claim.taken = claim.taken.saturating_sub(places);
            let waits = claims.queue.waits_until.or(claims.call.waits_until);
            if claims.queue.taken + claims.call.taken == 0 && waits.is_none() {
                self.models.remove(model);
            }
        }
    }

    /// More of `model` waits for a place by this way, as far as is known until then.
    pub(super) fn wants(&mut self, model: &ModelName, kind: Kind, until: Instant) {
        self.claims(model).of(kind).waits_until = Some(until);
    }

    /// Forgets what was said to wait in queues, and what waits no longer elsewhere.
    pub(super) fn forget_queues(&mut self, now: Instant) {
        self.models.retain(|_, claims| {
            claims.queue.waits_until = None;
            claims.has_work(now)
        });
    }

    /// What `model` may still take by ways of this kind in a room of `total` places, whether they are free or not.
    pub(super) fn open(&self, total: usize, model: &ModelName, kind: Kind, now: Instant) -> Open {
        let others = self
            .models
            .iter()
            .filter(|(other, claims)| *other != model && claims.has_work(now));
        let share = total.div_ceil(others.count() + 1);
        let Some(claims) = self.models.get(model) else {
            return Open {
                places: share,
                of: share,
            };
        };
        let (own, other) = match kind {
            Kind::Queue => (&claims.queue, &claims.call),
            Kind::Call => (&claims.call, &claims.queue),
        };
        let of = if other.has_work(now) {
            share.div_ceil(2)
        } else {
            share
        };
        let in_share = share.saturating_sub(own.taken + other.taken);
        Open {
            places: in_share.min(of.saturating_sub(own.taken)),
            of,
        }
    }

    fn claims(&mut self, model: &ModelName) -> &mut Claims {
        // Looked up first: the name is cloned only for the first of a model.
        if !self.models.contains_key(model) {
            self.models.insert(model.clone(), Claims::default());
        }
        self.models.get_mut(model).expect("it was put there")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::model;

    const TOTAL: usize = 64;
    const SECOND: Duration = Duration::from_secs(1);

    fn places(shares: &Shares, name: &str, kind: Kind) -> usize {
        shares
            .open(TOTAL, &model(name), kind, Instant::now())
            .places
    }

    #[tokio::test(start_paused = true)]
    async fn the_only_one_with_work_may_have_all_of_the_room() {
        let mut shares = Shares::default();
        shares.take(&model("a"), Kind::Queue, 10);
        assert_eq!(places(&shares, "a", Kind::Queue), 54);
    }

    #[tokio::test(start_paused = true)]
    async fn models_with_work_have_equal_shares_and_those_without_none() {
        let mut shares = Shares::default();
        shares.take(&model("flooded"), Kind::Queue, 30);
        shares.wants(&model("small"), Kind::Queue, Instant::now() + SECOND);
        assert_eq!(places(&shares, "flooded", Kind::Queue), 2);
        assert_eq!(places(&shares, "small", Kind::Queue), 32);
        shares.forget_queues(Instant::now());
        assert_eq!(places(&shares, "flooded", Kind::Queue), 34);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_and_jobs_of_a_model_have_half_of_its_share_each() {
        let mut shares = Shares::default();
        shares.take(&model("a"), Kind::Call, 64);
        shares.wants(&model("a"), Kind::Queue, Instant::now() + SECOND);
        assert_eq!(places(&shares, "a", Kind::Call), 0);
        assert_eq!(places(&shares, "a", Kind::Queue), 0, "the room is full");
        shares.give_back(&model("a"), Kind::Call, 20);
        assert_eq!(places(&shares, "a", Kind::Call), 0, "44 are more than half");
        assert_eq!(places(&shares, "a", Kind::Queue), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_calls_to_one_model_leaves_another_its_share_of_the_queue() {
        let mut shares = Shares::default();
        shares.take(&model("called"), Kind::Call, 32);
        shares.wants(&model("queued"), Kind::Queue, Instant::now() + SECOND);
        assert_eq!(places(&shares, "called", Kind::Call), 0);
        assert_eq!(places(&shares, "queued", Kind::Queue), 32);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_turned_away_keeps_a_share_for_as_long_as_that_is_true() {
        let mut shares = Shares::default();
        shares.take(&model("a"), Kind::Queue, 40);
        shares.wants(&model("a"), Kind::Call, Instant::now() + SECOND);
        assert_eq!(places(&shares, "a", Kind::Queue), 0);
        assert_eq!(places(&shares, "a", Kind::Call), 24);
        tokio::time::advance(SECOND).await;
        assert_eq!(places(&shares, "a", Kind::Queue), 24);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_remembered_that_has_no_work() {
        let mut shares = Shares::default();
        shares.take(&model("a"), Kind::Queue, 1);
        shares.wants(&model("b"), Kind::Call, Instant::now() + SECOND);
        shares.give_back(&model("a"), Kind::Queue, 1);
        assert_eq!(shares.models.len(), 1);
        tokio::time::advance(SECOND).await;
        shares.forget_queues(Instant::now());
        assert!(shares.models.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn every_model_has_a_place_in_a_room_with_fewer_places_than_models() {
        let mut shares = Shares::default();
        for number in 0..100 {
            shares.take(&model(&format!("m{number}")), Kind::Queue, 1);
        }
        assert_eq!(places(&shares, "late", Kind::Queue), 1);
        assert_eq!(places(&shares, "m1", Kind::Queue), 0);
    }
}
