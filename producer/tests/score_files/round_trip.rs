//! What is written reads back as the same, for random tables of every format.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, UInt8Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, Float64Array, Int64Array,
    RecordBatch, StringArray, UInt8Array,
};
use arrow_select::concat::concat_batches;
use inferq::score::input::{Compression, Format};
use inferq::score::write::{Target, Writer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::read_all;

const TABLES: u64 = 12;

/// Which columns a format has a way to write.
#[derive(Clone, Copy)]
struct Has {
    text: bool,
    nulls: bool,
}

fn text(random: &mut StdRng) -> String {
    const LETTERS: [char; 12] = [
        'a', 'ä', '"', ',', '\n', '\r', '\t', '\'', '\\', ' ', '{', '🦀',
    ];
    let length = random.random_range(0..9);
    (0..length)
        .map(|_| LETTERS[random.random_range(0..LETTERS.len())])
        .collect()
}

fn float(random: &mut StdRng) -> f64 {
    match random.random_range(0..8) {
        0 => f64::NAN,
        1 => f64::NEG_INFINITY,
        2 => 0.1,
        3 => f64::from(random.random_range(-1_000..1_000_i32)),
        // Any bits but those of NaN, of which text keeps one kind only.
        _ => Some(f64::from_bits(random.random()))
            .filter(|f| !f.is_nan())
            .unwrap_or(-0.0),
    }
}

fn table(random: &mut StdRng, rows: usize, has: Has) -> RecordBatch {
    let mut column = |value: &mut dyn FnMut(&mut StdRng) -> bool| -> Vec<bool> {
        (0..rows).map(|_| value(random)).collect()
    };
    let there = column(&mut |random| !has.nulls || random.random_range(0..5) > 0);
    let flags = column(&mut |random| random.random());
    let keep = |row: &usize| there[*row];
    let ints: Vec<i64> = (0..rows).map(|_| random.random()).collect();
    let small: Vec<u8> = (0..rows).map(|_| random.random()).collect();
    let doubles: Vec<f64> = (0..rows).map(|_| float(random)).collect();
    let singles: Vec<f32> = (0..rows).map(|_| float(random) as f32).collect();
    let lists: Vec<[f32; 3]> = (0..rows)
        .map(|_| [(); 3].map(|()| float(random) as f32))
        .collect();
    let words: Vec<String> = (0..rows).map(|_| text(random)).collect();
    let some = |row: usize| Some(row).filter(keep);
    let lists = (0..rows).map(|row| Some(lists[row].map(Some)));
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("int", Arc::new(Int64Array::from(ints))),
        ("small", Arc::new(UInt8Array::from(small))),
        (
            "double",
            Arc::new(
                (0..rows)
                    .map(|row| some(row).map(|row| doubles[row]))
                    .collect::<Float64Array>(),
            ),
        ),
        ("single", Arc::new(Float32Array::from(singles))),
        ("flag", Arc::new(BooleanArray::from(flags))),
        (
            "list",
            Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(lists, 3)),
        ),
    ];
    if has.text {
        columns.push(("word", Arc::new(StringArray::from(words))));
    }
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .expect("columns of one length")
}

/// Writes a table in batches of random sizes and returns the bytes.
fn write(
    path: &Path,
    format: Format,
    compression: Compression,
    table: &RecordBatch,
    cuts: &[usize],
) -> Vec<u8> {
    let target = Target::File(path.to_owned());
    let mut writer = Writer::create(target, format, compression, table.schema()).expect("created");
    let mut from = 0;
    for to in cuts.iter().copied().chain([table.num_rows()]) {
        writer
            .write(&table.slice(from, to - from))
            .expect("written");
        from = to;
    }
    writer.finish().expect("finished");
    std::fs::read(path).expect("a file")
}

/// Runs `check` on what was read of random tables written to `name`.
fn each_table(name: &str, has: Has, check: impl Fn(&RecordBatch, &RecordBatch)) {
    let (format, compression) = Format::of(Path::new(name)).expect("a known name");
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join(name);
    for seed in 0..TABLES {
        let mut random = StdRng::seed_from_u64(seed);
        let rows = random.random_range(1..200);
        let table = table(&mut random, rows, has);
        let mut cuts: Vec<usize> = (0..random.random_range(0..4))
            .map(|_| random.random_range(0..=rows))
            .collect();
        cuts.sort_unstable();
        let bytes = write(&path, format, compression, &table, &cuts);
        assert_eq!(
            write(&path, format, compression, &table, &cuts),
            bytes,
            "equal batches are equal bytes"
        );
        let (batches, problems) = read_all(&path, random.random_range(1..100));
        assert_eq!(problems, [], "seed {seed}");
        let read = concat_batches(&batches[0].schema(), &batches).expect("alike");
        assert_eq!(read.num_rows(), rows, "seed {seed}");
        check(&table, &read);
    }
}

#[test]
fn typed_formats_give_back_the_same_columns() {
    let all = Has {
        text: true,
        nulls: true,
    };
    for name in ["t.parquet", "t.arrow", "t.feather"] {
        each_table(name, all, |table, read| assert_eq!(table, read, "{name}"));
    }
    let numbers = Has {
        text: false,
        nulls: false,
    };
    each_table("t.npz", numbers, |table, read| assert_eq!(table, read));
}

#[test]
fn an_npy_file_gives_back_its_column_under_its_own_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scores.npy");
    let table = table(
        &mut StdRng::seed_from_u64(1),
        50,
        Has {
            text: false,
            nulls: false,
        },
    );
    for place in 0..table.num_columns() {
        let column = table.project(&[place]).expect("a column");
        write(&path, Format::Npy, Compression::None, &column, &[7]);
        let (batches, _) = read_all(&path, 100);
        assert_eq!(batches[0].schema().field(0).name(), "scores");
        assert_eq!(batches[0].column(0), column.column(0));
    }
}

#[test]
fn csv_gives_back_every_value_as_text_that_reads_as_the_same() {
    for name in ["t.csv", "t.tsv", "t.csv.gz", "t.tsv.zst"] {
        each_table(
            name,
            Has {
                text: true,
                nulls: true,
            },
            |table, read| {
                let cell = |name: &str, row| {
                    read.column_by_name(name)
                        .expect(name)
                        .as_string::<i32>()
                        .value(row)
                        .to_owned()
                };
                for row in 0..table.num_rows() {
                    same_numbers(table, row, |name| cell(name, row), "");
                    let list = table["list"].as_fixed_size_list().value(row);
                    for (place, value) in list
                        .as_primitive::<Float32Type>()
                        .values()
                        .iter()
                        .enumerate()
                    {
                        let text = cell(&format!("list_{place}"), row);
                        assert_eq!(
                            text.parse::<f32>().expect("a number").to_bits(),
                            value.to_bits()
                        );
                    }
                    assert_eq!(
                        cell("word", row),
                        table["word"].as_string::<i32>().value(row)
                    );
                }
            },
        );
    }
}

#[test]
fn json_lines_give_back_every_value() {
    for name in ["t.jsonl", "t.jsonl.gz", "t.ndjson.zst"] {
        each_table(
            name,
            Has {
                text: true,
                nulls: true,
            },
            |table, read| {
                let cell = |name: &str, row| {
                    let cells = read.column_by_name(name).expect(name).as_string::<i32>();
                    if cells.is_null(row) {
                        "null".to_owned()
                    } else {
                        cells.value(row).to_owned()
                    }
                };
                for row in 0..table.num_rows() {
                    // What JSON has no number for is text.
                    same_numbers(table, row, |name| cell(name, row).replace('"', ""), "null");
                    let words: String = serde_json::from_str(&cell("word", row)).expect("text");
                    assert_eq!(words, table["word"].as_string::<i32>().value(row));
                    let list: Vec<serde_json::Value> =
                        serde_json::from_str(&cell("list", row)).expect("a list");
                    assert_eq!(list.len(), 3);
                }
            },
        );
    }
}

/// Holds the number and truth columns of a row against their text.
fn same_numbers(table: &RecordBatch, row: usize, text: impl Fn(&str) -> String, null: &str) {
    assert_eq!(
        text("int"),
        table["int"]
            .as_primitive::<Int64Type>()
            .value(row)
            .to_string()
    );
    assert_eq!(
        text("small"),
        table["small"]
            .as_primitive::<UInt8Type>()
            .value(row)
            .to_string()
    );
    assert_eq!(
        text("flag"),
        table["flag"].as_boolean().value(row).to_string()
    );
    let single: f32 = text("single").parse().expect("a number");
    assert_eq!(
        single.to_bits(),
        table["single"]
            .as_primitive::<Float32Type>()
            .value(row)
            .to_bits()
    );
    let doubles = table["double"].as_primitive::<Float64Type>();
    if doubles.is_null(row) {
        assert_eq!(text("double"), null);
    } else {
        let double: f64 = text("double").parse().expect("a number");
        assert_eq!(double.to_bits(), doubles.value(row).to_bits());
    }
}

#[test]
fn text_does_not_depend_on_how_rows_are_cut_into_batches() {
    let folder = tempfile::tempdir().expect("a folder");
    let table = table(
        &mut StdRng::seed_from_u64(3),
        100,
        Has {
            text: true,
            nulls: true,
        },
    );
    for (name, format) in [("t.csv", Format::Csv), ("t.jsonl", Format::Jsonl)] {
        let path = folder.path().join(name);
        let whole = write(&path, format, Compression::None, &table, &[]);
        assert_eq!(
            write(&path, format, Compression::None, &table, &[1, 50, 50, 99]),
            whole
        );
    }
}

#[test]
fn what_a_format_does_not_hold_is_refused_before_a_byte_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let table = table(
        &mut StdRng::seed_from_u64(0),
        3,
        Has {
            text: true,
            nulls: false,
        },
    );
    let create = |name: &str, columns| {
        let path = folder.path().join(name);
        let (format, compression) = Format::of(Path::new(name)).expect("a known name");
        let error = Writer::create(Target::File(path.clone()), format, compression, columns)
            .expect_err("refused")
            .to_string();
        assert!(!path.exists(), "{name}");
        error
    };
    assert!(create("t.npy", table.schema()).contains("write npz"));
    assert!(create("t.npz", table.schema()).contains("`word` is Utf8"));
    assert!(create("t.parquet.gz", table.schema()).contains("not wrapped"));
    let bytes: ArrayRef = Arc::new(arrow_array::BinaryArray::from_iter_values([b"\xff"]));
    let bytes = RecordBatch::try_from_iter([("raw", bytes)]).expect("a batch");
    assert!(create("t.csv", bytes.schema()).contains("write parquet or arrow"));
    assert!(create("t.jsonl", bytes.schema()).contains("`raw` is Binary"));
    let path = folder.path().join("t.csv");
    let mut writer = Writer::create(
        Target::File(path),
        Format::Csv,
        Compression::None,
        table.schema(),
    )
    .expect("created");
    assert!(
        writer
            .write(&bytes)
            .expect_err("other columns")
            .to_string()
            .contains("t.csv")
    );
}
