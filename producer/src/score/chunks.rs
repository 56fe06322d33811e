//! Chunks as jobs: each is sent under an id of its own, and where it fails, halved until the row that is
//! to blame stands alone.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use inferq_schemas::{
    CacheUse, ErrorCode, Failure, InferRequest, Inputs, JobId, Lane, ModelName, ResponseParameters,
    Status, Tensor,
};

use super::{error::ScoreError, limits::MaxErrors};
use crate::{
    client::Client,
    error::{ResultError, RunError},
    job::Job,
    outcome::Outcome,
};

/// Pause before a server that did not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How the chunks of a run become jobs.
#[derive(Debug)]
pub(super) struct Chunks {
    pub(super) client: Client,
    /// The name of the run; ids follow from it.
    pub(super) run: String,
    pub(super) model: ModelName,
    pub(super) version: u64,
    /// Outputs asked for; empty for all.
    pub(super) outputs: Vec<String>,
    pub(super) cache: bool,
    /// Outcomes may stand already, from before the run was interrupted.
    pub(super) resumed: bool,
    pub(super) max_errors: MaxErrors,
    /// Rows that failed so far.
    pub(super) failed: AtomicU64,
    /// Rows that were read so far; none while the first ones are tried, which is never too many failures.
    pub(super) rows_read: AtomicU64,
}

/// What came back for the rows of a chunk.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// Outputs for ranges of rows, in order; the ranges leave out the rows that failed.
    pub(super) pieces: Vec<(Range<usize>, Vec<Tensor>)>,
    /// The rows that failed, by their place in the chunk, ascending.
    pub(super) failed: Vec<(usize, Failure)>,
    /// Numeric classes of what computed it.
    pub(super) devices: BTreeSet<String>,
    /// Time of one executor.
    pub(super) compute: Duration,
    /// Answers that came out of the cache.
    pub(super) cache_hits: u64,
}

impl Answered {
    fn of(range: Range<usize>, outputs: Vec<Tensor>, told: ResponseParameters) -> Self {
        Self {
            cache_hits: u64::from(told.cache == CacheUse::Hit),
            compute: share_of_run(&told, range.len()),
            devices: [told.device].into(),
            pieces: vec![(range, outputs)],
            failed: Vec::new(),
        }
    }

    /// The numeric class of what computed it, all of them where they differ.
    pub(super) fn device(&self) -> String {
        let devices: Vec<&str> = self.devices.iter().map(String::as_str).collect();
        devices.join("+")
    }

    /// Time of one executor that each row took.
    pub(super) fn row_takes(&self) -> Duration {
        let rows: usize = self.pieces.iter().map(|(rows, _)| rows.len()).sum();
        self.compute.div_f64(rows.max(1) as f64)
    }

    /// Refuses what another class has computed than the one that computed the rest.
    pub(super) fn check_device(&self, chunk: u64, was: &str) -> Result<(), ScoreError> {
        match self.devices.iter().find(|device| *device != was) {
            None => Ok(()),
            Some(is) => Err(ScoreError::Mixed {
                chunk,
                was: was.to_owned(),
                is: is.clone(),
            }),
        }
    }

    fn join(mut self, mut other: Self) -> Self {
        self.pieces.append(&mut other.pieces);
        self.failed.append(&mut other.failed);
        self.devices.append(&mut other.devices);
        self.compute += other.compute;
        self.cache_hits += other.cache_hits;
        self
    }
}

/// What the rows of a job took of the run they were in. A job of many rows tells its longest run.
fn share_of_run(told: &ResponseParameters, rows: usize) -> Duration {
    if told.cache == CacheUse::Hit {
        return Duration::ZERO;
    }
    let run = Duration::from_micros(told.compute_us);
    run.mul_f64(rows as f64 / told.batch_rows.max(1) as f64)
}

impl Chunks {
    /// Scores the rows of a chunk. Rows that fail are told, and do not stop the others.
    ///
    /// # Errors
    /// If the chunk ended for a reason that is not about its rows.
    pub(super) async fn score(
        self: &Arc<Self>,
        chunk: u64,
        inputs: Vec<Tensor>,
    ) -> Result<Answered, ScoreError> {
        let rows = inputs.first().map_or(0, Tensor::rows);
        if rows == 0 {
            return Ok(Answered::default());
        }
        Arc::clone(self).part(chunk, inputs, 0..rows).await
    }

    /// Ends a run in which too many rows have failed. `last` tells the last failure.
    pub(super) fn check_errors(&self, last: impl FnOnce() -> String) -> Result<(), ScoreError> {
        let (errors, rows) = (
            self.failed.load(Ordering::Acquire),
            self.rows_read.load(Ordering::Acquire),
        );
        if rows == 0 || !self.max_errors.is_exceeded(errors, rows) {
            return Ok(());
        }
        Err(ScoreError::TooManyErrors {
            errors,
            rows,
            limit: self.max_errors.to_string(),
            last: last(),
        })
    }

    /// Scores the rows `range` of a chunk, which are all the rows of `inputs`.
    fn part(
        self: Arc<Self>,
        chunk: u64,
        inputs: Vec<Tensor>,
        range: Range<usize>,
    ) -> BoxFuture<'static, Result<Answered, ScoreError>> {
        async move {
            let name = format!("{chunk}/{}-{}", range.start, range.end);
            let outcome = self.outcome(chunk, &name, &inputs).await?;
            let Some(failure) = outcome.failure() else {
                return self.read(chunk, range, &outcome);
            };
            if !is_about_rows(outcome.status(), &failure) {
                return Err(ScoreError::Chunk { chunk, failure });
            }
            if range.len() == 1 {
                self.failed.fetch_add(1, Ordering::AcqRel);
                return Ok(Answered {
                    failed: vec![(range.start, failure)],
                    ..Answered::default()
                });
            }
            // The run is about to stop; looking for more of the same would only cost time.
            self.check_errors(|| format!("rows of chunk {chunk}: {failure}"))?;
            let middle = range.start + range.len() / 2;
            let (first, second) = halves(&inputs, middle - range.start);
            let first = Arc::clone(&self).part(chunk, first, range.start..middle);
            let second = self.part(chunk, second, middle..range.end);
            let (first, second) = futures::try_join!(first, second)?;
            Ok(first.join(second))
        }
        .boxed()
    }

    fn read(
        &self,
        chunk: u64,
        range: Range<usize>,
        outcome: &Outcome,
    ) -> Result<Answered, ScoreError> {
        let unusable = |reason: String| ScoreError::Answer { chunk, reason };
        let response = outcome
            .response()
            .map_err(|error| unusable(error.to_string()))?;
        for output in &response.outputs {
            if output.shape.first() != Some(&range.len()) {
                return Err(unusable(format!(
                    "output `{}` has shape {:?} for {} rows; a model that is scored gives a row for each row",
                    output.name,
                    output.shape,
                    range.len()
                )));
            }
        }
        Ok(Answered::of(range, response.outputs, response.parameters))
    }

    /// The outcome of a part of a chunk: the one that stands, else that of a job sent now.
    ///
    /// An outcome that says nothing about the rows, such as that of a job somebody has cancelled, is
    /// passed over when the run is resumed: the next attempt has an id of its own.
    async fn outcome(
        &self,
        chunk: u64,
        name: &str,
        inputs: &[Tensor],
    ) -> Result<Outcome, ScoreError> {
        let failed = |source: RunError| ScoreError::Run { chunk, source };
        let mut attempt = 0;
        let id = loop {
            let key = format!("{}/{name}/{attempt}", self.run);
            let id = JobId::keyed(None, &self.model, &key);
            match self
                .standing(&id)
                .await
                .map_err(|error| failed(error.into()))?
            {
                Some(outcome) if says_something(&outcome) => {
                    let whole = self.client.with_body(outcome).await;
                    return whole.map_err(|error| failed(error.into()));
                }
                Some(_) => attempt += 1,
                None => break id,
            }
        };
        let mut request = InferRequest::new(Inputs::Tensors(inputs.to_vec()));
        request.outputs.clone_from(&self.outputs);
        let mut job = Job::new(self.model.clone(), request)
            .lane(Lane::Low)
            .version(self.version)
            .with_id(id);
        if !self.cache {
            job = job.no_cache();
        }
        self.client.run_to_the_end(job).await.map_err(failed)
    }

    /// What stands from before, asked for until the server answers.
    async fn standing(&self, id: &JobId) -> Result<Option<Outcome>, ResultError> {
        if !self.resumed {
            return Ok(None);
        }
        loop {
            match self.client.read_outcome(id).await {
                Err(ResultError::Request { .. }) => tokio::time::sleep(ASK_AGAIN).await,
                read => return read,
            }
        }
    }
}

/// Is it about what the rows hold? If not, no half of them would fare better.
fn is_about_rows(status: Status, failure: &Failure) -> bool {
    let about_rows = matches!(
        failure.code,
        ErrorCode::BadInput | ErrorCode::Model | ErrorCode::TooLarge
    );
    status == Status::Dead || (status == Status::Error && about_rows)
}

fn says_something(outcome: &Outcome) -> bool {
    match outcome.failure() {
        None => true,
        Some(failure) => is_about_rows(outcome.status(), &failure),
    }
}

/// The rows before and from `middle` on.
fn halves(inputs: &[Tensor], middle: usize) -> (Vec<Tensor>, Vec<Tensor>) {
    let rows = inputs.first().map_or(0, Tensor::rows);
    (rows_of(inputs, 0..middle), rows_of(inputs, middle..rows))
}

/// These rows of each tensor; all of them have so many.
pub(super) fn rows_of(tensors: &[Tensor], rows: Range<usize>) -> Vec<Tensor> {
    let part = |tensor: &Tensor| {
        let pieces = tensor.split_rows();
        let mut shape = tensor.shape.clone();
        shape[0] = rows.len();
        Tensor {
            name: tensor.name.clone(),
            datatype: tensor.datatype,
            shape,
            data: pieces[rows.clone()].concat().into(),
        }
    };
    tensors.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_keep_the_rows_and_their_order() {
        let numbers = Tensor::from_f32("x", vec![3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let texts = Tensor::from_strings("s", vec![3], &["a", "", "ccc"]);
        let inputs = [numbers.expect("fits"), texts.expect("fits")];
        let (first, second) = halves(&inputs, 1);
        assert_eq!(first[0].shape, [1, 2]);
        assert_eq!(second[0].to_f32().expect("numbers"), [3.0, 4.0, 5.0, 6.0]);
        assert_eq!(second[1].to_strings().expect("texts"), ["", "ccc"]);
        for tensor in first.iter().chain(&second) {
            tensor.check().expect("its fields agree");
        }
    }

    #[test]
    fn only_what_rows_can_cause_is_looked_for_in_rows() {
        let failure = |code| Failure::new(code, "x");
        assert!(is_about_rows(Status::Error, &failure(ErrorCode::BadInput)));
        assert!(is_about_rows(Status::Dead, &failure(ErrorCode::Model)));
        assert!(!is_about_rows(Status::Error, &failure(ErrorCode::NotFound)));
        assert!(!is_about_rows(
            Status::Cancelled,
            &failure(ErrorCode::Conflict)
        ));
        assert!(!is_about_rows(
            Status::Expired,
            &failure(ErrorCode::Deadline)
        ));
    }

    #[test]
    fn a_job_of_many_rows_took_as_many_runs() {
        let told = ResponseParameters {
            compute_us: 100,
            batch_rows: 32,
            ..ResponseParameters::default()
        };
        assert_eq!(share_of_run(&told, 64), Duration::from_micros(200));
        let hit = ResponseParameters {
            cache: CacheUse::Hit,
            ..told
        };
        assert_eq!(share_of_run(&hit, 64), Duration::ZERO);
    }
}
