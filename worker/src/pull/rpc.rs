//! The RPC door: plain requests on `infer.rpc.<model>`, shared by all workers through a queue group.
//!
//! A request that finds no room is passed on to the queue `infer.rpcq.<model>.<lane>` with its
//! reply address and deadline, where the next worker with room takes it. A door without room for a
//! second leaves the group, so that callers reach workers that have some, and comes back when there is
//! (`rpc/saturation.rs`). Whoever leaves takes in what was already on its way: no call is lost, in a
//! rolling restart neither.

use std::collections::HashMap;
use std::time::Instant;

use async_nats::Message;
use inferq_schemas::subjects::{Lane, ModelName, ReplyPrefixes};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::deadline::RpcTimes;
use crate::hold::Room;
use crate::job::{Delivery, Origin};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::pull::consumers::{Serving, ready_models};
use crate::pull::micro::{Member, Micro};
use crate::pull::rpc::saturation::{Move, Saturation};

mod saturation;
mod spill;

/// Requests of one door that are passed on to the queue at the same time.
const MOST_SPILLS: usize = 64;

/// What the doors need.
#[derive(Clone)]
pub struct Doors {
    /// The connection for calls: behind the bodies of jobs they would wait.
    pub ledger: Ledger,
    /// Room in this worker.
    pub room: Room,
    /// Service discovery and its counts.
    pub micro: Micro,
    /// Addresses that spilled requests may be answered to.
    pub replies: ReplyPrefixes,
    /// Deadlines of requests that name none.
    pub times: RpcTimes,
    /// Counts spills and refusals.
    pub metrics: Metrics,
    /// Ends intake.
    pub stop: CancellationToken,
}

/// Keeps one door open per served model until stopped; returns when all are drained.
pub async fn run(
    doors: Doors,
    mut serving: watch::Receiver<Serving>,
    deliveries: mpsc::Sender<Delivery>,
) {
    let mut open: HashMap<ModelName, CancellationToken> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let models = ready_models(&serving.borrow_and_update());
        open.retain(|model, close| {
            let keep = models.contains(model);
            if !keep {
                close.cancel();
            }
            keep
        });
        for model in models {
            let close = doors.stop.child_token();
            if let std::collections::hash_map::Entry::Vacant(entry) = open.entry(model) {
                let model = entry.key().clone();
                tasks.spawn(doors.clone().door(model, close.clone(), deliveries.clone()));
                entry.insert(close);
            }
        }
        tokio::select! {
            () = doors.stop.cancelled() => break,
            changed = serving.changed() => if changed.is_err() { break },
            Some(_) = tasks.join_next() => {}
        }
    }
    drop(deliveries);
    while tasks.join_next().await.is_some() {}
}

/// What one open door works with.
struct Inside {
    model: ModelName,
    deliveries: mpsc::Sender<Delivery>,
    spills: JoinSet<()>,
    /// Its place in the queue group; none while it stays away.
    member: Option<Member>,
    saturation: Saturation,
}

impl Doors {
    async fn door(
        self,
        model: ModelName,
        close: CancellationToken,
        deliveries: mpsc::Sender<Delivery>,
    ) {
        let mut inside = Inside {
            model: model.clone(),
            deliveries,
            spills: JoinSet::new(),
            member: None,
            saturation: Saturation::new(),
        };
        if !self.enter(&mut inside).await {
            return;
        }
        self.micro.add(&model, self.ledger.subjects().rpc(&model));
        loop {
            tokio::select! {
                biased;
                () = close.cancelled() => break,
                // Before requests, of which there is always one while this matters.
                () = inside.saturation.next_look() => {
                    if !self.look(&mut inside).await {
                        break;
                    }
                }
                request = next(&mut inside.member) => match request {
                    Some(request) => self.take(&mut inside, request).await,
                    None => break,
                },
            }
        }
        self.leave(&mut inside).await;
        while inside.spills.join_next().await.is_some() {}
        self.micro.remove(&model);
        self.metrics.rpc_away(&model, false);
        info!(%model, "RPC door closed");
    }

    /// Takes a place in the queue group; false if the connection is closed for good.
    async fn enter(&self, inside: &mut Inside) -> bool {
        let subject = self.ledger.subjects().rpc(&inside.model);
        match Member::join(self.ledger.client(), subject).await {
            Ok(member) => {
                inside.member = Some(member);
                true
            }
            Err(error) => {
                warn!(%error, model = %inside.model, "RPC door not opened");
                false
            }
        }
    }

    /// Leaves the queue group and takes in what was on its way.
    async fn leave(&self, inside: &mut Inside) {
        let Some(member) = inside.member.take() else {
            return;
        };
        match member.leave(&self.ledger).await {
            Ok(mut last) => {
                while let Some(request) = last.next().await {
                    self.take(inside, request).await;
                }
            }
            Err(error) => {
                warn!(%error, model = %inside.model, "could not leave the RPC queue group")
            }
        }
    }

    /// Leaves the group or comes back to it, if it is time to; false if the connection is closed.
    async fn look(&self, inside: &mut Inside) -> bool {
        let model = inside.model.clone();
        match inside.saturation.look(self.room.for_calls(&model)) {
            Move::Stay => {
                if inside.saturation.is_away() {
                    // Nobody is turned away while nobody is heard, and yet room has to be made.
                    self.room.calls_wait(&model);
                }
                true
            }
            Move::Leave => {
                self.leave(inside).await;
                self.metrics.rpc_away(&model, true);
                info!(%model, "no room for requests: their queue group is left until there is some");
                true
            }
            Move::Return => {
                self.metrics.rpc_away(&model, false);
                info!(%model, "room for requests again");
                self.enter(inside).await
            }
        }
    }

    async fn take(&self, inside: &mut Inside, request: Message) {
        let model = &inside.model;
        let Some(reply) = request.reply.clone() else {
            debug!(%model, "a request without reply address was dropped: nobody could hear the answer");
            return;
        };
        let Some(hold) = self.room.try_call(model, request.payload.len()) else {
            inside.saturation.turned_away();
            while inside.spills.try_join_next().is_some() {}
            let many = inside.spills.len() >= MOST_SPILLS;
            let (doors, model) = (self.clone(), model.clone());
            let spill = async move { doors.spill(&model, request, &reply).await };
            if many {
                // Waiting here is what slows the door down to what the queue can take.
                spill.await;
            } else {
                inside.spills.spawn(spill);
            }
            return;
        };
        let delivery = Delivery {
            hold,
            origin: Origin::Rpc {
                reply: reply.to_string(),
            },
            model: model.clone(),
            lane: Lane::High,
            headers: request.headers.unwrap_or_default(),
            body: request.payload,
            received: Instant::now(),
            called_off: false,
        };
        if inside.deliveries.send(delivery).await.is_err() {
            debug!("the pipeline has ended, the caller hears nothing");
        }
    }
}

/// The next request; none ever comes to who is not in the group.
async fn next(member: &mut Option<Member>) -> Option<Message> {
    match member {
        Some(member) => member.next().await,
        None => std::future::pending().await,
    }
}
