//! Groups work that can share one forward pass: same version, same shape but for the rows.
//!
//! Work-conserving: an idle executor takes what is here, a busy one lets rows gather. An executor
//! asks before a batch is chosen, so late work can still join it. Between models the one that has had
//! least executor time is next; between lanes 8:4:1; within a lane the earliest deadline first. Work
//! larger than a batch is taken piece by piece. Work that nobody waits for any more is dropped, and so
//! is work that takes longer than is left until its deadline (`models/pace.rs`): its job hears that at once.
//! How large a batch may be is in `batch/most.rs`: for the deadlines of its rows (`batch/size.rs`), and beside others
//! (`batch/beside.rs`), where it has no more rows than pay.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inferq_schemas::subjects::{Lane, ModelName};
use tokio::sync::{mpsc, oneshot};

use crate::batch::beside::Lately;
use crate::batch::place::{GroupKey, Order, group_key, order};
use crate::config::BatchLimits;
use crate::deadline::Deadline;
use crate::disposition::JobError;
use crate::fair::FairShare;
use crate::metrics::CloseReason;
use crate::models::Version;
use crate::work::{Rows, Work};

mod beside;
mod most;
mod place;
mod size;

/// Rows that run together.
#[derive(Debug)]
pub struct Batch {
    /// The version that runs them.
    pub version: Arc<Version>,
    /// Units of each work, in order.
    pub slices: Vec<Slice>,
    /// Why it was closed.
    pub close: CloseReason,
}

/// Some units of one work.
#[derive(Debug, Clone)]
pub struct Slice {
    /// The work.
    pub work: Arc<Work>,
    /// Which of its units.
    pub units: Range<usize>,
}

impl Batch {
    /// Rows of all slices together.
    pub fn rows(&self) -> usize {
        self.slices
            .iter()
            .map(|slice| slice.work.row_count(&slice.units))
            .sum()
    }

    /// Whether nothing in it is on a lane that goes before `low`.
    pub fn is_bulk(&self) -> bool {
        let mut slices = self.slices.iter();
        slices.all(|slice| slice.work.lane == Lane::Low)
    }
}

/// An executor that has nothing to do.
#[derive(Debug)]
pub struct Idle {
    /// Where it waits for a batch.
    pub slot: oneshot::Sender<Batch>,
    /// What it did last, and how long that took.
    pub last: Option<(ModelName, Duration)>,
}

/// Runs the stage until its input closes and all work has gone to an executor.
pub async fn run(
    mut work: mpsc::Receiver<Arc<Work>>,
    mut idle: mpsc::Receiver<Idle>,
    limits: BatchLimits,
) {
    let mut waiting = Waiting::new(limits);
    let mut executors: Vec<Idle> = Vec::new();
    let mut open = true;
    loop {
        while !executors.is_empty() && (waiting.is_due(Instant::now()) || !open) {
            let Some(batch) = waiting.take() else { break };
            let Some(executor) = executors.pop() else {
                break;
            };
            if let Err(batch) = executor.slot.send(batch) {
                // That executor is gone; its jobs come again.
                batch
                    .slices
                    .iter()
                    .for_each(|slice| slice.work.fail(JobError::Stopping));
            }
        }
        if !open {
            // No executor may ever ask for these.
            waiting.drop_hopeless();
            if waiting.is_empty() {
                return;
            }
        }
        let due = (!executors.is_empty()).then(|| waiting.due_at()).flatten();
        tokio::select! {
            next = work.recv(), if open => match next {
                Some(work) => waiting.push(work),
                None => open = false,
            },
            next = idle.recv() => match next {
                Some(executor) => {
                    if let Some((model, took)) = &executor.last {
                        waiting.charge(model, *took);
                    }
                    executors.push(executor);
                }
                None => return,
            },
            () = sleep_until(due), if due.is_some() => {}
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}

#[derive(Debug)]
struct Item {
    work: Arc<Work>,
    /// The first unit that no batch has taken.
    next: usize,
}

#[derive(Debug, Default)]
struct Group {
    lanes: BTreeMap<Lane, BTreeSet<Order>>,
    units: usize,
}

/// What waits for an executor. Needs no runtime.
#[derive(Debug)]
struct Waiting {
    limits: BatchLimits,
    items: HashMap<u64, Item>,
    groups: BTreeMap<GroupKey, Group>,
    models: FairShare<ModelName>,
    /// Apart for each model: a busy one must not move the place newcomers of another start from.
    lanes: HashMap<ModelName, FairShare<Lane>>,
    lately: Lately,
    arrivals: u64,
}

impl Waiting {
    fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            items: HashMap::new(),
            groups: BTreeMap::new(),
            models: FairShare::new(),
            lanes: HashMap::new(),
            lately: Lately::default(),
            arrivals: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn push(&mut self, work: Arc<Work>) {
        let now = Instant::now();
        if self.is_too_late(&work, now) {
            return;
        }
        self.arrivals += 1;
        self.lately.came(&work.version.model, work.lane, now);
        let group = self.groups.entry(group_key(&work)).or_default();
        group
            .lanes
            .entry(work.lane)
            .or_default()
            .insert(order(&work, self.arrivals));
        group.units += work.units();
        self.items.insert(self.arrivals, Item { work, next: 0 });
    }

    fn charge(&mut self, model: &ModelName, took: Duration) {
        self.models.charge(model, took.as_secs_f64() * 1e6, 1);
    }

    /// Whether an idle executor should take a batch now.
    fn is_due(&self, now: Instant) -> bool {
        self.due_at().is_some_and(|due| due <= now)
    }

    /// When the longest waiting item has waited long enough, or now if a batch is full.
    fn due_at(&self) -> Option<Instant> {
        let oldest = self.items.values().map(|item| item.work.queued).min()?;
        let full = self
            .groups
            .values()
            .any(|group| group.units >= self.limits.max_batch_rows.get());
        Some(if full {
            oldest
        } else {
            oldest + self.limits.batch_wait
        })
    }

    /// The next batch.
    fn take(&mut self) -> Option<Batch> {
        self.drop_hopeless();
        let model = self.models.pick(
            self.groups
                .keys()
                .map(|key| key.model.clone())
                .collect::<BTreeSet<_>>(),
        )?;
        let lanes = self
            .groups
            .iter()
            .filter(|(key, _)| key.model == model)
            .flat_map(|(_, group)| group.lanes.keys().copied());
        let candidates: BTreeSet<Lane> = lanes.collect();
        let lane = self
            .lanes
            .entry(model.clone())
            .or_insert_with(FairShare::new)
            .pick(candidates)?;
        let of_model = self.groups.iter().filter(|(key, _)| key.model == model);
        let key = of_model
            .filter_map(|(key, group)| Some((group.lanes.get(&lane)?.first()?, key)))
            .min()
            .map(|(_, key)| key.clone())?;
        let batch = self.fill(&key, lane)?;
        if let Some(lanes) = self.lanes.get_mut(&model) {
            lanes.charge(&lane, batch.rows() as f64, lane.weight());
        }
        // Until the executor reports what the batch took, its rows stand for their time: a busy model
        // must not win every idle executor of the moment.
        self.models.charge(&key.model, batch.rows() as f64, 1);
        Some(batch)
    }

    /// Fills a batch from `lane` first and then from the others, high before low.
    fn fill(&mut self, key: &GroupKey, lane: Lane) -> Option<Batch> {
        let mut slices: Vec<Slice> = Vec::new();
        let mut units = 0;
        let mut lanes = vec![lane];
        lanes.extend(Lane::ALL.into_iter().filter(|other| *other != lane));
        let pays = self.rows_that_pay(key, lane);
        // Of those that the deadlines allow: a few rows more than pay are no flood.
        let most = self.rows_together(key, &lanes).min(pays);
        for lane in lanes {
            while units < most {
                let Some(slice) = self.take_slice(key, lane, most - units) else {
                    break;
                };
                units += slice.units.len();
                let alone = slice.work.rows == Rows::Whole;
                slices.push(slice);
                if alone {
                    return batch(slices, CloseReason::Alone);
                }
            }
        }
        let leaves_some = self.groups.contains_key(key);
        let close = if units >= self.limits.max_batch_rows.get() {
            CloseReason::Full
        } else if leaves_some && units >= pays {
            CloseReason::Others
        } else if leaves_some {
            CloseReason::Deadline
        } else if self.limits.batch_wait.is_zero() {
            CloseReason::Idle
        } else {
            CloseReason::Wait
        };
        batch(slices, close)
    }

    /// Up to `most` units of the first item of `lane`; an item that is used up leaves.
    fn take_slice(&mut self, key: &GroupKey, lane: Lane, most: usize) -> Option<Slice> {
        let group = self.groups.get_mut(key)?;
        let orders = group.lanes.get_mut(&lane)?;
        let order = *orders.first()?;
        let item = self.items.get_mut(&order.id)?;
        let end = item.work.units().min(item.next + most);
        let slice = Slice {
            work: item.work.clone(),
            units: item.next..end,
        };
        item.next = end;
        group.units -= slice.units.len();
        if end == slice.work.units() {
            self.items.remove(&order.id);
            orders.remove(&order);
            if orders.is_empty() {
                group.lanes.remove(&lane);
            }
            if group.lanes.is_empty() {
                self.groups.remove(key);
            }
        }
        Some(slice)
    }

    /// Ends `work` if its rows, as many as a batch takes, take longer than is left until its deadline.
    fn is_too_late(&self, work: &Work, now: Instant) -> bool {
        let Some(Deadline(end)) = work.deadline else {
            return false;
        };
        let units = work.units().min(self.limits.max_batch_rows.get());
        let Some(takes) = work.version.pace.least(work.row_count(&(0..units)), now) else {
            return false;
        };
        let is_too_late = now + takes > end;
        if is_too_late {
            work.fail(JobError::TooLate(takes));
        }
        is_too_late
    }

    /// Forgets what nobody waits for, and what would be run in vain.
    fn drop_hopeless(&mut self) {
        let now = Instant::now();
        let gone: Vec<u64> = self
            .items
            .iter()
            .filter(|(_, item)| item.work.is_abandoned() || self.is_too_late(&item.work, now))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            let Some(item) = self.items.remove(&id) else {
                continue;
            };
            let key = group_key(&item.work);
            if let Some(group) = self.groups.get_mut(&key) {
                group.units -= item.work.units() - item.next;
                if let Some(orders) = group.lanes.get_mut(&item.work.lane) {
                    orders.remove(&order(&item.work, id));
                }
                group.lanes.retain(|_, orders| !orders.is_empty());
                if group.lanes.is_empty() {
                    self.groups.remove(&key);
                }
            }
        }
    }
}

fn batch(slices: Vec<Slice>, close: CloseReason) -> Option<Batch> {
    let version = slices.first()?.work.version.clone();
    Some(Batch {
        version,
        slices,
        close,
    })
}

#[cfg(test)]
mod tests;
