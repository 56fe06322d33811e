//! What numpy, pandas and pyarrow write.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef};
use inferq::score::columns::Mapping;
use inferq::score::keep::{KeepRule, Kept};
use inferq::score::read::Records;
use inferq_schemas::{DataType, Dim, TensorSpec};

use super::{made, open, read_all};

/// The seven rows of every table, each as text. What CSV cannot say is left open.
const ROWS: [&str; 7] = [
    "1 Some(0.5) Some(\"plain\") true u",
    "2 Some(-1.25) Some(\"say \\\"hi\\\"\") false v",
    "3 None Some(\"a, b\") true u",
    "4 Some(1e-7) Some(\"two\\nlines\") true u",
    "5 Some(3e300) Some(\"ä\") false v",
    "6 Some(5.0) Some(\"\") false v",
    "7 Some(6.0) None true u",
];

/// The rows of records as [`ROWS`] has them.
fn rows(records: &Records) -> Vec<String> {
    let rules = [
        "n:int64",
        "x:float64",
        "word:text",
        "flag:bool",
        "kind:text",
    ];
    let rules: Vec<KeepRule> = rules
        .iter()
        .map(|rule| rule.parse().expect("a rule"))
        .collect();
    let kept = Kept::decide(records.batch.schema_ref(), &rules).expect("five columns");
    assert_eq!(kept.problems(records), []);
    let columns = kept.columns(records).expect("they convert");
    let row = |row: usize| {
        let n = columns[0].as_primitive::<Int64Type>().value(row);
        let x = columns[1].as_primitive::<Float64Type>();
        let x = x.is_valid(row).then(|| x.value(row));
        let word = columns[2].as_string::<i32>();
        let word = word.is_valid(row).then(|| word.value(row));
        let flag = columns[3].as_boolean().value(row);
        let kind = columns[4].as_string::<i32>().value(row);
        format!("{n} {x:?} {word:?} {flag} {kind}")
    };
    (0..records.batch.num_rows()).map(row).collect()
}

#[test]
fn every_table_of_pandas_and_pyarrow_has_its_rows_in_pieces_of_any_size() {
    for (name, null_text) in [
        ("pandas.parquet", true),
        ("snappy_groups.parquet", true),
        ("zstd_dictionary.parquet", true),
        ("gzip_v2.parquet", true),
        ("lz4_plain.parquet", true),
        ("lz4.feather", true),
        ("zstd.feather", true),
        ("stream.arrow", true),
        ("pandas.jsonl", true),
        ("pandas.ndjson.gz", true),
        ("pandas.csv", false),
        ("excel.csv", false),
        ("tabs.tsv", false),
        ("members.csv.gz", false),
        ("frames.csv.zst", false),
    ] {
        for size in [1, 2, 3, 5, 100] {
            let mut reader = open(&made(name)).expect("readable");
            let mut seen = Vec::new();
            while let Some(records) = reader.read(size).expect("readable") {
                assert_eq!(records.first_row, seen.len() as u64, "{name}");
                assert_eq!(records.problems, [], "{name}");
                assert!(
                    records.batch.num_rows() == size || seen.len() + records.batch.num_rows() == 7
                );
                seen.extend(rows(&records));
            }
            if !null_text {
                seen[6] = seen[6].replace("Some(\"\")", "None");
            }
            assert_eq!(seen, ROWS, "{name} by {size}");
        }
        for skip in 0..=8 {
            let mut reader = open(&made(name)).expect("readable");
            assert_eq!(reader.skip(skip).expect("readable"), skip.min(7), "{name}");
            let rest = reader.read(1).expect("readable");
            let first = rest.map(|records| rows(&records)[0].chars().next());
            let expected = char::from_digit(skip as u32 + 1, 10);
            assert_eq!(first, (skip < 7).then_some(expected), "{name} after {skip}");
            if skip < 6 {
                // Passing over rows goes on from where reading has come to.
                assert_eq!(reader.skip(1).expect("readable"), u64::from(skip < 6));
                assert_eq!(reader.next_row(), skip + 2);
            }
        }
    }
}

#[test]
fn columns_of_lists_make_an_input_whatever_kind_of_list_they_are() {
    let spec = TensorSpec {
        name: "e".to_owned(),
        datatype: DataType::Fp32,
        shape: vec![Dim::Any, Dim::Fixed(3)],
    };
    for name in [
        "snappy_groups.parquet",
        "zstd_dictionary.parquet",
        "gzip_v2.parquet",
        "lz4.feather",
        "zstd.feather",
        "stream.arrow",
    ] {
        let mut reader = open(&made(name)).expect("readable");
        let records = reader.read(5).expect("readable").expect("rows");
        let sample = Some(&records.batch);
        let mapping = Mapping::decide(
            reader.columns(),
            std::slice::from_ref(&spec),
            &[],
            &BTreeMap::new(),
            sample,
        )
        .expect("a column of that name");
        let mapped = mapping.tensors(&records);
        assert_eq!(mapped.problems, [], "{name}");
        let expected: Vec<f32> = (0..15_u8).map(|n| f32::from(n) / 2.0).collect();
        assert_eq!(
            mapped.tensors[0].to_f32().expect("FP32"),
            expected,
            "{name}"
        );
        let mut rest = reader.read(5).expect("readable").expect("rows");
        rest.problems.clear();
        assert_eq!(
            mapping.tensors(&rest).tensors[0].to_f32().expect("FP32")[5],
            10.0,
            "{name}"
        );
    }
}

#[test]
fn numpy_arrays_of_every_type_have_their_values() {
    let as_float = |array: &ArrayRef| {
        let cast = arrow_cast::cast(array, &arrow_schema::DataType::Float64).expect("numbers");
        cast.as_primitive::<Float64Type>().values().to_vec()
    };
    for code in [
        "i1",
        "i2",
        "i4",
        "i8",
        "u1",
        "u2",
        "u4",
        "u8",
        "f2",
        "f4",
        "f8",
        "big_endian",
        "version_2",
        "version_3",
    ] {
        let (batches, _) = read_all(&made(&format!("{code}.npy")), 3);
        assert_eq!(batches.len(), 2, "{code}");
        assert_eq!(batches[0].schema().field(0).name(), code);
        let values: Vec<f64> = batches
            .iter()
            .flat_map(|batch| as_float(batch.column(0)))
            .collect();
        assert_eq!(values, [0.0, 1.0, 2.0, 100.0], "{code}");
    }
    let (batches, _) = read_all(&made("b1.npy"), 9);
    let flags: Vec<_> = batches[0].column(0).as_boolean().iter().flatten().collect();
    assert_eq!(flags, [false, true, true, true]);
    let (batches, _) = read_all(&made("axes.npy"), 9);
    let rows = batches[0].column(0).as_fixed_size_list();
    assert_eq!(
        as_float(&rows.value(3)),
        [18.0, 19.0, 20.0, 21.0, 22.0, 23.0]
    );
    let mut reader = open(&made("axes.npy")).expect("readable");
    assert_eq!(reader.skip(2).expect("readable"), 2);
    let rest = reader.read(9).expect("readable").expect("rows");
    assert_eq!(rest.batch.num_rows(), 2);
    assert_eq!(
        as_float(&rest.batch.column(0).as_fixed_size_list().value(0))[0],
        12.0
    );
}

#[test]
fn archives_of_numpy_are_read_side_by_side() {
    for name in ["stored.npz", "packed.npz"] {
        let mut reader = open(&made(name)).expect("readable");
        let names: Vec<_> = reader
            .columns()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect();
        assert_eq!(names, ["x", "label"]);
        assert_eq!(reader.skip(2).expect("readable"), 2);
        let records = reader.read(4).expect("readable").expect("rows");
        let labels = records
            .batch
            .column(1)
            .as_primitive::<Int64Type>()
            .values()
            .to_vec();
        assert_eq!(labels, [2, 3, 4, 5], "{name}");
        let row = records.batch.column(0).as_fixed_size_list().value(0);
        assert_eq!(
            row.as_primitive::<Float32Type>().values(),
            &[3.0, 3.5, 4.0],
            "{name}"
        );
        assert_eq!(
            reader
                .read(9)
                .expect("readable")
                .expect("a row")
                .batch
                .num_rows(),
            1
        );
        assert!(reader.read(9).expect("the end").is_none());
    }
}

#[test]
fn what_is_not_read_is_refused_with_what_to_do() {
    for (name, reason) in [
        ("objects.npy", "Python objects"),
        ("fortran.npy", "np.ascontiguousarray"),
        ("uneven.npz", "`x` has 7 rows and `label` has 6"),
    ] {
        let error = open(&made(name))
            .map(|_| ())
            .expect_err("unreadable")
            .to_string();
        assert!(error.contains(reason) && error.contains(name), "{error}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    for name in [
        "pandas.parquet",
        "lz4.feather",
        "stored.npz",
        "axes.npy",
        "stream.arrow",
    ] {
        let bytes = std::fs::read(made(name)).expect("made");
        // Cut off, and something else altogether.
        for (broken, bytes) in [
            ("cut", &bytes[..bytes.len() / 2]),
            ("no", &b"no table at all"[..]),
        ] {
            let path = folder.path().join(format!("{broken}_{name}"));
            std::fs::write(&path, bytes).expect("written");
            let read = open(&path).and_then(|mut reader| {
                while reader.read(3)?.is_some() {}
                Ok(())
            });
            let error = read.expect_err(name).to_string();
            assert!(error.contains(&format!("{broken}_{name}")), "{error}");
        }
    }
}
