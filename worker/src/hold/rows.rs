//! How many places a delivery takes: one for each of its rows, since rows are what executors work on.
//!
//! One with very many takes a part of the room, so that several of them are here and no executor waits for
//! the next. How many rows a delivery has is known once it is decoded. Until then it counts as the
//! others of its model and lane do on average; the first of them as a large one.

use std::collections::HashMap;

use inferq_schemas::subjects::{Lane, ModelName};

use super::{Hold, Way};

/// The largest delivery takes one of so many parts of a room; pulls leave one of them for calls.
pub(super) const PARTS: usize = 8;
/// How much the last delivery of many counts in the average.
const LATEST: f32 = 0.125;

/// Places of a delivery with so many rows, in a room of `total` places.
fn places(rows: usize, total: usize) -> usize {
    rows.clamp(1, (total / PARTS).max(1))
}

/// What deliveries of each queue take on average.
#[derive(Debug, Default)]
pub(super) struct Usual {
    models: HashMap<ModelName, HashMap<Lane, f32>>,
}

impl Usual {
    /// Places that the next delivery is likely to take, in a room of `total`.
    pub(super) fn places(&self, model: &ModelName, way: Way, total: usize) -> usize {
        match way {
            // Calls come one by one, and mostly with one row.
            Way::Call => 1,
            Way::Queue(lane) => {
                let lanes = self.models.get(model);
                let mean = lanes.and_then(|lanes| lanes.get(&lane));
                let rows = mean.map_or(usize::MAX, |mean| mean.round() as usize);
                places(rows, total)
            }
        }
    }

    fn learn(&mut self, model: &ModelName, lane: Lane, places: usize) {
        let latest = places as f32;
        let lanes = match self.models.get_mut(model) {
            Some(lanes) => lanes,
            None => self.models.entry(model.clone()).or_default(),
        };
        let mean = lanes.entry(lane).or_insert(latest);
        *mean += (latest - *mean) * LATEST;
    }
}

impl Hold {
    /// The delivery has turned out to have so many rows.
    pub fn weigh(&mut self, rows: usize) {
        let places = places(rows, self.room.limits.rows);
        let mut held = self.room.lock();
        if places != self.places {
            // Taken first: a model that holds nothing for a moment would be forgotten.
            held.take(&self.model, self.way, places);
            held.give_back(&self.model, self.way, self.places);
        }
        if let Way::Queue(lane) = self.way {
            held.usual.learn(&self.model, lane, places);
        }
        drop(held);
        if places < self.places {
            self.room.changed.notify_one();
        }
        self.places = places;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::hold::{Promise, Room};
    use crate::testing;

    const TOTAL: usize = 64;
    const LOW: Way = Way::Queue(Lane::Low);

    fn room() -> Room {
        testing::room(TOTAL, 1000)
    }

    fn model() -> ModelName {
        testing::model("digits")
    }

    fn enter(room: &Room, way: Way) -> Hold {
        room.enter(&model(), way, 1, None)
    }

    fn promise(room: &Room, messages: usize) -> Promise {
        let promise = room.promise(&model(), Lane::Low, messages, 1);
        promise.expect("bytes are free")
    }

    #[tokio::test(start_paused = true)]
    async fn a_delivery_takes_as_many_places_as_it_has_rows_and_gives_them_back() {
        let room = room();
        let mut hold = enter(&room, LOW);
        hold.weigh(5);
        assert_eq!((room.free_rows(), room.held_jobs()), (TOTAL - 5, 1));
        assert_eq!(room.open_to_queue(&model()), TOTAL - 5);
        drop(hold);
        assert_eq!((room.free_rows(), room.held_jobs()), (TOTAL, 0));
        assert_eq!(room.open_to_queue(&model()), TOTAL);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_turns_out_to_be_small_leaves_the_rest_to_others_at_once() {
        let room = room();
        let mut hold = enter(&room, LOW);
        assert_eq!(room.free_rows(), TOTAL - 8, "nothing is known yet");
        hold.weigh(1);
        assert_eq!(room.free_rows(), TOTAL - 1);
        assert!(room.changed().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_rows_they_have_several_are_here_at_once() {
        let room = room();
        let mut hold = enter(&room, LOW);
        hold.weigh(1_000_000);
        assert_eq!(room.free_rows(), TOTAL - TOTAL / PARTS);
    }

    #[tokio::test(start_paused = true)]
    async fn those_to_come_count_as_the_others_of_their_lane_did() {
        let room = room();
        for _ in 0..30 {
            enter(&room, LOW).weigh(4);
        }
        for _ in 0..30 {
            enter(&room, Way::Queue(Lane::High)).weigh(1);
        }
        let mut pull = promise(&room, 3);
        assert_eq!(room.free_rows(), TOTAL - 12);
        let _came = enter(&room, LOW);
        pull.fulfil(1);
        assert_eq!(room.free_rows(), TOTAL - 12, "it has what was promised");
        drop(pull);
        assert_eq!(room.free_rows(), TOTAL - 4);
        let _other = enter(&room, Way::Queue(Lane::High));
        assert_eq!(room.free_rows(), TOTAL - 5);
    }

    #[tokio::test(start_paused = true)]
    async fn pulls_leave_places_for_calls() {
        let room = room();
        let _pulls = promise(&room, PARTS - 1);
        assert_eq!(room.free_for_queues(), 0);
        assert_eq!(room.free_rows(), TOTAL / PARTS);
        assert!(room.try_call(&model(), 1).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_have_their_part_take_none_from_the_share_of_queues() {
        let room = room();
        let mut calls = Vec::new();
        for name in ["a", "b", "c", "d", "e", "f", "g"] {
            let name = testing::model(name);
            for _ in 0..TOTAL / PARTS {
                calls.push(room.try_call(&name, 1).expect("its share is free"));
            }
        }
        assert_eq!(room.open_to_queue(&model()), TOTAL / PARTS);
        assert_eq!(room.free_for_queues(), TOTAL / PARTS);
    }
}
