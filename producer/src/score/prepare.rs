//! The input opened and held against the model: everything that can be decided before a row is sent.

use inferq_schemas::Tensor;

use super::{
    chunks::rows_of,
    columns::Mapping,
    error::ScoreError,
    fingerprint::{FileIdentity, Fingerprint},
    input::{self, Source},
    intake::Ahead,
    keep::Kept,
    options::ScoreOptions,
    read::Reader,
    target::Served,
};

/// Rows that are looked at to tell numbers from other text.
const LOOKED_AT: usize = 1_000;
/// Good rows that are scored before the run, to see what a row costs and what comes back.
const TRIED: usize = 64;

/// What a run starts with.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) reader: Ahead,
    pub(super) mapping: Mapping,
    pub(super) kept: Kept,
    pub(super) fingerprint: Fingerprint,
    /// The inputs of the first good rows.
    pub(super) tried: Vec<Tensor>,
    pub(super) notes: Vec<String>,
}

/// Opens the input. Reads files, so that it blocks.
pub(super) fn prepare(options: &ScoreOptions, served: &Served) -> Result<Prepared, ScoreError> {
    let files = input::find(&options.input, options.input_format)?;
    let identities = files.iter().filter_map(|file| match &file.path {
        Source::Stdin => None,
        Source::File(path) => {
            let identity = FileIdentity::of(path);
            Some(identity.map_err(ScoreError::folder("read", path)))
        }
    });
    let identities = identities.collect::<Result<Vec<_>, _>>()?;
    let reader = Reader::open(files)?;
    let columns = reader.columns().clone();
    let kept = Kept::decide(&columns, &options.keep)?;
    let reader = Ahead::look(reader, LOOKED_AT)?;
    let Some(sample) = reader.sample() else {
        return Err(ScoreError::Nothing);
    };
    let mapping = Mapping::decide(
        &columns,
        &served.inputs,
        &options.maps,
        &served.columns,
        Some(&sample.batch),
    )?;
    let rows = if served.takes_many_rows { TRIED } else { 1 };
    let mapped = mapping.tensors(sample);
    if mapped.rows.is_empty() {
        let rows = sample.batch.num_rows();
        return Err(match mapped.problems.into_iter().next() {
            Some(problem) => ScoreError::NoGoodRow { rows, problem },
            None => ScoreError::Nothing,
        });
    }
    let note = mapping.describe();
    let fingerprint = Fingerprint {
        model: options.model.to_string(),
        version: served.version,
        digest: served.digest.clone(),
        mapping: serde_json::to_value(&note).unwrap_or_default(),
        outputs: options.outputs.clone(),
        keep: options.keep.iter().map(ToString::to_string).collect(),
        ordered: options.ordered,
        input: identities,
    };
    Ok(Prepared {
        tried: rows_of(&mapped.tensors, 0..rows.min(mapped.rows.len())),
        notes: vec![note.to_string()],
        fingerprint,
        mapping,
        kept,
        reader,
    })
}
