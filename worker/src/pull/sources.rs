//! Which consumer is asked for how much next: the pure part of `pull`.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use inferq_schemas::subjects::{Lane, ModelName};
use tokio::time::{Duration, Instant};

use crate::fair::FairShare;
use crate::hold::Promise;
use crate::pull::consumers::{Served, Serving};
use crate::pull::suspects::SUSPECT_FROM;

/// Most messages in one fetch: enough to amortize the round trip, few enough to stay fair.
const MOST_PER_FETCH: usize = 64;
/// A lane with work that was granted nothing for this long is next.
const PATIENCE: Duration = Duration::from_secs(30);

/// The status of a request that nobody took: its consumer, or the server, is away.
pub(crate) const NO_RESPONDERS: u16 = 503;

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
    Wait {
        /// Of any size: it is known to be a large one.
        large: bool,
    },
    /// Up to so many messages that are there now.
    Fetch(usize),
}

/// What there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Free {
    /// Places, of which a message takes one or more.
    pub(crate) places: usize,
    /// Messages of any size.
    pub(crate) messages: usize,
}

/// A request to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) source: SourceId,
    pub(crate) ask: Ask,
}

/// What a message tells about its consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Messages that the server holds beside it.
    pub(crate) pending: u64,
    /// How often this one was delivered.
    pub(crate) attempt: u64,
    /// Its size as the server counts it.
    pub(crate) bytes: usize,
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
    /// Its next message was larger than a waiting pull had bytes for.
    large: bool,
    last_grant: Instant,
}

struct Outstanding {
    ask: Ask,
    left: usize,
    /// The room for what it may bring.
    promise: Promise,
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
                    large: false,
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

    /// Notes that `ask` went out, with room for what it may bring; it is given up at `until`.
    pub(crate) fn asked(&mut self, source: SourceId, ask: Ask, promise: Promise, until: Instant) {
        if let Some(source) = self.sources.get_mut(&source) {
            let left = match ask {
                Ask::Wait { .. } => 1,
                Ask::Fetch(messages) => messages,
            };
            source.outstanding = Some(Outstanding {
                ask,
                left,
                promise,
                until,
                answered: false,
            });
        }
    }

    /// A message arrived and has been taken in.
    pub(crate) fn received(&mut self, source: SourceId, arrival: Arrival) {
        if let Some(source) = self.sources.get_mut(&source) {
            source.pending = arrival.pending;
            source.suspect = arrival.attempt >= SUSPECT_FROM;
            source.large = false;
            if let Some(outstanding) = &mut source.outstanding {
                outstanding.answered = true;
                outstanding.promise.fulfil(arrival.bytes);
                outstanding.left = outstanding.left.saturating_sub(1);
                if outstanding.left == 0 {
                    source.outstanding = None;
                }
            }
        }
    }

    /// The request ended without (more) messages. 404: none there; 408: its time is over; 409: the
    /// server refuses it, or the next message has more bytes than are left of it (`too_large`).
    pub(crate) fn ended(&mut self, source: SourceId, status: u16, too_large: bool) {
        const NO_MESSAGES: u16 = 404;
        const REFUSED: u16 = 409;
        if let Some(source) = self.sources.get_mut(&source) {
            match (&mut source.outstanding, status) {
                // What is there is asked for with room for a message of any size.
                (Some(outstanding), REFUSED)
                    if too_large && outstanding.ask == (Ask::Wait { large: false }) =>
                {
                    source.large = true;
                    source.outstanding = None;
                }
                // The consumer or the server is away or has enough requests. Asking again at once
                // would only spin.
                (Some(outstanding), NO_RESPONDERS | REFUSED) if !outstanding.answered => {
                    outstanding.until = outstanding
                        .until
                        .min(Instant::now() + Duration::from_secs(1))
                }
                (outstanding, _) => {
                    // Asked for with room and yet not there: another worker has taken it.
                    source.large = false;
                    *outstanding = None;
                }
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

    /// Shares what is free: fetches first, by fair shares of models and lanes and none beyond the places
    /// that are `open` to its model, then waiting pulls on consumers that are not known to hold anything.
    /// Messages of a lane are likely to take as many places each as `usual` says.
    ///
    /// A model with any place left gets one message, whatever it takes: its share may be smaller.
    pub(crate) fn grants(
        &mut self,
        free: Free,
        open: impl Fn(&ModelName) -> usize,
        usual: impl Fn(&ModelName, Lane) -> usize,
    ) -> Vec<Grant> {
        let mut left = free;
        let mut grants = Vec::new();
        let mut ready = self.ready(|source| source.pending > 0);
        let mut open_to: HashMap<ModelName, usize> = HashMap::new();
        for id in &ready {
            let model = &self.sources[id].served.model;
            if !open_to.contains_key(model) {
                open_to.insert(model.clone(), open(model));
            }
        }
        while left.messages > 0 && left.places > 0 {
            ready.retain(|id| open_to[&self.sources[id].served.model] > 0);
            let Some(id) = self.choose(&ready) else {
                break;
            };
            ready.retain(|other| *other != id);
            let source = &self.sources[&id];
            let (model, lane) = (source.served.model.clone(), source.served.lane);
            let pending = usize::try_from(source.pending).unwrap_or(usize::MAX);
            let most = if source.suspect { 1 } else { MOST_PER_FETCH };
            let each = usual(&model, lane);
            let of_share = (open_to[&model] / each).max(1);
            let fit = (left.places / each).min(left.messages).min(of_share);
            let messages = pending.min(most).min(fit);
            if messages == 0 {
                // Whoever is next must not take the places that this one waits for.
                break;
            }
            let places = messages * each;
            self.charge(&model, lane, places);
            left.messages -= messages;
            left.places -= places;
            open_to
                .entry(model)
                .and_modify(|open| *open = open.saturating_sub(places));
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
        if free.messages > 0 && free.places > 0 {
            let mut waiting = self.ready(|source| source.pending == 0);
            // Small messages must not take the bytes that a large one needs, again and again.
            waiting.sort_by_key(|id| !self.sources[id].large);
            grants.extend(waiting.into_iter().map(|source| Grant {
                source,
                ask: Ask::Wait {
                    large: self.sources[&source].large,
                },
            }));
        }
        grants
    }

    /// The models that have more in their queues.
    pub(crate) fn with_more(&self) -> impl Iterator<Item = &ModelName> {
        let with_more = self.sources.values().filter(|source| source.pending > 0);
        with_more.map(|source| &source.served.model)
    }

    /// How many consumers there are.
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether fetches are under way: the server answers each at once.
    pub(crate) fn fetching(&self) -> bool {
        let mut outstanding = self
            .sources
            .values()
            .filter_map(|source| source.outstanding.as_ref());
        outstanding.any(|outstanding| matches!(outstanding.ask, Ask::Fetch(_)))
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

    fn charge(&mut self, model: &ModelName, lane: Lane, places: usize) {
        let cost = places as f64;
        self.models.charge(model, cost, 1);
        self.lanes
            .entry(model.clone())
            .or_insert_with(FairShare::new)
            .charge(&lane, cost, lane.weight());
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
