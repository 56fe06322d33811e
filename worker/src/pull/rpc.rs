//! The RPC door: plain requests on `infer.rpc.<model>`, shared by all workers through a queue group.
//!
//! A request that finds no room is passed on to the queue `infer.rpcq.<model>.<lane>` with its
//! reply address and deadline, where the next worker with room takes it. On stop a door leaves the
//! group first and takes in what was already on its way, so no call is lost in a rolling restart.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, ErrorCode as NatsErrorCode};
use async_nats::{HeaderMap, Message};
use inferq_schemas::headers::{JobHeaders, names};
use inferq_schemas::identity::JobId;
use inferq_schemas::subjects::{Lane, ModelName, ReplyPrefixes};
use inferq_schemas::{ContentType, ErrorCode, Failure};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::deadline::{RpcTimes, rpc_deadline_unix_ms, unix_ms_now};
use crate::hold::Room;
use crate::job::{Delivery, Origin};
use crate::ledger::{Ledger, header_map, header_pairs, server_code};
use crate::metrics::Metrics;
use crate::pull::consumers::{Serving, ready_models};
use crate::pull::micro::{Member, Micro};

/// How long a spilled request waits for the stream's word.
const SPILL_TIMEOUT: Duration = Duration::from_millis(250);

/// Requests of one door that are passed on to the queue at the same time.
const MOST_SPILLS: usize = 64;

/// What the doors need.
#[derive(Clone)]
pub struct Doors {
    /// The connection.
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
}

impl Doors {
    async fn door(
        self,
        model: ModelName,
        close: CancellationToken,
        deliveries: mpsc::Sender<Delivery>,
    ) {
        let subject = self.ledger.subjects().rpc(&model);
        let joined = Member::join(self.ledger.client(), subject.clone()).await;
        let mut requests = match joined {
            Ok(requests) => requests,
            Err(error) => {
                warn!(%error, subject, "RPC door not opened");
                return;
            }
        };
        self.micro.add(&model, subject);
        let mut inside = Inside {
            model: model.clone(),
            deliveries,
            spills: JoinSet::new(),
        };
        loop {
            tokio::select! {
                biased;
                () = close.cancelled() => break,
                request = requests.next() => match request {
                    Some(request) => self.take(&mut inside, request).await,
                    None => break,
                },
            }
        }
        match requests.leave(&self.ledger).await {
            Ok(mut last) => {
                while let Some(request) = last.next().await {
                    self.take(&mut inside, request).await;
                }
            }
            Err(error) => warn!(%error, %model, "could not leave the RPC queue group"),
        }
        while inside.spills.join_next().await.is_some() {}
        self.micro.remove(&model);
        info!(%model, "RPC door closed");
    }

    async fn take(&self, inside: &mut Inside, request: Message) {
        let model = &inside.model;
        let Some(reply) = request.reply.clone() else {
            debug!(%model, "a request without reply address was dropped: nobody could hear the answer");
            return;
        };
        if self.room.free_jobs() == 0 || self.room.free_bytes() < request.payload.len() {
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
        }
        let delivery = Delivery {
            hold: self.room.enter(model, request.payload.len(), None),
            origin: Origin::Rpc {
                reply: reply.to_string(),
            },
            model: model.clone(),
            lane: Lane::High,
            headers: request.headers.unwrap_or_default(),
            body: request.payload,
            received: Instant::now(),
        };
        if inside.deliveries.send(delivery).await.is_err() {
            debug!("the pipeline has ended, the caller hears nothing");
        }
    }

    /// Passes a request on to the queue, or tells its caller why not.
    async fn spill(&self, model: &ModelName, request: Message, reply: &str) {
        let given = request.headers.unwrap_or_default();
        let parsed =
            JobHeaders::parse(header_pairs(&given), JobId::random(), &self.replies).headers;
        let Some(headers) = self.spill_headers(&given, &parsed, reply) else {
            self.refuse(
                reply,
                &parsed,
                ErrorCode::Overloaded,
                "all workers are busy; try again in a moment",
            )
            .await;
            return;
        };
        let subject = self
            .ledger
            .subjects()
            .queued_rpc(model, parsed.lane.unwrap_or(Lane::High));
        let publish = async {
            let ack = self
                .ledger
                .jetstream()
                .publish_with_headers(subject, headers, request.payload)
                .await?;
            ack.await
        };
        match tokio::time::timeout(SPILL_TIMEOUT, publish).await {
            Ok(Ok(_)) => self.metrics.rpc_spilled(),
            Ok(Err(error)) if is_full(&error) => {
                self.metrics.rpc_refused();
                self.refuse(
                    reply,
                    &parsed,
                    ErrorCode::Overloaded,
                    "all workers are busy and the queue is full; try again in a moment",
                )
                .await;
            }
            Ok(Err(_)) | Err(_) => {
                self.metrics.rpc_refused();
                self.refuse(
                    reply,
                    &parsed,
                    ErrorCode::Unavailable,
                    "all workers are busy and the queue does not answer; try again in a moment",
                )
                .await;
            }
        }
    }

    /// The request's own headers with the address and the deadline the queue needs, unless replies
    /// may not go to that address.
    fn spill_headers(
        &self,
        given: &HeaderMap,
        parsed: &JobHeaders,
        reply: &str,
    ) -> Option<HeaderMap> {
        self.replies.allows(reply).ok()?;
        let now = unix_ms_now();
        let deadline = rpc_deadline_unix_ms(parsed, now, self.times);
        let replaced = [names::REPLY_TO, names::DEADLINE, names::TIMEOUT];
        let mut headers = HeaderMap::new();
        for (name, value) in header_pairs(given) {
            // Those of the server would steer the stream: a repeated Nats-Msg-Id is not stored again.
            let of_server = name.to_ascii_lowercase().starts_with("nats-");
            if !of_server
                && !replaced
                    .iter()
                    .any(|replaced| name.eq_ignore_ascii_case(replaced))
            {
                headers.append(name, value);
            }
        }
        let is_id = |(name, _): (&str, &str)| name.eq_ignore_ascii_case(names::JOB_ID);
        if !header_pairs(given).any(is_id) {
            headers.insert(names::JOB_ID, parsed.id.as_str());
        }
        headers.insert(names::REPLY_TO, reply);
        headers.insert(names::DEADLINE, deadline.to_string());
        Some(headers)
    }

    async fn refuse(&self, reply: &str, asked: &JobHeaders, code: ErrorCode, message: &str) {
        let failure = Failure {
            code,
            message: message.to_owned(),
        };
        let content_type = asked.content_type.unwrap_or(ContentType::Json);
        let headers = header_map([
            (names::SERVICE_ERROR, failure.message.clone()),
            (names::SERVICE_ERROR_CODE, code.as_u16().to_string()),
            (names::CONTENT_TYPE, content_type.mime().to_owned()),
        ]);
        let sent = self
            .ledger
            .client()
            .publish_with_headers(reply.to_owned(), headers, failure.body(content_type))
            .await;
        if let Err(error) = sent {
            warn!(%error, "a refusal was not delivered");
        }
    }
}

/// Whether the stream refused a message because a limit of it, or its intake (servers from 2.11 on), is full.
fn is_full(error: &jetstream::context::PublishError) -> bool {
    const FULL: [NatsErrorCode; 2] = [NatsErrorCode(10_077), NatsErrorCode(10_167)];
    server_code(error).is_some_and(|code| FULL.contains(&code))
}
