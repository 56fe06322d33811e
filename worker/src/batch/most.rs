//! How many rows a batch may have.

use std::time::Instant;

use inferq_schemas::subjects::Lane;

use super::Waiting;
use super::place::GroupKey;
use super::size::{Ahead, rows_together};

impl Waiting {
    /// Most rows of a batch that begins with `lane`.
    pub(super) fn rows_that_pay(&self, key: &GroupKey, lane: Lane) -> usize {
        let most = self.limits.max_batch_rows.get();
        let Some(group) = self.groups.get(key) else {
            return most;
        };
        let first = group.lanes.get(&lane).and_then(|orders| orders.first());
        let Some(first) = first.and_then(|order| self.items.get(&order.id)) else {
            return most;
        };
        let (now, pace) = (Instant::now(), &first.work.version.pace);
        let full = pace.least(most, now).unwrap_or_default();
        let others =
            self.waits_beside(key, lane) || self.lately.others((&key.model, lane), full, now);
        if others && !key.runs_alone() {
            // A number that does not wait cannot be tried.
            pace.pays(most.min(group.units.max(1)), now)
        } else {
            most
        }
    }

    /// Whether anything waits but this lane of this model.
    fn waits_beside(&self, key: &GroupKey, lane: Lane) -> bool {
        self.groups.iter().any(|(other, group)| {
            other.model != key.model || group.lanes.keys().any(|other| *other != lane)
        })
    }

    /// Rows of a group that should leave together, which fill a batch unless that makes some of them late.
    pub(super) fn rows_together(&self, key: &GroupKey, lanes: &[Lane]) -> usize {
        let most = self.limits.max_batch_rows.get();
        let (Some(group), false) = (self.groups.get(key), key.runs_alone()) else {
            return most;
        };
        let orders = lanes.iter().filter_map(|lane| group.lanes.get(lane));
        let items = orders
            .flatten()
            .filter_map(|order| self.items.get(&order.id));
        let (mut ahead, mut rows, mut pace) = (Vec::new(), 0, None);
        for item in items {
            let left = item.work.units() - item.next;
            ahead.push(Ahead {
                rows: left,
                deadline: item.work.deadline,
            });
            (rows, pace) = (rows + left, Some(&item.work.version.pace));
            if rows > most {
                break;
            }
        }
        let now = Instant::now();
        let takes = |rows| pace.and_then(|pace| pace.least(rows, now));
        // Work without rows leaves too.
        rows_together(&ahead, most, now, takes).max(1)
    }
}
