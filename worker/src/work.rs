//! What `lookup` hands to `batch` and `execute`: rows to compute, and a way back for the answer.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use inferq_schemas::subjects::Lane;
use inferq_schemas::tensor::Tensor;
use tokio::sync::oneshot;
use tracing::Span;

use crate::deadline::Deadline;
use crate::disposition::JobError;
use crate::events::Teller;
use crate::models::Version;

/// Rows of one job that nobody has computed yet.
#[derive(Debug)]
pub struct Work {
    /// The version that computes them.
    pub version: Arc<Version>,
    /// Inputs in the model's order.
    pub inputs: Vec<Tensor>,
    /// Which of their rows.
    pub rows: Rows,
    /// The lane of the job.
    pub lane: Lane,
    /// The deadline of the job.
    pub deadline: Option<Deadline>,
    /// When it reached `batch`.
    pub queued: Instant,
    /// The span of the job, which a batch links to.
    pub span: Span,
    /// Tells whoever listens that the job runs, if it asks for that.
    events: Option<Arc<Teller>>,
    collector: Mutex<Collector>,
}

/// What of the inputs is to be computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// All at once, alone: the model has no batch proof.
    Whole,
    /// These indices along axis 0, in this order.
    Some(Vec<usize>),
}

/// A finished computation.
#[derive(Debug, Clone)]
pub struct Computed {
    /// All outputs in the model's order; along axis 0 the rows asked for, in their order.
    pub outputs: Vec<Tensor>,
    /// From reaching `batch` to the start of the first run.
    pub batch_wait: Duration,
    /// Longest run that computed a part of it.
    pub compute: Duration,
    /// Rows in that run, of all jobs together.
    pub batch_rows: usize,
    /// Numeric class of the runs, all of them where they differ.
    pub device: Arc<str>,
}

/// A part of a computation: some rows out of a batch.
#[derive(Debug, Clone)]
pub struct Part {
    /// All outputs in the model's order, for the rows of the part.
    pub outputs: Vec<Tensor>,
    /// The whole run's time.
    pub compute: Duration,
    /// The whole run's rows.
    pub batch_rows: usize,
    /// When the run started.
    pub started: Instant,
    /// Numeric class of the run.
    pub device: Arc<str>,
}

#[derive(Debug)]
struct Collector {
    parts: Vec<(usize, Part)>,
    missing: usize,
    done: Option<oneshot::Sender<Result<Computed, JobError>>>,
}

impl Work {
    /// Work and the receiver of its answer.
    pub fn new(
        version: Arc<Version>,
        inputs: Vec<Tensor>,
        rows: Rows,
        (lane, deadline, span, events): (Lane, Option<Deadline>, Span, Option<Arc<Teller>>),
    ) -> (Arc<Self>, oneshot::Receiver<Result<Computed, JobError>>) {
        let (done, answer) = oneshot::channel();
        let collector = Collector {
            parts: Vec::new(),
            missing: units(&rows),
            done: Some(done),
        };
        let work = Self {
            version,
            inputs,
            rows,
            lane,
            deadline,
            queued: Instant::now(),
            span,
            events,
            collector: Mutex::new(collector),
        };
        (Arc::new(work), answer)
    }

    /// Units to compute: rows, or one for the whole.
    pub fn units(&self) -> usize {
        units(&self.rows)
    }

    /// Rows it puts into a batch, for metrics and fair shares.
    pub fn row_count(&self, range: &Range<usize>) -> usize {
        match &self.rows {
            Rows::Whole => self
                .inputs
                .first()
                .and_then(|input| input.shape.first())
                .copied()
                .unwrap_or(1),
            Rows::Some(_) => range.len(),
        }
    }

    /// Whether nobody waits for it any more: its job expired, was cancelled, or failed in another part.
    pub fn is_abandoned(&self) -> bool {
        let collector = self
            .collector
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        collector
            .done
            .as_ref()
            .is_none_or(oneshot::Sender::is_closed)
    }

    /// An executor has some of its rows.
    pub fn begun(&self) {
        if let Some(events) = &self.events
            && !self.is_abandoned()
        {
            events.running(self.version.number);
        }
    }

    /// Hands in the answer for the units from `start` on; the last part completes the work.
    pub fn deliver(&self, start: usize, units: usize, part: Part) {
        let mut collector = self
            .collector
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        collector.parts.push((start, part));
        collector.missing = collector.missing.saturating_sub(units);
        if collector.missing == 0
            && let Some(done) = collector.done.take()
        {
            let mut parts = std::mem::take(&mut collector.parts);
            drop(collector);
            parts.sort_by_key(|(start, _)| *start);
            let computed = join(
                self.queued,
                parts.into_iter().map(|(_, part)| part).collect(),
            );
            // Nobody listening means the job has ended meanwhile.
            let _ = done.send(computed);
        }
    }

    /// Ends the work without an answer.
    pub fn fail(&self, error: JobError) {
        let mut collector = self
            .collector
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(done) = collector.done.take() {
            let _ = done.send(Err(error));
        }
    }
}

fn units(rows: &Rows) -> usize {
    match rows {
        Rows::Whole => 1,
        Rows::Some(rows) => rows.len(),
    }
}

fn join(queued: Instant, mut parts: Vec<Part>) -> Result<Computed, JobError> {
    let batch_wait = parts
        .iter()
        .map(|part| part.started.saturating_duration_since(queued))
        .min()
        .unwrap_or_default();
    let longest = parts
        .iter()
        .max_by_key(|part| part.compute)
        .map(|part| (part.compute, part.batch_rows))
        .unwrap_or_default();
    let device = devices(parts.iter().map(|part| &part.device));
    let outputs = if parts.len() == 1 {
        parts.swap_remove(0).outputs
    } else {
        stack(
            &parts
                .iter()
                .map(|part| part.outputs.as_slice())
                .collect::<Vec<_>>(),
        )?
    };
    Ok(Computed {
        outputs,
        batch_wait,
        compute: longest.0,
        batch_rows: longest.1,
        device,
    })
}

/// One numeric class for answers of several, which are joined by `+` where they differ.
pub fn devices<'a>(all: impl Iterator<Item = &'a Arc<str>>) -> Arc<str> {
    let distinct: BTreeSet<&Arc<str>> = all.collect();
    let mut distinct = distinct.into_iter();
    match (distinct.next(), distinct.next()) {
        (Some(only), None) => Arc::clone(only),
        (first, second) => {
            let names = first.into_iter().chain(second).chain(distinct);
            let names: Vec<&str> = names.map(AsRef::as_ref).collect();
            names.join("+").into()
        }
    }
}

/// Joins the outputs of several pieces along axis 0.
///
/// # Errors
/// If the pieces differ in anything but their number of rows: the model is not what its proof says.
pub fn stack(pieces: &[&[Tensor]]) -> Result<Vec<Tensor>, JobError> {
    let Some(first) = pieces.first() else {
        return Ok(Vec::new());
    };
    (0..first.len())
        .map(|output| {
            let column: Vec<&Tensor> = pieces
                .iter()
                .filter_map(|piece| piece.get(output))
                .collect();
            stack_one(&column).ok_or_else(|| {
                JobError::Model(format!(
                    "output `{}` has another shape in other rows of the same job",
                    first[output].name
                ))
            })
        })
        .collect()
}

fn stack_one(column: &[&Tensor]) -> Option<Tensor> {
    let first = column.first()?;
    let rest = first.shape.get(1..)?;
    let mut rows = 0;
    let mut data = Vec::with_capacity(column.iter().map(|tensor| tensor.data.len()).sum());
    for tensor in column {
        if tensor.shape.get(1..)? != rest || tensor.datatype != first.datatype {
            return None;
        }
        rows += tensor.shape[0];
        data.extend_from_slice(&tensor.data);
    }
    let mut shape = vec![rows];
    shape.extend_from_slice(rest);
    Some(Tensor {
        name: first.name.clone(),
        datatype: first.datatype,
        shape,
        data: data.into(),
    })
}
