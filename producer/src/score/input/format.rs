//! Formats of tables, and what the name of a file says about them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Comma-separated text with a header line (`.csv`).
    Csv,
    /// Tab-separated text with a header line (`.tsv`).
    Tsv,
    /// One JSON object or list per line (`.jsonl`, `.ndjson`).
    Jsonl,
    /// Apache Parquet (`.parquet`).
    Parquet,
    /// Arrow IPC, as file or stream, and Feather 2 (`.arrow`, `.feather`).
    Arrow,
    /// One array of NumPy (`.npy`).
    Npy,
    /// Several arrays of NumPy (`.npz`).
    Npz,
}

/// What a text format is wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Nothing.
    None,
    /// gzip, of one or more members (`.gz`).
    Gzip,
    /// Zstandard, of one or more frames (`.zst`).
    Zstd,
}

impl Format {
    /// All names, for messages.
    pub(crate) const NAMES: &'static str = "csv, tsv, jsonl, parquet, arrow, npy or npz";

    const ALL: [Self; 7] = [
        Self::Csv,
        Self::Tsv,
        Self::Jsonl,
        Self::Parquet,
        Self::Arrow,
        Self::Npy,
        Self::Npz,
    ];

    /// The name that [`FromStr`] reads.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
            Self::Npy => "npy",
            Self::Npz => "npz",
        }
    }

    /// Whether its cells are text, which may be wrapped in a compression.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Csv | Self::Tsv | Self::Jsonl)
    }

    /// What the name of a file says about it.
    pub fn of(path: &Path) -> Option<(Self, Compression)> {
        let (bare, compression) = unwrapped(path);
        let extension = bare.extension()?.to_str()?.to_ascii_lowercase();
        let format = match extension.as_str() {
            "csv" => Self::Csv,
            "tsv" => Self::Tsv,
            "jsonl" | "ndjson" => Self::Jsonl,
            "parquet" => Self::Parquet,
            "arrow" | "feather" => Self::Arrow,
            "npy" => Self::Npy,
            "npz" => Self::Npz,
            _ => return None,
        };
        Some((format, compression))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| FormatError(text.to_owned()))
    }
}

/// Not the name of a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no format; it is one of {names}", names = Format::NAMES)]
pub struct FormatError(String);

/// The path without what names a compression.
pub(super) fn unwrapped(path: &Path) -> (PathBuf, Compression) {
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("gz") => (path.with_extension(""), Compression::Gzip),
        Some("zst") => (path.with_extension(""), Compression::Zstd),
        _ => (path.to_owned(), Compression::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_format_and_compression() {
        for (name, expected) in [
            ("a.csv", Some((Format::Csv, Compression::None))),
            ("a.CSV.GZ", Some((Format::Csv, Compression::Gzip))),
            ("a.tsv.zst", Some((Format::Tsv, Compression::Zstd))),
            ("a.b.ndjson", Some((Format::Jsonl, Compression::None))),
            ("a.feather", Some((Format::Arrow, Compression::None))),
            ("a.npz", Some((Format::Npz, Compression::None))),
            ("a.txt", None),
            ("a.gz", None),
            ("csv", None),
        ] {
            assert_eq!(Format::of(Path::new(name)), expected, "{name}");
        }
        for format in Format::ALL {
            assert_eq!(format.as_str().parse(), Ok(format));
        }
        assert!(
            "xlsx"
                .parse::<Format>()
                .expect_err("unknown")
                .to_string()
                .contains("parquet")
        );
    }
}
