//! Who else has had work lately, so that a batch should not keep its executor longer than pays.
//!
//! A forward pass is not interrupted for others: what comes while it runs waits for its end. Alone, a batch may be as
//! large as it likes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use inferq_schemas::subjects::{Lane, ModelName};

/// Who had work within this time is likely to have some again soon; so is, where a full batch takes long, who had some
/// within [`BATCHES`] of them.
const LATELY: Duration = Duration::from_secs(1);
const BATCHES: u32 = 4;

/// When each lane of each model last had work.
#[derive(Debug, Default)]
pub(super) struct Lately {
    models: HashMap<ModelName, HashMap<Lane, Instant>>,
}

impl Lately {
    /// Work has come.
    pub(super) fn came(&mut self, model: &ModelName, lane: Lane, now: Instant) {
        let lanes = match self.models.get_mut(model) {
            Some(lanes) => lanes,
            None => self.models.entry(model.clone()).or_default(),
        };
        lanes.insert(lane, now);
    }

    /// Whether another model, or another lane of this one, has had work. A full batch takes `full`.
    pub(super) fn others(
        &self,
        (model, lane): (&ModelName, Lane),
        full: Duration,
        now: Instant,
    ) -> bool {
        let lately = LATELY.max(full * BATCHES);
        self.models.iter().any(|(other, lanes)| {
            lanes.iter().any(|(other_lane, last)| {
                let is_other = other != model || *other_lane != lane;
                is_other && now.saturating_duration_since(*last) < lately
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::model;

    #[test]
    fn others_are_those_who_had_work_within_a_second() {
        let (mut lately, now) = (Lately::default(), Instant::now());
        lately.came(&model("flooded"), Lane::Low, now);
        let full = Duration::from_secs(32);
        let beside =
            |lately: &Lately, full, at| lately.others((&model("flooded"), Lane::Low), full, at);
        let others = |lately: &Lately, at| beside(lately, Duration::ZERO, at);
        assert!(!others(&lately, now), "it is alone");
        lately.came(&model("flooded"), Lane::High, now);
        assert!(others(&lately, now));
        assert!(!others(&lately, now + LATELY));
        assert!(beside(&lately, full, now + 2 * full), "it may come back");
        lately.came(&model("quiet"), Lane::Low, now + LATELY);
        assert!(others(&lately, now + LATELY));
        assert!(!others(&lately, now + 2 * LATELY));
    }
}
