//! Connects clients, loads models and joins the stages: the only place that knows all of them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use inferq_engine::LoadLimits;
use inferq_schemas::Limits;
use inferq_schemas::registry::WorkerState;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admit::{self, Admission};
use crate::app::connect::Purpose;
use crate::app::lifecycle::{supervise, watch_signals};
use crate::app::status::Status;
use crate::cache::Cache;
use crate::cancel::{Canceller, InHand};
use crate::cancelled::Tombstones;
use crate::config::{Checked, Config};
use crate::deadline::RpcTimes;
use crate::events::Events;
use crate::health::HealthServer;
use crate::hold::{Room, RoomLimits};
use crate::job::Author;
use crate::ledger::Ledger;
use crate::lookup::{self, Lookup};
use crate::metrics::Metrics;
use crate::models::Models;
use crate::models::folder::FolderSource;
use crate::models::load::onnx_loader;
use crate::presence::Presence;
use crate::pull::consumers::Serving;
use crate::pull::micro::Micro;
use crate::pull::rpc::Doors;
use crate::pull::{self, Puller};
use crate::settle::{self, Gate, Settler};
use crate::{batch, execute};

mod connect;
mod lifecycle;
mod refusals;
mod status;
mod sweeping;

type Stages = JoinSet<Result<()>>;

/// Why a worker ended in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was told to stop.
    Stopped,
    /// Its threads are stuck in forward passes that do not return: another process has to go on.
    WornOut,
}

/// Runs a worker until it is told to stop, or worn out.
///
/// # Errors
/// If it cannot start, or a stage ends before anyone asked it to.
pub async fn run(config: Config, checked: Checked) -> Result<Ending> {
    let stop = CancellationToken::new();
    watch_signals(stop.clone())?;
    let metrics = Metrics::new();
    let connect =
        |purpose| connect::connect(&config.connection, &checked.worker_id, purpose, &stop);
    let Some(client) = connect(Purpose::Jobs).await? else {
        return Ok(Ending::Stopped);
    };
    let ledger = Ledger::new(client, checked.subjects.clone());
    let Some(client) = connect(Purpose::Calls).await? else {
        return Ok(Ending::Stopped);
    };
    let calls = ledger.over(client);
    let models = Models::new();
    let limits = LoadLimits {
        gpu: config.gpu.open()?,
        ..LoadLimits::default()
    };
    let folder = FolderSource {
        folder: config.models.models.clone(),
        serve: checked.serve.clone(),
        loader: onnx_loader(limits),
        metrics: metrics.clone(),
    };
    let _watching = folder
        .watch(models.clone())
        .context("the models folder cannot be watched")?;
    let worker = Worker {
        config,
        checked,
        ledger,
        calls,
        models,
        metrics,
        stop: stop.clone(),
        worn_out: CancellationToken::new(),
    };
    let (mut stages, room, background) = worker.start().await?;
    let grace = worker.config.lifecycle.drain_grace;
    let drained = supervise(&mut stages, stop, &worker.worn_out, grace).await;
    worker.give_back(&room).await;
    background.end().await;
    drained.map(|()| match worker.worn_out.is_cancelled() {
        true => Ending::WornOut,
        false => Ending::Stopped,
    })
}

struct Worker {
    config: Config,
    checked: Checked,
    ledger: Ledger,
    /// The same for calls.
    calls: Ledger,
    models: Models,
    metrics: Metrics,
    stop: CancellationToken,
    /// Cancelled when another process should take the place of this one.
    worn_out: CancellationToken,
}

/// Tasks beside the pipeline: they end after it.
struct Background {
    tasks: JoinSet<()>,
    ended: CancellationToken,
}

impl Background {
    async fn end(mut self) {
        self.ended.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(2), all)
            .await
            .is_err()
        {
            warn!("background tasks did not end in time");
        }
    }
}

impl Worker {
    async fn start(&self) -> Result<(Stages, Room, Background)> {
        let executors = self.config.intake.executors.get();
        let limits = RoomLimits {
            rows: 2 * self.config.batch.max_batch_rows.get() * executors,
            bytes: usize::try_from(self.config.intake.max_inflight_bytes.0).unwrap_or(usize::MAX),
        };
        let room = Room::new(limits, self.metrics.clone());
        let author = Author {
            worker: self.checked.worker_id.as_str().into(),
        };
        let micro = Micro::new(&self.checked.worker_id);
        let gate = Gate::new();
        let jobs_done = Arc::new(AtomicU64::new(0));
        let tombstones = Tombstones::default();
        let in_hand = InHand::default();
        let (serving, served) = watch::channel(Serving::default());
        let absent = Arc::new(Notify::new());
        let ended = CancellationToken::new();

        // Room bounds what is inside, so no channel needs to be longer than the room.
        let (deliveries_in, deliveries) = mpsc::channel(limits.rows);
        let (admitted_in, admitted) = mpsc::channel(limits.rows);
        let (work_in, work) = mpsc::channel(limits.rows);
        let (idle_in, idle) = mpsc::channel(executors);
        let (finished_in, finished) = mpsc::channel(limits.rows);

        let mut stages = Stages::new();
        let puller = Puller {
            ledger: self.ledger.clone(),
            room: room.clone(),
            serving: served.clone(),
            absent: absent.clone(),
            gate: gate.clone(),
            in_hand: in_hand.clone(),
            tombstones: tombstones.clone(),
            metrics: self.metrics.clone(),
            stop: self.stop.clone(),
        };
        stages.spawn(pull::run(puller, deliveries_in.clone()));
        let doors = Doors {
            ledger: self.calls.clone(),
            room: room.clone(),
            micro: micro.clone(),
            replies: self.checked.replies.clone(),
            times: RpcTimes {
                default: self.config.intake.rpc_timeout,
            },
            metrics: self.metrics.clone(),
            stop: self.stop.clone(),
        };
        stages.spawn(ends(pull::rpc::run(doors, served.clone(), deliveries_in)));
        let admission = Arc::new(Admission {
            ledger: self.ledger.clone(),
            models: self.models.clone(),
            tombstones: tombstones.clone(),
            in_hand: in_hand.clone(),
            replies: self.checked.replies.clone(),
            limits: Limits::default(),
            rpc_times: RpcTimes {
                default: self.config.intake.rpc_timeout,
            },
            author: author.clone(),
            events: Events::new(self.ledger.clone(), author.clone(), self.metrics.clone()),
        });
        stages.spawn(ends(admit::run(
            deliveries,
            admission.clone(),
            admitted_in,
            finished_in.clone(),
        )));
        let lookup = Lookup {
            cache: Cache::open(&self.config.cache, self.metrics.clone())?,
            flights: Default::default(),
            work: work_in,
            author: author.clone(),
            in_hand: in_hand.clone(),
            tombstones: tombstones.clone(),
            metrics: self.metrics.clone(),
        };
        stages.spawn(ends(lookup::run(admitted, lookup, finished_in)));
        stages.spawn(ends(batch::run(work, idle, self.config.batch)));
        let executors = execute::start(executors, idle_in, self.metrics.clone())
            .context("executor threads could not be started")?;
        let canceller = Canceller {
            ledger: self.ledger.clone(),
            author: author.clone(),
            in_hand,
            tombstones: tombstones.clone(),
            metrics: self.metrics.clone(),
        };
        let settler = Settler {
            ledger: self.ledger.clone(),
            calls: self.calls.clone(),
            author,
            metrics: self.metrics.clone(),
            gate: gate.clone(),
            micro: micro.clone(),
            jobs_done: jobs_done.clone(),
        };
        stages.spawn(ends(settle::run(finished, settler.clone())));

        let mut tasks = JoinSet::new();
        tasks.spawn(executors.watch(self.worn_out.clone(), ended.clone()));
        tasks.spawn(pull::keep_alive(
            self.ledger.clone(),
            room.clone(),
            ended.clone(),
        ));
        tasks.spawn(tombstones.follow(self.ledger.clone(), ended.clone()));
        let (heard, requests) = canceller
            .listen()
            .await
            .context("cancellations cannot be listened for")?;
        tasks.spawn(canceller.clone().hear(heard, ended.clone()));
        tasks.spawn(canceller.answer(requests, self.stop.clone()));
        let (discovery, client, until) = (micro, self.calls.client().clone(), self.stop.clone());
        tasks.spawn(async move {
            if let Err(error) = discovery.serve(client, until).await {
                warn!(%error, "service discovery is not answered");
            }
        });
        self.tell(&mut tasks, &room, served, jobs_done, &ended)
            .await?;
        // Last, since these end jobs or let them in: by now the server, if it answered, has told the time.
        if self.config.lifecycle.sweeper {
            let sweeper = sweeping::sweeper(
                self.checked.worker_id.clone(),
                admission,
                settler,
                room.limits(),
            );
            let stop = self.stop.clone();
            tasks.spawn(async move { sweeper.run(stop).await });
        }
        tasks.spawn(pull::consumers::watch(
            self.ledger.clone(),
            self.models.clone(),
            serving,
            absent,
            self.stop.clone(),
        ));
        Ok((stages, room, Background { tasks, ended }))
    }

    /// Starts what lets others see this worker: its HTTP port, its record, its state.
    async fn tell(
        &self,
        tasks: &mut JoinSet<()>,
        room: &Room,
        serving: watch::Receiver<Serving>,
        jobs_done: Arc<AtomicU64>,
        ended: &CancellationToken,
    ) -> Result<()> {
        let (state_in, state) = watch::channel(WorkerState::Starting);
        let http = match self.config.http.http {
            Some(address) => Some(HealthServer::bind(address).await.with_context(|| {
                format!("{address} cannot be listened on; choose another with --http, port 0 takes a free one")
            })?),
            None => None,
        };
        let status = Status {
            worker_id: self.checked.worker_id.clone(),
            started: Instant::now(),
            http: http.as_ref().map(|server| server.address().to_string()),
            executors: self.config.intake.executors.get(),
            room: room.clone(),
            models: self.models.clone(),
            serving: serving.clone(),
            state: state.clone(),
            jobs_done,
        };
        if let Some(server) = http {
            info!(address = %server.address(), "metrics and health over HTTP");
            let serving = server.serve(self.metrics.clone(), state.clone(), ended.clone());
            tasks.spawn(async move {
                if let Err(error) = serving.await {
                    warn!(%error, "the HTTP port closed");
                }
            });
        }
        let presence = Presence {
            jetstream: self.ledger.jetstream().clone(),
            bucket: self.ledger.assets().workers_kv().to_owned(),
            worker_id: self.checked.worker_id.clone(),
        };
        presence.announce(&status.record()).await;
        let ended = ended.clone();
        tasks.spawn(async move { presence.run(|| status.record(), state, ended).await });
        let connections = [&self.ledger, &self.calls].map(|ledger| ledger.client().clone());
        let stop = self.stop.clone();
        tasks.spawn(status::follow(state_in, serving, connections, stop));
        Ok(())
    }

    /// Hands back what could not be finished, and makes sure that the server has heard everything.
    async fn give_back(&self, room: &Room) {
        let unsettled = room.unsettled();
        if !unsettled.is_empty() {
            warn!(jobs = unsettled.len(), "jobs handed back unfinished");
        }
        for ack in unsettled {
            self.ledger.retry(&ack, Duration::ZERO).await;
        }
        let (jobs, calls) = tokio::join!(self.ledger.barrier(), self.calls.barrier());
        if let Err(error) = &jobs {
            warn!(%error, "the server did not confirm the last acknowledgements, some jobs may come again");
        }
        if let Err(error) = &calls {
            warn!(%error, "the server did not confirm the last answers, some callers may hear nothing");
        }
        if jobs.is_ok() && calls.is_ok() {
            info!("drained");
        }
    }
}

async fn ends(stage: impl Future<Output = ()>) -> Result<()> {
    stage.await;
    Ok(())
}
