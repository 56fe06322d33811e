//! The output of a chunk: a row for each of its rows, with nulls where there is no answer.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow_schema::{ArrowError, FieldRef, Schema, SchemaRef};
use arrow_select::{concat::concat, take::take};
use inferq_schemas::ErrorCode;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    chunks::Answered, commit::Scored, error::ScoreError, intake::Chunk, keep::Kept,
    outputs::columns_of, read::json_row,
};

/// The columns of the output: those that are kept, then those of the model.
#[derive(Debug)]
pub(super) struct Layout {
    kept: Kept,
    outputs: Vec<FieldRef>,
    schema: SchemaRef,
}

impl Layout {
    /// Settles the columns by the first rows that came back.
    pub(super) fn of(kept: Kept, probe: &Answered) -> Result<Self, ScoreError> {
        let Some((_, tensors)) = probe.pieces.first() else {
            return Err(ScoreError::NoAnswer {
                rows: probe.failed.len(),
                failure: probe.failed.first().map(|(_, failure)| failure.clone()),
            });
        };
        let columns = columns_of(tensors, None)?;
        let outputs: Vec<FieldRef> = columns.into_iter().map(|(field, _)| field).collect();
        // A row that fails has no answer, whatever the model says.
        let nullable = outputs
            .iter()
            .map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
        let fields: Vec<FieldRef> = kept.fields().into_iter().chain(nullable).collect();
        if let Some(twice) = duplicate(&fields) {
            return Err(ScoreError::ColumnTwice {
                column: twice.to_owned(),
            });
        }
        Ok(Self {
            kept,
            outputs,
            schema: Arc::new(Schema::new(fields)),
        })
    }

    /// Puts the answers where their rows are.
    pub(super) fn join(&self, chunk: Chunk, answered: Answered) -> Result<Scored, ScoreError> {
        let rows = chunk.rows().num_rows();
        let unusable = |error: ArrowError| ScoreError::Answer {
            chunk: chunk.index,
            reason: error.to_string(),
        };
        let mut places: Vec<Option<u32>> = vec![None; rows];
        let mut pieces: Vec<Vec<ArrayRef>> = vec![Vec::new(); self.outputs.len()];
        let mut answers = 0;
        for (range, tensors) in &answered.pieces {
            let columns = columns_of(tensors, Some(&self.outputs))?;
            for (pieces, (_, column)) in pieces.iter_mut().zip(columns) {
                pieces.push(column);
            }
            for good in range.clone() {
                places[chunk.good[good]] = Some(answers);
                answers += 1;
            }
        }
        let is_whole = answers as usize == rows && answered.pieces.len() == 1;
        let places = UInt32Array::from(places);
        let mut columns = self.kept.columns(&chunk.records).map_err(unusable)?;
        for (pieces, field) in pieces.iter().zip(&self.outputs) {
            let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
            columns.push(match pieces.as_slice() {
                [] => new_null_array(field.data_type(), rows),
                [only] if is_whole => only.slice(0, rows),
                many => take(&concat(many).map_err(unusable)?, &places, None).map_err(unusable)?,
            });
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(unusable)?;
        Ok(Scored {
            index: chunk.index,
            batch,
            errors: errors(&chunk, &answered),
            compute: answered.compute,
            cache_hits: answered.cache_hits,
        })
    }
}

/// A line for each row that failed, in order: its number in the whole input from 0, why, and what it holds.
fn errors(chunk: &Chunk, answered: &Answered) -> Vec<String> {
    let first = chunk.records.first_row;
    let unfit = chunk.problems.iter().map(|problem| {
        (
            problem.row,
            ErrorCode::BadInput.as_u16(),
            problem.message.clone(),
        )
    });
    let failed = answered.failed.iter().map(|(good, failure)| {
        let row = first + chunk.good[*good] as u64;
        (row, failure.code.as_u16(), failure.message.clone())
    });
    let mut errors: Vec<(u64, u16, String)> = unfit.chain(failed).collect();
    errors.sort();
    let line = |(row, code, message): (u64, u16, String)| {
        let place = usize::try_from(row - first).unwrap_or(usize::MAX);
        let record = RawValue::from_string(json_row(chunk.rows(), place)).ok();
        let line = ErrorLine {
            row,
            code,
            message,
            record,
        };
        serde_json::to_string(&line).expect("numbers and texts are JSON")
    };
    errors.into_iter().map(line).collect()
}

/// A row that failed, as it is told.
#[derive(Serialize)]
struct ErrorLine {
    row: u64,
    code: u16,
    message: String,
    record: Option<Box<RawValue>>,
}

fn duplicate(fields: &[FieldRef]) -> Option<&str> {
    let named = |index: usize, name: &str| fields[..index].iter().any(|field| field.name() == name);
    let twice = fields.iter().enumerate();
    twice
        .map(|(index, field)| (index, field.name()))
        .find(|(index, name)| named(*index, name))
        .map(|(_, name)| name.as_str())
}
