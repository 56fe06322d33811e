//! Every instrument of the worker, declared once with its unit and meaning, and read twice: at `/metrics` by
//! Prometheus, and through OTLP by a collector.
//!
//! Names begin with `inferq_`, units are seconds and bytes, labels come from the closed sets in `metrics/labels.rs`
//! (and the names of models served).

mod instrument;
mod labels;

use std::sync::Arc;
use std::time::Duration;

use inferq_schemas::ModelName;
use prometheus_client::registry::{Registry, Unit};

use instrument::{Counter, Declare, Gauge, Histogram, ROWS, SECONDS, Value};
pub use labels::{
    CloseReason, Door, DropReason, EngineFailure, LookupResult, OutcomeLabel, SweepReason, Tier,
};

/// All instruments; cloning shares them.
#[derive(Clone)]
pub struct Metrics(Arc<Instruments>);

struct Instruments {
    registry: Registry,
    jobs: Counter<3>,
    queue: Histogram<1>,
    batch: Histogram<1>,
    compute: Histogram<1>,
    publish: Histogram<1>,
    job: Histogram<1>,
    batch_rows: Histogram<1>,
    batch_close: Counter<1>,
    cache_lookups: Counter<2>,
    cache_shared: Counter<0>,
    cache_dropped_writes: Counter<1>,
    redeliveries: Counter<1>,
    suspects: Counter<1>,
    dead_letters: Counter<1>,
    commit_retries: Counter<0>,
    id_conflicts: Counter<0>,
    cancellations: Counter<1>,
    events_lost: Counter<0>,
    rpc_spilled: Counter<0>,
    rpc_refused: Counter<0>,
    rpc_away: Gauge<1>,
    inflight_jobs: Gauge<0>,
    inflight_bytes: Gauge<0>,
    models_loaded: Gauge<1>,
    model_bytes: Gauge<1>,
    model_load_failures: Counter<1>,
    engine_failures: Counter<1>,
    stuck_threads: Gauge<0>,
    gpu_fallbacks: Counter<1>,
    swept: Counter<1>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Declares everything. Exports to the meter provider that `telemetry::start` installed, so call that first.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("inferq");
        let declare = &mut Declare {
            registry: &mut registry,
            meter: opentelemetry::global::meter("inferq-worker"),
        };
        let seconds = || (Some(Unit::Seconds), SECONDS);
        let jobs = declare.counter(
            "jobs",
            "Jobs this worker was done with, by model, door and outcome",
        );
        let queue = declare.histogram(
            "queue",
            "From publishing an answered job to its receipt here, by two clocks; 0 for requests",
            seconds(),
        );
        let batch = declare.histogram(
            "batch",
            "From the batch stage's receipt of rows to the start of their forward pass",
            seconds(),
        );
        let compute = declare.histogram("compute", "Forward passes", seconds());
        let publish = declare.histogram(
            "publish",
            "From the decision on a job to its acknowledgement",
            seconds(),
        );
        let job = declare.histogram("job", "From receipt of a job to its end", seconds());
        let batch_rows = declare.histogram("batch_rows", "Rows in one forward pass", (None, ROWS));
        let batch_close = declare.counter("batch_close", "Batches, by the reason they left");
        let cache_lookups = declare.counter(
            "cache_lookups",
            "Keys looked up, by tier and result; an error is a miss",
        );
        let cache_shared = declare.counter(
            "cache_shared",
            "Jobs or rows answered by an equal one that was running",
        );
        let cache_dropped_writes = declare.counter(
            "cache_dropped_writes",
            "Answers not written to the shared cache",
        );
        let redeliveries = declare.counter(
            "redeliveries",
            "Deliveries of a job that had been delivered before",
        );
        let suspects = declare.counter(
            "suspects",
            "Jobs run alone in this process, since two deliveries of them were not finished",
        );
        let dead_letters = declare.counter("dead_letters", "Dead letters written");
        let commit_retries = declare.counter(
            "commit_retries",
            "Steps of a settlement repeated for want of an answer",
        );
        let id_conflicts = declare.counter("id_conflicts", "Jobs whose id belongs to another body");
        let cancellations = declare.counter(
            "cancellations",
            "Cancellations this worker answered, by the outcome that stood then",
        );
        let events_lost = declare.counter(
            "events_lost",
            "Events of jobs that the connection did not take at once",
        );
        let rpc_spilled = declare.counter(
            "rpc_spilled",
            "RPC requests passed on to the queue for want of room",
        );
        let rpc_refused = declare.counter(
            "rpc_refused",
            "RPC requests answered 429 or 503 for want of room",
        );
        let rpc_away = declare.gauge(
            "rpc_away",
            "1 while the RPC queue group of the model is left for want of room",
            None,
        );
        let inflight_jobs = declare.gauge("inflight_jobs", "Jobs held by this worker", None);
        let inflight_bytes = declare.gauge(
            "inflight",
            "Bytes of the bodies of jobs held by this worker",
            Some(Unit::Bytes),
        );
        let models_loaded = declare.gauge("models_loaded", "Versions loaded, by model", None);
        let model_bytes = declare.gauge(
            "model",
            "Memory of the constants of a model's loaded versions",
            Some(Unit::Bytes),
        );
        let model_load_failures = declare.counter(
            "model_load_failures",
            "Versions that did not load, by model",
        );
        let engine_failures = declare.counter("engine_failures", "Failed forward passes, by kind");
        let stuck_threads = declare.gauge(
            "stuck_threads",
            "Executor threads whose forward pass has passed its time and not come back",
            None,
        );
        let gpu_fallbacks = declare.counter(
            "gpu_fallbacks",
            "Dense parts of forward passes that a card gave no result for and the CPU computed",
        );
        let swept = declare.counter("swept", "Jobs the sweeper ended, by reason");
        Self(Arc::new(Instruments {
            registry,
            jobs,
            queue,
            batch,
            compute,
            publish,
            job,
            batch_rows,
            batch_close,
            cache_lookups,
            cache_shared,
            cache_dropped_writes,
            redeliveries,
            suspects,
            dead_letters,
            commit_retries,
            id_conflicts,
            cancellations,
            events_lost,
            rpc_spilled,
            rpc_refused,
            rpc_away,
            inflight_jobs,
            inflight_bytes,
            models_loaded,
            model_bytes,
            model_load_failures,
            engine_failures,
            stuck_threads,
            gpu_fallbacks,
            swept,
        }))
    }

    /// The text Prometheus reads.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0.registry)
            .expect("writing to a string does not fail");
        text
    }

    /// A job left this worker; `total` counts from its receipt.
    pub fn job_done(&self, model: &ModelName, door: Door, outcome: OutcomeLabel, total: Duration) {
        let (door, outcome) = (Value::Word(door.as_str()), Value::Word(outcome.as_str()));
        self.0.jobs.add(
            [("model", name(model)), ("door", door), ("outcome", outcome)],
            1,
        );
        self.0.job.seconds(of(model), total);
    }

    /// A job waited this long in the queue before it came here.
    pub fn queue_wait(&self, model: &ModelName, wait: Duration) {
        self.0.queue.seconds(of(model), wait);
    }

    /// A job waited this long here before its forward pass began.
    pub fn batch_wait(&self, model: &ModelName, wait: Duration) {
        self.0.batch.seconds(of(model), wait);
    }

    /// A forward pass of `rows` rows took `compute`.
    pub fn batch(&self, model: &ModelName, rows: usize, compute: Duration, close: CloseReason) {
        self.0.compute.seconds(of(model), compute);
        self.0.batch_rows.observe(of(model), rows as f64);
        self.0
            .batch_close
            .add([("reason", Value::Word(close.as_str()))], 1);
    }

    /// A job's outcome, reply and acknowledgement took this long.
    pub fn published(&self, model: &ModelName, time: Duration) {
        self.0.publish.seconds(of(model), time);
    }

    /// A cache tier was asked for `keys` keys and said this.
    pub fn cache_lookups(&self, tier: Tier, result: LookupResult, keys: usize) {
        if keys > 0 {
            let labels = [
                ("tier", Value::Word(tier.as_str())),
                ("result", Value::Word(result.as_str())),
            ];
            self.0.cache_lookups.add(labels, keys as u64);
        }
    }

    /// A job or row got the answer of an equal one that was running.
    pub fn cache_shared(&self, count: usize) {
        self.0.cache_shared.add([], count as u64);
    }

    /// Answers were not written to the shared cache.
    pub fn cache_dropped_writes(&self, reason: DropReason, count: usize) {
        if count > 0 {
            self.0
                .cache_dropped_writes
                .add([("reason", Value::Word(reason.as_str()))], count as u64);
        }
    }

    /// A job came that had been delivered before.
    pub fn redelivery(&self, model: &ModelName) {
        self.0.redeliveries.add(of(model), 1);
    }

    /// A job runs alone, since it may have ended the processes that ran it before.
    pub fn suspect(&self, model: &ModelName) {
        self.0.suspects.add(of(model), 1);
    }

    /// A dead letter was published.
    pub fn dead_letter(&self, model: &ModelName) {
        self.0.dead_letters.add(of(model), 1);
    }

    /// An outcome was published again because no answer came.
    pub fn commit_retried(&self) {
        self.0.commit_retries.add([], 1);
    }

    /// A job's id belongs to another body.
    pub fn id_conflict(&self) {
        self.0.id_conflicts.add([], 1);
    }

    /// A cancellation was answered with an outcome.
    pub fn cancellation(&self, stood: OutcomeLabel) {
        self.0
            .cancellations
            .add([("outcome", Value::Word(stood.as_str()))], 1);
    }

    /// An event of a job was not sent.
    pub fn event_lost(&self) {
        self.0.events_lost.add([], 1);
    }

    /// An RPC request was passed on to the queue.
    pub fn rpc_spilled(&self) {
        self.0.rpc_spilled.add([], 1);
    }

    /// An RPC request was refused for want of room.
    pub fn rpc_refused(&self) {
        self.0.rpc_refused.add([], 1);
    }

    /// The RPC queue group of `model` is left for want of room, or not any more.
    pub fn rpc_away(&self, model: &ModelName, away: bool) {
        if away {
            self.0.rpc_away.set(of(model), 1);
        } else {
            self.0.rpc_away.forget(of(model));
        }
    }

    /// So many jobs are held, with bodies of so many bytes.
    pub fn in_flight(&self, jobs: usize, bytes: usize) {
        self.0
            .inflight_jobs
            .set([], i64::try_from(jobs).unwrap_or(i64::MAX));
        self.0
            .inflight_bytes
            .set([], i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// So many versions of `model` are loaded, with so many bytes of constants.
    pub fn model_loaded(&self, model: &ModelName, versions: usize, bytes: u64) {
        if versions == 0 {
            self.0.models_loaded.forget(of(model));
            self.0.model_bytes.forget(of(model));
        } else {
            self.0
                .models_loaded
                .set(of(model), i64::try_from(versions).unwrap_or(i64::MAX));
            self.0
                .model_bytes
                .set(of(model), i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// A version of `model` did not load.
    pub fn model_load_failed(&self, model: &ModelName) {
        self.0.model_load_failures.add(of(model), 1);
    }

    /// A forward pass failed.
    pub fn engine_failure(&self, kind: EngineFailure) {
        self.0
            .engine_failures
            .add([("kind", Value::Word(kind.as_str()))], 1);
    }

    /// So many executor threads are stuck.
    pub fn stuck_threads(&self, threads: usize) {
        self.0
            .stuck_threads
            .set([], i64::try_from(threads).unwrap_or(i64::MAX));
    }

    /// A card gave no result for some dense parts of a forward pass.
    pub fn gpu_fallbacks(&self, model: &ModelName, parts: u64) {
        self.0
            .gpu_fallbacks
            .add([("model", Value::Model(model.clone()))], parts);
    }

    /// The sweeper ended a job.
    pub fn swept(&self, reason: SweepReason) {
        self.0
            .swept
            .add([("reason", Value::Word(reason.as_str()))], 1);
    }
}

fn name(model: &ModelName) -> Value {
    Value::Model(model.clone())
}

fn of(model: &ModelName) -> [(&'static str, Value); 1] {
    [("model", name(model))]
}

#[cfg(test)]
mod tests;
