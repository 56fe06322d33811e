//! The consumers of the models this worker serves. They belong to the models and are made by
//! `inferq`, never by a worker: here it is only looked whether they are there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use inferq_schemas::subjects::{Lane, ModelName};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::ledger::Ledger;
use crate::models::Models;

/// How often a missing consumer is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How often a known one is: somebody may have deleted it. Sooner if a request finds nobody there.
const LOOK_AFTER: Duration = Duration::from_secs(30);

/// One durable consumer that this worker pulls from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The model it belongs to.
    pub model: ModelName,
    /// Its lane.
    pub lane: Lane,
    /// The stream it reads.
    pub stream: String,
    /// Its name, `<model>__<lane>`.
    pub name: String,
}

/// All consumers that are there now.
pub type Serving = Arc<Vec<Served>>;

/// Keeps `serving` in step with `models` and with what the server has, until `stop`. `absent` tells
/// that a request for messages found nobody: a consumer is gone, or its server.
pub async fn watch(
    ledger: Ledger,
    models: Models,
    serving: watch::Sender<Serving>,
    absent: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut changes = models.changes();
    let mut found: BTreeMap<ModelName, Vec<Served>> = BTreeMap::new();
    let mut warned = Vec::new();
    loop {
        changes.mark_unchanged();
        found.retain(|model, _| models.names().contains(model));
        for model in models.names() {
            match look(&ledger, &model).await {
                Look::All(served) => {
                    if found.insert(model.clone(), served).is_none() {
                        info!(%model, "serving");
                        warned.retain(|warned| *warned != model);
                    }
                }
                Look::Missing(consumer) => {
                    found.remove(&model);
                    if !warned.contains(&model) {
                        warn!(
                            %model, consumer,
                            "model not served: its consumer is missing; run `inferq init --models DIR` with the folder that holds the model"
                        );
                        warned.push(model);
                    }
                }
                // What was there is taken to be there still: the server is away, not the consumer.
                Look::Unknown(error) => warn!(%model, error, "could not look for the consumers"),
            }
        }
        publish(&serving, &found);
        let complete = models.names().iter().all(|model| found.contains_key(model));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = pause(complete, &absent) => {}
        }
    }
}

async fn pause(complete: bool, absent: &Notify) {
    tokio::time::sleep(LOOK_AGAIN).await;
    if complete {
        // Whoever was absent before this look was found by it, or is told of again within a second.
        let rest = LOOK_AFTER.saturating_sub(LOOK_AGAIN);
        tokio::time::timeout(rest, absent.notified()).await.ok();
    }
}

/// The models whose consumers are all there.
pub fn ready_models(serving: &Serving) -> Vec<ModelName> {
    let mut names: Vec<ModelName> = serving.iter().map(|served| served.model.clone()).collect();
    names.sort();
    names.dedup();
    names
}

enum Look {
    All(Vec<Served>),
    Missing(String),
    Unknown(String),
}

async fn look(ledger: &Ledger, model: &ModelName) -> Look {
    let assets = ledger.assets();
    let mut served = Vec::new();
    for lane in Lane::ALL {
        let name = assets.consumer(model, lane);
        for stream in [assets.stream_of(lane), assets.rpc()] {
            let consumer = ledger
                .jetstream()
                .get_consumer_from_stream::<pull::Config, _, _>(&name, stream)
                .await;
            match consumer {
                Ok(_) => served.push(Served {
                    model: model.clone(),
                    lane,
                    stream: stream.to_owned(),
                    name: name.clone(),
                }),
                Err(error) if is_missing(&error) => {
                    return Look::Missing(format!("{stream}/{name}"));
                }
                Err(error) => return Look::Unknown(error.to_string()),
            }
        }
    }
    Look::All(served)
}

fn is_missing(error: &ConsumerError) -> bool {
    let codes = [ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND];
    // The client keeps the server's word in the kind of this error, not as its source.
    matches!(error.kind(), ConsumerErrorKind::JetStream(answer) if codes.contains(&answer.error_code()))
}

fn publish(serving: &watch::Sender<Serving>, found: &BTreeMap<ModelName, Vec<Served>>) {
    let now: Vec<Served> = found.values().flatten().cloned().collect();
    serving.send_if_modified(|serving| {
        let changed = **serving != now;
        if changed {
            *serving = Arc::new(now);
        }
        changed
    });
}
