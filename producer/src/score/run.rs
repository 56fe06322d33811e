//! A run from its beginning to its output.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use inferq_schemas::{JobId, Tensor};
use tokio::sync::watch;

use super::{
    chunks::{Answered, Chunks, rows_of},
    error::ScoreError,
    finish::finish,
    folder::{Manifest, RunFolder},
    intake::Intake,
    limits::Pace,
    line::{Line, Terms},
    options::ScoreOptions,
    place::Place,
    prepare::prepare,
    progress::{Phase, Progress, Summary},
    size::{RowCost, chunk_rows, row_bytes},
    table::Layout,
    target::{self, Served},
};
use crate::{blobs::inline_limit, client::Client};

/// Rows of the first of the jobs that are sent before the run, to see what rows cost and give. Each further one has
/// [`MORE`] times as many.
const FEW: usize = 4;
const MORE: usize = 4;
/// More rows are tried only if that is likely to take no longer: nothing else runs meanwhile.
const PROBE_TAKES: Duration = Duration::from_millis(100);

/// Scores a table with a model, through the queue.
///
/// Rows are sent as jobs on lane `low` and come back in their order. What is finished is on disk, so that a
/// run that was interrupted, whoever was killed, goes on where it was ([`Begin::Resume`](super::Begin)).
///
/// ```no_run
/// # async fn example(client: inferq::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use inferq::score::{Score, ScoreOptions};
///
/// let options = ScoreOptions::new("digits".parse()?, ["held_out.csv"], "scored.parquet");
/// let summary = Score::new(options).run(&client).await?;
/// println!("{} rows, {} failed", summary.rows, summary.errors);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Score {
    options: ScoreOptions,
    progress: watch::Sender<Progress>,
    stop: Arc<watch::Sender<bool>>,
}

/// Stops a run from elsewhere.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<watch::Sender<bool>>);

impl Stopper {
    /// Nothing more is sent; what is in flight is finished and kept. The run ends with
    /// [`ScoreError::Stopped`].
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Score {
    /// A run that has not begun.
    pub fn new(options: ScoreOptions) -> Self {
        Self {
            options,
            progress: watch::Sender::new(Progress::default()),
            stop: Arc::new(watch::Sender::new(false)),
        }
    }

    /// How far the run is, always the newest.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// What stops the run.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Scores everything and writes the output.
    ///
    /// Dropping the future stops at once; the run can be resumed as after a crash.
    ///
    /// # Errors
    /// [`ScoreError`]. What was finished by then is kept beside the output, except for standard output.
    pub async fn run(self, client: &Client) -> Result<Summary, ScoreError> {
        let began = Instant::now();
        let options = &self.options;
        let place = Place::of(options)?;
        let unfinished = place.unfinished(options.begin)?;
        let workers = client.workers().await?;
        let served = target::find(&workers, &options.model, options.version)?;
        target::check_outputs(&served, &options.model, &options.outputs)?;
        let prepared = {
            let (options, served) = (options.clone(), served.clone());
            let open = move || prepare(&options, &served);
            in_thread("the thread that opens the input", open).await??
        };
        if let Some(folder) = &unfinished {
            let was = &folder.manifest().fingerprint;
            let differences = was.differences(&prepared.fingerprint);
            if !differences.is_empty() {
                return Err(place.changed(differences));
            }
        }
        let chunks = Arc::new(self.chunks(client, &served, unfinished.as_ref()));
        let probe = probe(&chunks, &prepared.tried).await?;
        let layout = Layout::of(prepared.kept.clone(), &probe)?;
        let folder = match unfinished {
            Some(folder) => folder,
            None => place.begin(Manifest {
                run: chunks.run.clone(),
                chunk_rows: self.chunk_rows(client, &served, &prepared.tried, &probe),
                device: probe.device(),
                fingerprint: prepared.fingerprint,
            })?,
        };
        // What the probe found is found again where its rows are.
        let before = folder.total();
        chunks.failed.store(before.errors, Ordering::Release);
        chunks.rows_read.store(before.rows, Ordering::Release);
        let line = Line::new(
            Terms {
                chunks,
                layout: Arc::new(layout),
                device: (!options.allow_mixed).then(|| folder.manifest().device.clone()),
                window: options.window,
                ordered: options.ordered,
                pace: options.max_share.map(|share| {
                    Pace::new(share, served.executors, probe.row_takes(), Instant::now())
                }),
            },
            &folder,
            &self.progress,
        );
        let intake = Intake {
            reader: prepared.reader,
            mapping: prepared.mapping,
            kept: prepared.kept,
            chunk_rows: folder.manifest().chunk_rows,
            done: before.chunks.into_iter().collect(),
        };
        let (folder, throughput) = line.run(intake, folder, self.stop.subscribe()).await?;
        self.progress
            .send_modify(|progress| progress.phase = Phase::Writing);
        let finished = in_thread("the thread that writes the output", move || {
            finish(folder, &place)
        });
        let finished = finished.await??;
        Ok(Summary {
            output: finished.output,
            errors_at: finished.errors_at,
            version: served.version,
            device: finished.device,
            rows: finished.rows,
            errors: finished.errors,
            chunks: finished.chunks,
            chunk_rows: finished.chunk_rows,
            took: began.elapsed(),
            compute: finished.compute,
            cache_hits: finished.cache_hits,
            throughput,
            look: finished.look,
            notes: prepared.notes,
        })
    }

    fn chunks(&self, client: &Client, served: &Served, unfinished: Option<&RunFolder>) -> Chunks {
        let run = match unfinished {
            Some(folder) => folder.manifest().run.clone(),
            None => JobId::random().to_string(),
        };
        Chunks {
            client: client.clone(),
            run,
            model: self.options.model.clone(),
            version: served.version,
            outputs: self.options.outputs.clone(),
            cache: self.options.cache,
            resumed: unfinished.is_some(),
            max_errors: self.options.max_errors,
            failed: 0.into(),
            rows_read: 0.into(),
        }
    }

    fn chunk_rows(
        &self,
        client: &Client,
        served: &Served,
        sample: &[Tensor],
        probe: &Answered,
    ) -> usize {
        if !served.takes_many_rows {
            return 1;
        }
        if let Some(rows) = self.options.chunk_rows {
            return rows.get();
        }
        let pieces = probe.pieces.first();
        let cost = RowCost {
            input_bytes: row_bytes(sample),
            output_bytes: pieces.map_or(0, |(_, outputs)| row_bytes(outputs)),
            compute: probe.row_takes(),
        };
        let limit = inline_limit(client.inner.nats.max_payload());
        chunk_rows(cost, limit, self.options.max_share.is_some())
    }
}

/// Scores a few of `rows`, and more where they are cheap, since a row costs less the more of them run together.
async fn probe(chunks: &Arc<Chunks>, rows: &[Tensor]) -> Result<Answered, ScoreError> {
    let all = rows.first().map_or(0, Tensor::rows);
    let mut some = FEW.min(all);
    // Numbers that no chunk has, one for each: a part of one must not pass for another.
    let mut number = u64::MAX;
    loop {
        let answered = chunks.score(number, rows_of(rows, 0..some)).await?;
        let next = answered.compute.saturating_mul(MORE as u32);
        if some == all || next > PROBE_TAKES {
            return Ok(answered);
        }
        some = all.min(some * MORE);
        number -= 1;
    }
}

/// Runs what blocks beside what must not wait.
async fn in_thread<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ScoreError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|_| ScoreError::Panicked(name))
}
