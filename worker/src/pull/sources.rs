//! Which consumer is asked for how much next: the pure part of `pull`.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use inferq_schemas::subjects::{Lane, ModelName};
use tokio::time::{Duration, Instant};

use crate::fair::FairShare;
use crate::pull::consumers::{Served, Serving};
use crate::pull::suspects::SUSPECT_FROM;

/// Most messages in one fetch: enough to amortize the round trip, few enough to stay fair.
const MOST_PER_FETCH: usize = 64;
/// A lane with work that was granted nothing for this long is next.
const PATIENCE: Duration = Duration::from_secs(30);

/// Names a source in the inbox subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SourceId(u64);

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for SourceId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// What to ask a consumer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The next message, whenever it comes.
    Wait,
    /// Up to so many messages that are there now.
    Fetch(usize),
}

/// A request to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) source: SourceId,
    pub(crate) ask: Ask,
}

/// The consumers and what is known of each.
pub(crate) struct Sources {
    next: u64,
    sources: HashMap<SourceId, Source>,
    models: FairShare<ModelName>,
    /// Apart for each model: a busy one must not move the place newcomers of another start from.
    lanes: HashMap<ModelName, FairShare<Lane>>,
}

struct Source {
    served: Served,
    outstanding: Option<Outstanding>,
    /// Messages the server held for it when it last spoke.
    pending: u64,
    /// Its last message was a suspect: others may follow, and should not come together.
    suspect: bool,
    last_grant: Instant,
}

struct Outstanding {
    left: usize,
    until: Instant,
    /// Whether it has brought a message.
    answered: bool,
}

impl Sources {
    pub(crate) fn new() -> Self {
        Self {
            next: 0,
            sources: HashMap::new(),
            models: FairShare::new(),
            lanes: HashMap::new(),
        }
    }

    /// Takes over the consumers that are served now.
    pub(crate) fn update(&mut self, serving: &Serving) {
        self.sources
            .retain(|_, source| serving.contains(&source.served));
        for served in serving.iter() {
            if !self.sources.values().any(|source| source.served == *served) {
                self.next += 1;
                let source = Source {
                    served: served.clone(),
                    outstanding: None,
                    pending: 0,
                    suspect: false,
                    last_grant: Instant::now(),
                };
                self.sources.insert(SourceId(self.next), source);
            }
        }
        let sources = &self.sources;
        self.models
            .retain(|model| sources.values().any(|source| source.served.model == *model));
        self.lanes
            .retain(|model, _| sources.values().any(|source| source.served.model == *model));
    }

    /// The consumer of `source`.
    pub(crate) fn served(&self, source: SourceId) -> Option<&Served> {
        self.sources.get(&source).map(|source| &source.served)
    }

    pub(crate) fn find(&self, stream: &str, consumer: &str) -> Option<SourceId> {
        let found = self
            .sources
            .iter()
            .find(|(_, source)| source.served.stream == stream && source.served.name == consumer);
        found.map(|(id, _)| *id)
    }

    /// Notes that `ask` went out; it is given up at `until`.
    pub(crate) fn asked(&mut self, source: SourceId, ask: Ask, until: Instant) {
        if let Some(source) = self.sources.get_mut(&source) {
            let left = match ask {
                Ask::Wait => 1,
                Ask::Fetch(messages) => messages,
            };
            source.outstanding = Some(Outstanding {
                left,
                until,
                answered: false,
            });
        }
    }

    /// A message arrived, for the `attempt`th time, and the server holds `pending` more.
    pub(crate) fn received(&mut self, source: SourceId, pending: u64, attempt: u64) {
        if let Some(source) = self.sources.get_mut(&source) {
            source.pending = pending;
            source.suspect = attempt >= SUSPECT_FROM;
            if let Some(outstanding) = &mut source.outstanding {
                outstanding.answered = true;
                outstanding.left = outstanding.left.saturating_sub(1);
                if outstanding.left == 0 {
                    source.outstanding = None;
                }
            }
        }
    }

    /// The request ended without (more) messages. 404: none there; 408: its time is over; 409: the
    /// server refuses it, or its bytes are used up.
    pub(crate) fn ended(&mut self, source: SourceId, status: u16) {
        const NO_MESSAGES: u16 = 404;
        const REFUSED: u16 = 409;
        const NO_RESPONDERS: u16 = 503;
        if let Some(source) = self.sources.get_mut(&source) {
            match (&mut source.outstanding, status) {
                // The consumer or the server is away or has enough requests. Asking again at once
                // would only spin.
                (Some(outstanding), NO_RESPONDERS | REFUSED) if !outstanding.answered => {
                    outstanding.until = outstanding
                        .until
                        .min(Instant::now() + Duration::from_secs(1))
                }
                (outstanding, _) => *outstanding = None,
            }
            if status == NO_MESSAGES {
                source.pending = 0;
            }
        }
    }

    /// Gives up on requests whose time is over: their answers were lost.
    pub(crate) fn expire(&mut self, now: Instant) {
        for source in self.sources.values_mut() {
            if source
                .outstanding
                .as_ref()
                .is_some_and(|outstanding| outstanding.until <= now)
            {
                source.outstanding = None;
            }
        }
    }

    /// Gives up on all requests: the server they were sent to is gone.
    pub(crate) fn forget_requests(&mut self) {
        for source in self.sources.values_mut() {
            source.outstanding = None;
        }
    }

    /// Messages and status messages that requests under way may still bring.
    pub(crate) fn expected(&self) -> usize {
        let outstanding = self
            .sources
            .values()
            .filter_map(|source| source.outstanding.as_ref());
        outstanding.map(|outstanding| outstanding.left + 1).sum()
    }

    /// When the next request is to be given up.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.sources
            .values()
            .filter_map(|source| source.outstanding.as_ref())
            .map(|outstanding| outstanding.until)
            .min()
    }

    /// Shares `free` places of a room of `total`: fetches first, by fair shares of models and
    /// lanes, then waiting pulls on consumers that are not known to hold anything.
    pub(crate) fn grants(
        &mut self,
        free: usize,
        total: usize,
        held: impl Fn(&ModelName) -> usize,
    ) -> Vec<Grant> {
        let mut left = free.saturating_sub(self.promised());
        let has_room = left > 0;
        let mut grants = Vec::new();
        let mut granted: HashMap<ModelName, usize> = HashMap::new();
        let working = self.models_with_work(&held);
        // While another model has work, none holds more than its equal share.
        let share = total.div_ceil(working.max(1));
        loop {
            let open = |model: &ModelName| {
                let taken = held(model) + granted.get(model).copied().unwrap_or(0);
                share.saturating_sub(taken)
            };
            let ready: Vec<SourceId> =
                self.ready(|source| source.pending > 0 && open(&source.served.model) > 0);
            let ready: Vec<SourceId> = ready
                .into_iter()
                .filter(|id| !grants.iter().any(|grant: &Grant| grant.source == *id))
                .collect();
            let Some(id) = (if left == 0 { None } else { self.choose(&ready) }) else {
                break;
            };
            let source = &self.sources[&id];
            let pending = usize::try_from(source.pending).unwrap_or(usize::MAX);
            let most = if source.suspect { 1 } else { MOST_PER_FETCH };
            let messages = pending.min(left).min(most).min(open(&source.served.model));
            let (model, lane) = (source.served.model.clone(), source.served.lane);
            self.charge(&model, lane, messages);
            left -= messages;
            *granted.entry(model).or_insert(0) += messages;
            if let Some(source) = self.sources.get_mut(&id) {
                source.last_grant = Instant::now();
            }
            grants.push(Grant {
                source: id,
                ask: Ask::Fetch(messages),
            });
        }
        // Waiting pulls are not counted against the room: surplus is at most one per consumer. They
        // go out even if fetches take all of it, or a flood would hide what comes to a quiet lane.
        if has_room {
            let waiting = self.ready(|source| source.pending == 0);
            grants.extend(waiting.into_iter().map(|source| Grant {
                source,
                ask: Ask::Wait,
            }));
        }
        grants
    }

    /// Messages that fetches under way may still bring.
    pub(crate) fn promised(&self) -> usize {
        let fetches = self.sources.values().filter(|source| source.pending > 0);
        fetches
            .filter_map(|source| source.outstanding.as_ref())
            .map(|outstanding| outstanding.left)
            .sum()
    }

    fn models_with_work(&self, held: &impl Fn(&ModelName) -> usize) -> usize {
        let mut working: Vec<&ModelName> = self
            .sources
            .values()
            .filter(|source| source.pending > 0 || held(&source.served.model) > 0)
            .map(|source| &source.served.model)
            .collect();
        working.sort();
        working.dedup();
        working.len()
    }

    fn ready(&self, wanted: impl Fn(&Source) -> bool) -> Vec<SourceId> {
        let mut ready: Vec<SourceId> = self
            .sources
            .iter()
            .filter(|(_, source)| source.outstanding.is_none() && wanted(source))
            .map(|(id, _)| *id)
            .collect();
        ready.sort();
        ready
    }

    fn choose(&mut self, ready: &[SourceId]) -> Option<SourceId> {
        let now = Instant::now();
        let starved = ready
            .iter()
            .filter(|id| now.duration_since(self.sources[id].last_grant) >= PATIENCE);
        if let Some(id) = starved.min_by_key(|id| self.sources[id].last_grant) {
            return Some(*id);
        }
        let sources = &self.sources;
        let model = self
            .models
            .pick(ready.iter().map(|id| sources[id].served.model.clone()))?;
        let of_model = || ready.iter().filter(|id| sources[id].served.model == model);
        let lane = self
            .lanes
            .entry(model.clone())
            .or_insert_with(FairShare::new)
            .pick(of_model().map(|id| sources[id].served.lane))?;
        of_model()
            .find(|id| sources[id].served.lane == lane)
            .copied()
    }

    fn charge(&mut self, model: &ModelName, lane: Lane, messages: usize) {
        let cost = messages as f64;
        self.models.charge(model, cost, 1);
        self.lanes
            .entry(model.clone())
            .or_insert_with(FairShare::new)
            .charge(&lane, cost, lane.weight());
    }
}

#[cfg(test)]
mod tests;
