//! Reads the input and makes chunks of it, on a thread of its own.

use std::collections::BTreeSet;

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use inferq_schemas::Tensor;
use tokio::sync::mpsc;

use super::{
    columns::Mapping,
    error::ScoreError,
    input::InputError,
    keep::Kept,
    read::{Reader, Records, RowProblem},
};

/// Rows of the input that become one job.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) index: u64,
    /// All its rows as they were read.
    pub(super) records: Records,
    /// The model's inputs, for the good rows.
    pub(super) tensors: Vec<Tensor>,
    /// Which rows of `records` those are, ascending.
    pub(super) good: Vec<usize>,
    /// The other rows.
    pub(super) problems: Vec<RowProblem>,
    /// How much of the input was read by then, 0 to 1, where that can be told.
    pub(super) read: Option<f64>,
}

impl Chunk {
    pub(super) fn of(
        index: u64,
        records: Records,
        (mapping, kept): (&Mapping, &Kept),
        read: Option<f64>,
    ) -> Self {
        let mut mapped = mapping.tensors(&records);
        // A cell that is not what --keep says costs itself, not its row.
        let unfit = mapped.problems.iter().map(|problem| problem.row);
        let unfit: BTreeSet<u64> = unfit.collect();
        let lost = kept.problems(&records).into_iter();
        mapped
            .problems
            .extend(lost.filter(|problem| !unfit.contains(&problem.row)));
        let first = records.first_row;
        let place = |row: u64| usize::try_from(row - first).unwrap_or(usize::MAX);
        Self {
            index,
            tensors: mapped.tensors,
            good: mapped.rows.into_iter().map(place).collect(),
            problems: mapped.problems,
            records,
            read,
        }
    }

    pub(super) fn rows(&self) -> &RecordBatch {
        &self.records.batch
    }

    /// Memory it takes until it is kept: as read, as tensors, and as the body of a job.
    pub(super) fn bytes(&self) -> usize {
        let tensors: usize = self.tensors.iter().map(|tensor| tensor.data.len()).sum();
        self.rows().get_array_memory_size() + 2 * tensors
    }
}

/// A reader whose first rows were looked at before anybody knew how many make a chunk.
#[derive(Debug)]
pub(super) struct Ahead {
    reader: Reader,
    looked_at: Option<Records>,
}

impl Ahead {
    /// Looks at the first `rows` rows, or as many as there are.
    pub(super) fn look(mut reader: Reader, rows: usize) -> Result<Self, InputError> {
        let looked_at = reader.read(rows)?;
        Ok(Self { reader, looked_at })
    }

    /// The first rows, unless there are none.
    pub(super) fn sample(&self) -> Option<&Records> {
        self.looked_at.as_ref()
    }

    fn read(&mut self, rows: usize) -> Result<Option<Records>, InputError> {
        let Some(first) = self.looked_at.take() else {
            return self.reader.read(rows);
        };
        let have = first.batch.num_rows();
        if have > rows {
            let (wanted, rest) = split(first, rows);
            self.looked_at = Some(rest);
            return Ok(Some(wanted));
        }
        if have == rows {
            return Ok(Some(first));
        }
        let Some(mut more) = self.reader.read(rows - have)? else {
            return Ok(Some(first));
        };
        let mut problems = first.problems;
        problems.append(&mut more.problems);
        let schema = first.batch.schema();
        let batch = concat_batches(&schema, [&first.batch, &more.batch])
            .expect("all records of a reader have its columns");
        Ok(Some(Records {
            first_row: first.first_row,
            batch,
            problems,
        }))
    }

    fn fraction(&self) -> Option<f64> {
        self.reader.fraction()
    }

    fn skip(&mut self, rows: usize) -> Result<u64, InputError> {
        let Some(first) = self.looked_at.take() else {
            return self.reader.skip(rows as u64);
        };
        let have = first.batch.num_rows();
        if have > rows {
            self.looked_at = Some(split(first, rows).1);
            return Ok(rows as u64);
        }
        Ok(have as u64 + self.reader.skip((rows - have) as u64)?)
    }
}

/// The rows before `at` and those from there on.
fn split(records: Records, at: usize) -> (Records, Records) {
    let next = records.first_row + at as u64;
    let (before, after) = records
        .problems
        .into_iter()
        .partition(|problem| problem.row < next);
    let rest = records.batch.num_rows() - at;
    let first = Records {
        first_row: records.first_row,
        batch: records.batch.slice(0, at),
        problems: before,
    };
    let second = Records {
        first_row: next,
        batch: records.batch.slice(at, rest),
        problems: after,
    };
    (first, second)
}

/// Where chunks come from.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) reader: Ahead,
    pub(super) mapping: Mapping,
    pub(super) kept: Kept,
    pub(super) chunk_rows: usize,
    /// Chunks that are kept already.
    pub(super) done: BTreeSet<u64>,
}

impl Intake {
    /// Sends every chunk that is not done, in order, until the input ends or nobody listens.
    pub(super) fn run(mut self, chunks: &mpsc::Sender<Result<Chunk, ScoreError>>) {
        for index in 0.. {
            let next = match self.next(index) {
                Ok(Next::Done) => continue,
                Ok(Next::End) => return,
                Ok(Next::Chunk(chunk)) => Ok(*chunk),
                Err(error) => Err(error),
            };
            let failed = next.is_err();
            if chunks.blocking_send(next).is_err() || failed {
                return;
            }
        }
    }

    fn next(&mut self, index: u64) -> Result<Next, ScoreError> {
        if self.done.contains(&index) {
            return match self.reader.skip(self.chunk_rows)? {
                0 => Ok(Next::End),
                _ => Ok(Next::Done),
            };
        }
        let Some(records) = self.reader.read(self.chunk_rows)? else {
            return Ok(Next::End);
        };
        let read = self.reader.fraction();
        let chunk = Chunk::of(index, records, (&self.mapping, &self.kept), read);
        Ok(Next::Chunk(Box::new(chunk)))
    }
}

enum Next {
    Chunk(Box<Chunk>),
    Done,
    End,
}
