//! Answers each job from what is known, and has only the rest computed.
//!
//! A task per job asks the cache, claims what nobody else is computing, sends that to `batch`, and
//! waits for its own rows and for those that other jobs are computing just now. Models with batch
//! proof are looked up row by row, all others as a whole. The task owns the job's deadline, and hears
//! of its cancellation: then the job ends there and then, wherever its rows are.

use std::sync::Arc;

use inferq_schemas::Parameters;
use inferq_schemas::cache_key::{CacheKey, CacheScope};
use inferq_schemas::response::{CacheUse, InferResponse, ResponseParameters};
use inferq_schemas::tensor::Tensor;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{Instrument, warn};

use crate::cache::Cache;
use crate::cancel::InHand;
use crate::cancelled::Tombstones;
use crate::clock::{millis, unix_ms_now};
use crate::deadline::passed;
use crate::disposition::JobError;
use crate::job::{Admitted, Ask, Author, Finished, Job, Origin, Verdict};
use crate::lookup::entry::CachedAnswer;
use crate::lookup::flights::{Claim, Flights};
use crate::metrics::Metrics;
use crate::models::Version;
use crate::models::settings::CacheScopeSetting;
use crate::work::{Computed, Rows, Work, devices, stack};

mod entry;
mod flights;

/// What looking up needs.
pub struct Lookup {
    /// Finished answers.
    pub cache: Cache,
    /// What is being computed.
    pub flights: Flights,
    /// Where new work goes.
    pub work: mpsc::Sender<Arc<Work>>,
    /// Writes answers.
    pub author: Author,
    /// Lets a cancellation reach the jobs in here.
    pub in_hand: InHand,
    /// Jobs that were cancelled before they came here.
    pub tombstones: Tombstones,
    /// Counts.
    pub metrics: Metrics,
}

/// Runs the stage until its input closes and every job in it is answered.
pub async fn run(
    mut admitted: mpsc::Receiver<Admitted>,
    lookup: Lookup,
    finished: mpsc::Sender<Finished>,
) {
    let lookup = Arc::new(lookup);
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            next = admitted.recv() => match next {
                Some(job) => {
                    let (lookup, finished) = (lookup.clone(), finished.clone());
                    tasks.spawn(async move {
                        if finished.send(lookup.answer(job).await).await.is_err() {
                            warn!("settlement has ended, the job comes again");
                        }
                    });
                }
                None => break,
            },
            Some(ended) = tasks.join_next() => if let Err(error) = ended {
                warn!(%error, "a lookup stopped half-way, its job comes again");
            },
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Outputs of one row, or of the whole job.
type Known = Arc<CachedAnswer>;

/// A job's outputs and where they came from.
struct Answer {
    outputs: Vec<Tensor>,
    cache: CacheUse,
    computed: Option<Computed>,
    /// Numeric class of the runs that gave it.
    device: Arc<str>,
}

impl Lookup {
    async fn answer(&self, admitted: Admitted) -> Finished {
        let Admitted {
            job,
            version,
            inputs,
            ask,
        } = admitted;
        // Within reach first, looked up after: a cancellation in between is seen by one of the two.
        let grip = self.in_hand.take(&job.headers.id);
        let result = if self.tombstones.call_off(&job.headers, &job.origin) {
            Err(JobError::Cancelled)
        } else {
            let span = job.span.clone();
            tokio::select! {
                biased;
                result = self.resolve(&job, &version, inputs, &ask).instrument(span) => result,
                () = grip.stopped() => Err(JobError::Cancelled),
                () = passed(job.deadline) => Err(JobError::Expired),
            }
        };
        match result.and_then(|answer| self.outcome(&job, &version, ask, answer)) {
            Ok(verdict) => Finished { job, verdict },
            Err(error) => self.author.conclude(job, &error),
        }
    }

    async fn resolve(
        &self,
        job: &Job,
        version: &Arc<Version>,
        inputs: Vec<Tensor>,
        ask: &Ask,
    ) -> Result<Answer, JobError> {
        let by_row = version.batching.is_ok() && !inputs.is_empty();
        let rows = inputs
            .first()
            .and_then(|input| input.shape.first())
            .copied()
            .unwrap_or(1);
        if !version.cacheable || !job.headers.cache {
            let asked = if by_row {
                Rows::Some((0..rows).collect())
            } else {
                Rows::Whole
            };
            let mut computed = self.compute(job, version, inputs, asked).await?;
            let outputs = select(std::mem::take(&mut computed.outputs), &ask.outputs);
            return Ok(Answer {
                outputs,
                cache: CacheUse::Miss,
                device: Arc::clone(&computed.device),
                computed: Some(computed),
            });
        }
        let keys = keys(job, version, &inputs, ask, by_row);
        let stored = self.cache.get_many(&version.digest, &keys).await;
        let mut known: Vec<Option<Known>> = stored
            .into_iter()
            .map(|value| {
                let answer = entry::decode(&value?)?;
                version.accepts(&answer.device).then(|| Arc::new(answer))
            })
            .collect();
        let mut last_computed = None;
        let mut shared = 0;
        while known.iter().any(Option::is_none) {
            let (mut leads, mut follows) = (Vec::new(), Vec::new());
            for (unit, _) in known
                .iter()
                .enumerate()
                .filter(|(_, known)| known.is_none())
            {
                match self.flights.claim(keys[unit]) {
                    Claim::Lead(lead) => leads.push((unit, lead)),
                    Claim::Follow(follow) => follows.push((unit, follow)),
                }
            }
            if !leads.is_empty() {
                let asked = if by_row {
                    Rows::Some(leads.iter().map(|(unit, _)| *unit).collect())
                } else {
                    Rows::Whole
                };
                let mut computed = self.compute(job, version, inputs.clone(), asked).await?;
                let outputs = select(std::mem::take(&mut computed.outputs), &ask.outputs);
                let answers = if by_row {
                    split(&outputs)
                } else {
                    vec![outputs]
                };
                if answers.len() != leads.len() {
                    // Rows left without an answer would be asked for again and again.
                    return Err(JobError::Model(format!(
                        "the model gave {} rows for {}; without batch proof switch batching off in model.toml",
                        answers.len(),
                        leads.len()
                    )));
                }
                let mut entries = Vec::with_capacity(leads.len());
                for ((unit, lead), answer) in leads.into_iter().zip(answers) {
                    let answer = Arc::new(CachedAnswer {
                        outputs: answer,
                        device: Arc::clone(&computed.device),
                    });
                    if version.accepts(&answer.device) {
                        entries.push((keys[unit], entry::encode(&answer)));
                    }
                    lead.publish(answer.clone());
                    known[unit] = Some(answer);
                }
                self.cache
                    .put_many(&version.digest, entries, version.settings.cache.ttl);
                last_computed = Some(computed);
            }
            for (unit, follow) in follows {
                // A leader that failed leaves `None`; the next round claims its place.
                if let Some(answer) = follow.wait().await {
                    known[unit] = Some(answer);
                    shared += 1;
                }
            }
        }
        self.metrics.cache_shared(shared);
        let cache = match (&last_computed, shared) {
            (Some(_), _) => CacheUse::Miss,
            (None, 0) => CacheUse::Hit,
            (None, _) => CacheUse::Shared,
        };
        let known: Vec<Known> = known.into_iter().flatten().collect();
        let device = devices(known.iter().map(|known| &known.device));
        let outputs = match known.as_slice() {
            [only] => only.outputs.clone(),
            many => stack(
                &many
                    .iter()
                    .map(|known| known.outputs.as_slice())
                    .collect::<Vec<_>>(),
            )?,
        };
        Ok(Answer {
            outputs,
            cache,
            computed: last_computed,
            device,
        })
    }

    async fn compute(
        &self,
        job: &Job,
        version: &Arc<Version>,
        inputs: Vec<Tensor>,
        rows: Rows,
    ) -> Result<Computed, JobError> {
        let terms = (job.lane, job.deadline, job.span.clone(), job.events.clone());
        let (work, answer) = Work::new(version.clone(), inputs, rows, terms);
        self.work.send(work).await.map_err(|_| JobError::Stopping)?;
        answer.await.unwrap_or(Err(JobError::Stopping))
    }

    fn outcome(
        &self,
        job: &Job,
        version: &Version,
        ask: Ask,
        answer: Answer,
    ) -> Result<Verdict, JobError> {
        let waited_in_queue = match &job.origin {
            // Two clocks are compared here, so this is no better than their agreement.
            Origin::Queue(queued) => {
                let held_ms = millis(job.received.elapsed());
                unix_ms_now()
                    .saturating_sub(queued.published_unix_ms)
                    .saturating_sub(held_ms)
                    .saturating_mul(1000)
            }
            Origin::Rpc { .. } => 0,
        };
        let computed = answer.computed.as_ref();
        let parameters = ResponseParameters {
            queue_us: waited_in_queue,
            batch_us: computed.map_or(0, |computed| micros(computed.batch_wait)),
            compute_us: computed.map_or(0, |computed| micros(computed.compute)),
            batch_rows: computed.map_or(0, |computed| computed.batch_rows as u64),
            attempt: job.attempt(),
            cache: answer.cache,
            device: answer.device.to_string(),
        };
        self.metrics.queue_wait(
            &job.model,
            std::time::Duration::from_micros(waited_in_queue),
        );
        let response = InferResponse {
            model_name: job.model.to_string(),
            model_version: version.number.to_string(),
            id: ask.id,
            parameters,
            outputs: answer.outputs,
        };
        let body = response.encode(job.content_type, ask.form)?;
        Ok(Verdict::Commit(self.author.answer(
            job,
            version.number,
            body,
        )))
    }
}

fn keys(job: &Job, version: &Version, inputs: &[Tensor], ask: &Ask, by_row: bool) -> Vec<CacheKey> {
    let settings = &version.settings.cache;
    let tenant = match settings.scope {
        CacheScopeSetting::Tenant => job.headers.tenant.as_deref(),
        CacheScopeSetting::Global => None,
    };
    let relevant = ask
        .parameters
        .iter()
        .filter(|(name, _)| settings.parameters.contains(name));
    let parameters: Parameters = relevant
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let scope = CacheScope::new(&version.digest, tenant, &ask.outputs, &parameters);
    match by_row {
        true => scope.rows(inputs),
        false => vec![scope.whole(inputs)],
    }
}

/// The outputs asked for, in the order asked for; all when nothing is.
fn select(outputs: Vec<Tensor>, asked: &[String]) -> Vec<Tensor> {
    if asked.is_empty() {
        return outputs;
    }
    asked
        .iter()
        .filter_map(|name| outputs.iter().find(|output| output.name == *name).cloned())
        .collect()
}

/// The rows of all outputs, each as tensors of one row.
fn split(outputs: &[Tensor]) -> Vec<Vec<Tensor>> {
    let mut rows: Vec<Vec<Tensor>> = Vec::new();
    for output in outputs {
        let mut shape = output.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = 1;
        }
        for (index, data) in output.split_rows().into_iter().enumerate() {
            if index == rows.len() {
                rows.push(Vec::with_capacity(outputs.len()));
            }
            rows[index].push(Tensor {
                name: output.name.clone(),
                datatype: output.datatype,
                shape: shape.clone(),
                data,
            });
        }
    }
    rows
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
