"""Writes the files beside it with numpy, pandas and pyarrow, as people have them.

    python3 -m venv v && v/bin/pip install numpy pandas pyarrow zstandard && v/bin/python make.py

All tables hold the same seven rows, so that one test reads them all. Made with numpy 2.4, pandas 3.1,
pyarrow 26.
"""

import gzip
import pathlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq
import zstandard

here = pathlib.Path(__file__).parent
table = pd.DataFrame(
    {
        "n": np.arange(1, 8),
        "x": [0.5, -1.25, None, 1e-7, 3e300, 5.0, 6.0],
        "word": ["plain", 'say "hi"', "a, b", "two\nlines", "ä", "", None],
        "flag": [True, False, True, True, False, False, True],
        "kind": pd.Categorical(["u", "v", "u", "u", "v", "v", "u"]),
    }
)
lists = np.arange(21, dtype=np.float32).reshape(7, 3) / 2


def arrow(lists_as):
    plain = pa.Table.from_pandas(table, preserve_index=False)
    return plain.append_column("e", pa.array(list(lists), lists_as))


table.to_parquet(here / "pandas.parquet", index=False)
pq.write_table(arrow(pa.list_(pa.float32())), here / "snappy_groups.parquet", compression="snappy", row_group_size=3)
pq.write_table(arrow(pa.large_list(pa.float32())), here / "zstd_dictionary.parquet", compression="zstd", use_dictionary=True)
pq.write_table(arrow(pa.list_(pa.float32(), 3)), here / "gzip_v2.parquet", compression="gzip", data_page_version="2.0")
pq.write_table(arrow(pa.list_(pa.float32())), here / "lz4_plain.parquet", compression="lz4", use_dictionary=False)

pa.feather.write_feather(arrow(pa.list_(pa.float32())), here / "lz4.feather", compression="lz4", chunksize=3)
pa.feather.write_feather(arrow(pa.list_(pa.float32(), 3)), here / "zstd.feather", compression="zstd")
with pa.ipc.new_stream(here / "stream.arrow", arrow(pa.large_list(pa.float32())).schema) as out:
    out.write_table(arrow(pa.large_list(pa.float32())), max_chunksize=4)

text = table.to_csv(index=False)
(here / "pandas.csv").write_text(text)
(here / "excel.csv").write_bytes(table.to_csv(index=False, lineterminator="\r\n").encode("utf-8-sig"))
table.to_csv(here / "tabs.tsv", index=False, sep="\t")
head, tail = text.encode()[:60], text.encode()[60:]
# Two members and two frames, as `cat a.gz b.gz` makes them.
(here / "members.csv.gz").write_bytes(b"".join(gzip.compress(part, mtime=0) for part in (head, tail)))
(here / "frames.csv.zst").write_bytes(b"".join(zstandard.compress(part) for part in (head, tail)))
lines = table.to_json(orient="records", lines=True)
(here / "pandas.jsonl").write_text(lines)
(here / "pandas.ndjson.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))

numbers = [0, 1, 2, 100]
for code in "b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8".split():
    np.save(here / f"{code}.npy", np.array(numbers).astype(code))
np.save(here / "big_endian.npy", np.array(numbers, ">f4"))
np.save(here / "axes.npy", np.arange(24, dtype=np.int16).reshape(4, 3, 2))
np.save(here / "fortran.npy", np.asfortranarray(np.arange(6.0).reshape(2, 3)))
np.save(here / "objects.npy", np.array([1, "a"], dtype=object), allow_pickle=True)
for version in (2, 3):
    with open(here / f"version_{version}.npy", "wb") as out:
        np.lib.format.write_array(out, np.array(numbers, "f8"), version=(version, 0))
np.savez(here / "stored.npz", x=lists, label=np.arange(7))
np.savez_compressed(here / "packed.npz", x=lists, label=np.arange(7))
np.savez(here / "uneven.npz", x=lists, label=np.arange(6))
