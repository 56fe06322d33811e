//! How fast files become tensors and tensors files, format by format, on one core.
//!
//! `cargo test --workspace --bench score_io -- 1000000 64` measures 1 million rows of 64 columns in the
//! profile of development; without figures it takes few rows, only to show that it works. Each line is
//! one format: writing the table, reading it in pieces of 4 096 rows, and reading with the tensors made.
//! The last figure is the most memory the process has had by then.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::types::Float32Type;
use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch};
use inferq::score::columns::Mapping;
use inferq::score::input::{self, Compression, Format};
use inferq::score::read::Reader;
use inferq::score::write::{Target, Writer};
use inferq_schemas::{DataType, Dim, TensorSpec};

/// As in the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PIECE: usize = 4_096;

fn main() -> Result<(), Box<dyn Error>> {
    let figures = std::env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let figures: Vec<usize> = figures.collect();
    let rows = figures.first().copied().unwrap_or(2 * PIECE);
    let columns = figures.get(1).copied().unwrap_or(16);
    let folder = tempfile::tempdir()?;
    println!("{rows} rows of {columns} FP32 columns");
    println!("format     MB  write s   read s  read+map s  ns/cell  peak MiB");
    for (name, format, compression) in [
        ("t.csv", Format::Csv, Compression::None),
        ("t.csv.gz", Format::Csv, Compression::Gzip),
        ("t.jsonl", Format::Jsonl, Compression::None),
        ("t.parquet", Format::Parquet, Compression::None),
        ("t.arrow", Format::Arrow, Compression::None),
        ("t.npy", Format::Npy, Compression::None),
    ] {
        let path = folder.path().join(name);
        let started = Instant::now();
        write(&path, format, compression, rows, columns)?;
        let written = started.elapsed().as_secs_f64();
        let megabytes = std::fs::metadata(&path)?.len() / 1_000_000;

        let started = Instant::now();
        let read_only = read(&path, rows, None)?;
        let read_time = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let mapped = read(&path, rows, Some(columns))?;
        let mapped_time = started.elapsed().as_secs_f64();
        if read_only != rows || mapped != rows {
            return Err(format!("{name}: {read_only} and {mapped} rows of {rows}").into());
        }
        let cell = mapped_time * 1e9 / (rows * columns).max(1) as f64;
        println!(
            "{name:<10} {megabytes:>3} {written:>8.2} {read_time:>8.2} {mapped_time:>11.2} {cell:>8.1} {:>9}",
            peak_mib()
        );
        std::fs::remove_file(&path)?;
    }
    Ok(())
}

fn write(
    path: &Path,
    format: Format,
    compression: Compression,
    rows: usize,
    columns: usize,
) -> Result<(), Box<dyn Error>> {
    let target = Target::File(path.to_owned());
    let first = batch(format, 0, PIECE.min(rows), columns)?;
    let mut writer = Writer::create(target, format, compression, first.schema())?;
    let mut from = 0;
    while from < rows {
        let batch = batch(format, from, PIECE.min(rows - from), columns)?;
        writer.write(&batch)?;
        from += batch.num_rows();
    }
    Ok(writer.finish()?)
}

/// Numbers as people have them: about six digits, never the same row twice in a row.
fn batch(
    format: Format,
    from: usize,
    rows: usize,
    columns: usize,
) -> Result<RecordBatch, Box<dyn Error>> {
    let value = |row: usize, column: usize| {
        let mixed = (row * 2_654_435_761 + column * 40_503) % 1_000_003;
        mixed as f32 / 1_000.0 - 500.0
    };
    let named: Vec<(String, ArrayRef)> = if format == Format::Npy {
        let row = |row| Some((0..columns).map(move |column| Some(value(row, column))));
        let lists = (from..from + rows).map(row);
        let lists = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
            lists,
            i32::try_from(columns)?,
        );
        vec![("x".to_owned(), Arc::new(lists))]
    } else {
        let column = |column| {
            let values = (from..from + rows).map(|row| value(row, column));
            let values = Float32Array::from_iter_values(values);
            (format!("x_{column}"), Arc::new(values) as ArrayRef)
        };
        (0..columns).map(column).collect()
    };
    let named = named.into_iter().map(|(name, column)| (name, column, true));
    Ok(RecordBatch::try_from_iter_with_nullable(named)?)
}

/// Reads all rows, makes tensors of them if told how many elements a row has, and counts the good ones.
fn read(path: &Path, rows: usize, elements: Option<usize>) -> Result<usize, Box<dyn Error>> {
    let files = input::find(&[path.display().to_string()], None)?;
    let mut reader = Reader::open(files)?;
    let (mut mapping, mut good) = (None, 0);
    while let Some(records) = reader.read(PIECE.min(rows))? {
        let Some(elements) = elements else {
            good += records.batch.num_rows();
            continue;
        };
        if mapping.is_none() {
            let spec = TensorSpec {
                name: "x".to_owned(),
                datatype: DataType::Fp32,
                shape: vec![Dim::Any, Dim::Fixed(elements)],
            };
            let (columns, sample) = (reader.columns(), Some(&records.batch));
            let decided = Mapping::decide(columns, &[spec], &[], &BTreeMap::new(), sample)?;
            mapping = Some(decided);
        }
        if let Some(mapping) = &mapping {
            good += mapping.tensors(&records).rows.len();
        }
    }
    Ok(good)
}

/// The most memory this process has had; 0 where the system does not say.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1_024
}
