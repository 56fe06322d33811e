//! What we write is read by pandas, pyarrow and numpy.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow_array::types::Float32Type;
use arrow_array::{
    ArrayRef, FixedSizeListArray, Float64Array, Int64Array, RecordBatch, StringArray,
};
use inferq::score::input::{Compression, Format};
use inferq::score::write::{Target, Writer};

const CHECK: &str = r#"
import sys, numpy as np, pandas as pd, pyarrow.feather as feather, pyarrow.parquet as pq
folder = sys.argv[1]
scores = [[0.1, 0.9], [0.25, 0.75]]
for table in (pq.read_table(f"{folder}/t.parquet"), feather.read_table(f"{folder}/t.arrow")):
    rows = table.to_pylist()
    assert [row["label"] for row in rows] == [1, -2], rows
    assert rows[0]["p"] == 1e-300 and rows[1]["p"] is None, rows
    assert [row["word"] for row in rows] == ['a "b"\n', "ä"], rows
    assert np.allclose([row["scores"] for row in rows], scores), rows
for name in ("t.csv", "t.csv.gz", "t.csv.zst"):
    table = pd.read_csv(f"{folder}/{name}")
    assert list(table.columns) == ["label", "p", "word", "scores_0", "scores_1"], table
    assert table["p"][0] == 1e-300 and np.isnan(table["p"][1]), table
    assert list(table["word"]) == ['a "b"\n', "ä"], table
    assert (table[["scores_0", "scores_1"]].to_numpy(np.float32) == np.array(scores, np.float32)).all(), table
table = pd.read_json(f"{folder}/t.jsonl", lines=True)
assert list(table["label"]) == [1, -2] and np.allclose(list(table["scores"]), scores), table
arrays = np.load(f"{folder}/t.npz")
assert sorted(arrays) == ["label", "p", "scores"], list(arrays)
assert arrays["scores"].dtype == np.float32 and arrays["scores"].shape == (2, 2), arrays
assert (arrays["label"] == [1, -2]).all() and np.isnan(arrays["p"][1]), arrays
assert (np.load(f"{folder}/t.npy") == np.array(scores, np.float32)).all()
"#;

#[test]
#[ignore = "needs python3 with pandas, pyarrow, numpy and zstandard"]
fn pandas_pyarrow_and_numpy_read_what_we_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let scores = [[0.1, 0.9], [0.25, 0.75]].map(|row| Some(row.map(Some)));
    let scores = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(scores, 2);
    let columns: [(&str, ArrayRef, bool); 4] = [
        ("label", Arc::new(Int64Array::from(vec![1, -2])), true),
        (
            "p",
            Arc::new(Float64Array::from(vec![Some(1e-300), None])),
            true,
        ),
        (
            "word",
            Arc::new(StringArray::from(vec!["a \"b\"\n", "ä"])),
            true,
        ),
        ("scores", Arc::new(scores), true),
    ];
    let table = RecordBatch::try_from_iter_with_nullable(columns).expect("a batch");
    for (name, places) in [
        ("t.parquet", &[0, 1, 2, 3][..]),
        ("t.arrow", &[0, 1, 2, 3]),
        ("t.csv", &[0, 1, 2, 3]),
        ("t.csv.gz", &[0, 1, 2, 3]),
        ("t.csv.zst", &[0, 1, 2, 3]),
        ("t.jsonl", &[0, 1, 2, 3]),
        ("t.npz", &[0, 1, 3]),
        ("t.npy", &[3]),
    ] {
        write(
            &folder.path().join(name),
            &table.project(places).expect("columns"),
        );
    }
    let python = std::env::var("INFERQ_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let checked = Command::new(python)
        .args(["-c", CHECK])
        .arg(folder.path())
        .output();
    let checked = checked.expect("python runs");
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}

fn write(path: &Path, table: &RecordBatch) {
    let (format, compression): (Format, Compression) = Format::of(path).expect("a known name");
    let target = Target::File(path.to_owned());
    let mut writer = Writer::create(target, format, compression, table.schema()).expect("created");
    writer.write(table).expect("written");
    writer.finish().expect("finished");
}
