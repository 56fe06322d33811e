//! Chunks out and answers back: as many in flight as the window holds, and handed on in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    chunks::Chunks,
    commit::{Committer, Scored},
    error::ScoreError,
    folder::RunFolder,
    intake::{Chunk, Intake},
    limits::Pace,
    progress::{Phase, Progress, Throughput},
    table::Layout,
};
use crate::size::ByteSize;

/// Chunks read ahead of what is sent.
const READ_AHEAD: usize = 2;

/// Chunks that are sent before any has come back.
const FIRST: usize = 8;

/// How a run is to go.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) chunks: Arc<Chunks>,
    pub(super) layout: Arc<Layout>,
    /// The only numeric class allowed; `None` for any.
    pub(super) device: Option<String>,
    pub(super) window: ByteSize,
    pub(super) ordered: bool,
    pub(super) pace: Option<Pace>,
}

/// Everything between the reader and the committer.
#[derive(Debug)]
pub(super) struct Line<'a> {
    terms: Terms,
    progress: &'a watch::Sender<Progress>,
    /// Chunks that are kept since before.
    done: BTreeSet<u64>,
    /// Back, and waiting for those before them.
    back: BTreeMap<u64, (Scored, usize)>,
    /// The chunk that is handed on next.
    next: u64,
    /// Bytes of what is in flight or back.
    held: usize,
    /// Chunks that came back.
    came_back: usize,
    last_failure: String,
    throughput: Throughput,
}

/// A chunk that came back, and the bytes it held.
struct Back {
    scored: Scored,
    bytes: usize,
    /// Time of one executor it was taken to need.
    taken: Duration,
    last_failure: Option<String>,
}

impl<'a> Line<'a> {
    pub(super) fn new(
        terms: Terms,
        folder: &RunFolder,
        progress: &'a watch::Sender<Progress>,
    ) -> Self {
        let before = folder.total();
        progress.send_replace(Progress {
            phase: Phase::Scoring,
            rows: before.rows,
            rows_before: before.rows,
            errors: before.errors,
            compute: Duration::from_micros(before.compute_us),
            cache_hits: before.cache_hits,
            ..Progress::default()
        });
        Self {
            terms,
            progress,
            done: before.chunks.into_iter().collect(),
            back: BTreeMap::new(),
            next: 0,
            held: 0,
            came_back: 0,
            last_failure: "before the run was resumed".to_owned(),
            throughput: Throughput::new(),
        }
    }

    /// Scores what `intake` reads into `folder`.
    ///
    /// # Errors
    /// [`ScoreError::Stopped`] when `stop` says so; else what ended the run. What came back before is kept.
    pub(super) async fn run(
        mut self,
        intake: Intake,
        folder: RunFolder,
        stop: watch::Receiver<bool>,
    ) -> Result<(RunFolder, Vec<(Duration, u64)>), ScoreError> {
        let committer = Committer::start(folder);
        let (sender, chunks) = mpsc::channel(READ_AHEAD);
        let reader = tokio::task::spawn_blocking(move || intake.run(&sender));
        let ended = self.flow(chunks, &committer, stop).await;
        // Whatever ended it, what came back is kept.
        let folder = committer.finish().await?;
        let stopped = ended?;
        reader
            .await
            .map_err(|_| ScoreError::Panicked("the thread that reads the input"))?;
        if stopped {
            return Err(ScoreError::Stopped {
                rows: folder.total().rows,
            });
        }
        let rows = self.progress.borrow().rows - self.progress.borrow().rows_before;
        Ok((folder, self.throughput.end(rows)))
    }

    /// Whether it was stopped before the input ended.
    async fn flow(
        &mut self,
        chunks: mpsc::Receiver<Result<Chunk, ScoreError>>,
        committer: &Committer,
        mut stop: watch::Receiver<bool>,
    ) -> Result<bool, ScoreError> {
        let mut chunks = Some(chunks);
        let mut stopped = false;
        let mut flights: JoinSet<Result<Back, ScoreError>> = JoinSet::new();
        loop {
            let has_room = self.has_room(flights.len());
            let pause = self.pause();
            tokio::select! {
                biased;
                Some(ended) = flights.join_next() => {
                    let back = ended.map_err(|_| ScoreError::Panicked("the task of a chunk"))?;
                    self.take(back?, committer).await?;
                }
                asked = stop.wait_for(|stop| *stop), if chunks.is_some() => {
                    stopped = asked.is_ok();
                    chunks = None;
                }
                () = tokio::time::sleep(pause), if chunks.is_some() && has_room && !pause.is_zero() => {}
                next = next(&mut chunks), if chunks.is_some() && has_room && pause.is_zero() => match next {
                    Some(chunk) => self.send(chunk?, &mut flights)?,
                    None => chunks = None,
                },
                else => {
                    if !stopped {
                        // A run that is resumed may have had too many before, and nothing left to send.
                        self.check_errors()?;
                    }
                    return Ok(stopped);
                }
            }
        }
    }

    /// One more chunk is let out for each that came back, until the window is full: a worker that is handed all
    /// of it at once has its connection full of it, and other jobs wait behind.
    fn has_room(&self, in_flight: usize) -> bool {
        let window = usize::try_from(self.terms.window.as_u64()).unwrap_or(usize::MAX);
        self.held < window && in_flight < FIRST + self.came_back
    }

    fn pause(&self) -> Duration {
        let pace = self.terms.pace.as_ref();
        pace.map_or(Duration::ZERO, |pace| pace.wait(Instant::now()))
    }

    fn send(
        &mut self,
        chunk: Chunk,
        flights: &mut JoinSet<Result<Back, ScoreError>>,
    ) -> Result<(), ScoreError> {
        let bytes = chunk.bytes();
        let rows = chunk.rows().num_rows() as u64;
        self.held += bytes;
        if let Some(problem) = chunk.problems.last() {
            self.last_failure = format!("row {}: {}", problem.row, problem.message);
        }
        let unreadable = chunk.problems.len() as u64;
        // In this order: those of many rows must not look like those of a few.
        let all = &self.terms.chunks;
        all.rows_read.fetch_add(rows, Ordering::AcqRel);
        all.failed.fetch_add(unreadable, Ordering::AcqRel);
        self.check_errors()?;
        self.progress.send_modify(|progress| {
            progress.rows_in_flight += rows;
            progress.read = chunk.read;
        });
        let (chunks, layout) = (
            Arc::clone(&self.terms.chunks),
            Arc::clone(&self.terms.layout),
        );
        let pace = self.terms.pace.as_mut();
        let taken = pace.map_or(Duration::ZERO, |pace| pace.send(rows, Instant::now()));
        let device = self.terms.device.clone();
        flights.spawn(async move {
            let mut chunk = chunk;
            let tensors = std::mem::take(&mut chunk.tensors);
            let answered = chunks.score(chunk.index, tensors).await?;
            if let Some(was) = device {
                answered.check_device(chunk.index, &was)?;
            }
            let last_failure = answered.failed.last().map(|(row, failure)| {
                let row = chunk.records.first_row + chunk.good[*row] as u64;
                format!("row {row}: {failure}")
            });
            Ok(Back {
                scored: layout.join(chunk, answered)?,
                bytes,
                taken,
                last_failure,
            })
        });
        Ok(())
    }

    /// Takes a chunk back and hands on what is next.
    async fn take(&mut self, back: Back, committer: &Committer) -> Result<(), ScoreError> {
        let Back {
            scored,
            bytes,
            taken,
            last_failure,
        } = back;
        self.came_back += 1;
        let rows = scored.batch.num_rows() as u64;
        if let Some(pace) = &mut self.terms.pace {
            pace.came_back(rows, taken, scored.compute);
        }
        if let Some(failure) = last_failure {
            self.last_failure = failure;
        }
        self.progress.send_modify(|progress| {
            progress.rows += rows;
            progress.rows_in_flight -= rows;
            progress.errors += scored.errors.len() as u64;
            progress.compute += scored.compute;
            progress.cache_hits += scored.cache_hits;
        });
        let done = self.progress.borrow().rows - self.progress.borrow().rows_before;
        self.throughput.note(done);
        if !self.terms.ordered {
            self.held -= bytes;
            keep(scored, committer).await?;
        } else {
            self.back.insert(scored.index, (scored, bytes));
            loop {
                while self.done.contains(&self.next) {
                    self.next += 1;
                }
                let Some((scored, bytes)) = self.back.remove(&self.next) else {
                    break;
                };
                self.next += 1;
                self.held -= bytes;
                keep(scored, committer).await?;
            }
        }
        self.check_errors()
    }

    fn check_errors(&self) -> Result<(), ScoreError> {
        let last = || self.last_failure.clone();
        self.terms.chunks.check_errors(last)
    }
}

/// A committer that has ended says why when it is asked to finish, which is what comes next.
async fn keep(scored: Scored, committer: &Committer) -> Result<(), ScoreError> {
    if committer.keep(scored).await {
        Ok(())
    } else {
        Err(ScoreError::Panicked(
            "the thread that keeps finished chunks",
        ))
    }
}

async fn next(
    chunks: &mut Option<mpsc::Receiver<Result<Chunk, ScoreError>>>,
) -> Option<Result<Chunk, ScoreError>> {
    match chunks {
        Some(chunks) => chunks.recv().await,
        None => None,
    }
}
