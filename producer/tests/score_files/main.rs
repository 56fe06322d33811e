//! Files of tables: those that other programs wrote are read as they meant them, and what is written is
//! read back, here and there.

mod elsewhere;
mod python;
mod round_trip;
mod standard;

use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use inferq::score::input::{self, InputError};
use inferq::score::read::{Reader, RowProblem};

/// A file that `make.py` made.
fn made(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/score_files/files")
        .join(name)
}

fn open(path: &Path) -> Result<Reader, InputError> {
    Reader::open(input::find(&[path.display().to_string()], None)?)
}

/// All rows in pieces of `rows`.
fn read_all(path: &Path, rows: usize) -> (Vec<RecordBatch>, Vec<RowProblem>) {
    let mut reader = open(path).expect("readable");
    let (mut batches, mut problems) = (Vec::new(), Vec::new());
    while let Some(records) = reader.read(rows).expect("readable") {
        batches.push(records.batch);
        problems.extend(records.problems);
    }
    (batches, problems)
}
