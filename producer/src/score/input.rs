//! Which files make the input, and how each is written.

use std::fmt;
use std::fs;
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

/// Where bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

/// One file of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// Where it is.
    pub path: Source,
    /// How it is written.
    pub format: Format,
    /// What it is wrapped in. Standard input is looked at when it is opened.
    pub compression: Compression,
}

/// Why there is no input, or it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A path, pattern or folder without files.
    #[error("nothing to read at `{path}`: {reason}")]
    NothingFound {
        /// What was given.
        path: String,
        /// What is missing.
        reason: &'static str,
    },
    /// Not a pattern.
    #[error("`{pattern}` is not a pattern: {reason}")]
    Pattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The name does not say how the file is written.
    #[error(
        "the format of `{name}` is not known from its name; name it with --in-format ({})",
        Format::NAMES
    )]
    UnknownFormat {
        /// The file, or `standard input`.
        name: String,
    },
    /// Files of two formats.
    #[error(
        "`{first}` is {first_format} and `{second}` is {second_format}; one run reads one format, so score them one after the other"
    )]
    Mixed {
        /// A file.
        first: String,
        /// Its format.
        first_format: Format,
        /// Another file.
        second: String,
        /// Its format.
        second_format: Format,
    },
    /// A format that needs its own compression is wrapped in one.
    #[error(
        "`{name}` is {format} wrapped in gzip or zstd; unpack it first, since {format} is read out of order"
    )]
    Wrapped {
        /// The file.
        name: String,
        /// Its format.
        format: Format,
    },
    /// The file system says no.
    #[error("`{name}` cannot be read: {source}")]
    Io {
        /// The file, or `standard input`.
        name: String,
        /// What it says.
        #[source]
        source: std::io::Error,
    },
    /// The bytes are not what the format says.
    #[error("`{name}` is not readable as {format}: {reason}")]
    Damaged {
        /// The file, or `standard input`.
        name: String,
        /// Its format.
        format: Format,
        /// What is wrong, and where.
        reason: String,
    },
    /// The columns of a file do not fit together, or not those of the files before it.
    #[error("the columns of `{name}`: {reason}")]
    Columns {
        /// The file, or `standard input`.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// No file has any column.
    #[error("the input is empty: no file has a header or a row")]
    Empty,
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

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stdin => f.write_str("standard input"),
        }
    }
}

/// Finds the files of the input: each of `paths` is a file, a folder, a pattern with `*`, `?`, `[..]`
/// or `**`, or `-` for standard input.
///
/// They come in the order given, those of one pattern or folder sorted by name. A folder gives its
/// own files of a known format, without those below it and hidden ones (`.x`, `_x`). `format` counts
/// more than a name does.
///
/// # Errors
/// [`InputError`] if one of them gives nothing, has no known format or another one than the first.
pub fn find(paths: &[String], format: Option<Format>) -> Result<Vec<InputFile>, InputError> {
    let mut files = Vec::new();
    for path in paths {
        let before = files.len();
        let reason = expand(path, format, &mut files)?;
        if files.len() == before {
            let path = path.clone();
            return Err(InputError::NothingFound { path, reason });
        }
    }
    let Some(first) = files.first() else {
        return Err(InputError::NothingFound {
            path: String::new(),
            reason: "no path is given; name a file, a folder, a pattern or `-`",
        });
    };
    if let Some(second) = files.iter().find(|file| file.format != first.format) {
        return Err(InputError::Mixed {
            first: first.path.to_string(),
            first_format: first.format,
            second: second.path.to_string(),
            second_format: second.format,
        });
    }
    Ok(files)
}

/// Adds the files of one argument; tells what it means if there are none.
fn expand(
    text: &str,
    format: Option<Format>,
    files: &mut Vec<InputFile>,
) -> Result<&'static str, InputError> {
    if text == "-" {
        let format = format.ok_or_else(|| InputError::UnknownFormat {
            name: Source::Stdin.to_string(),
        })?;
        files.push(InputFile {
            path: Source::Stdin,
            format,
            compression: Compression::None,
        });
        return Ok("");
    }
    let path = Path::new(text);
    if path.is_dir() {
        files.extend(in_folder(path, format)?);
        return Ok(
            "the folder has no files of a known format; name them with a pattern such as `DIR/*.txt` and --in-format",
        );
    }
    // A file may well be called `a[1].csv`.
    if path.exists() || !text.contains(['*', '?', '[']) {
        if !path.exists() {
            return Ok("there is no such file or folder");
        }
        files.push(named(path.to_owned(), format)?);
        return Ok("");
    }
    let pattern = |error: glob::PatternError| InputError::Pattern {
        pattern: text.to_owned(),
        reason: error.msg,
    };
    let mut found = Vec::new();
    for path in glob::glob(text).map_err(pattern)? {
        let path = path.map_err(|error| InputError::Io {
            name: error.path().display().to_string(),
            source: error.into(),
        })?;
        if path.is_file() && !hidden(&path) {
            found.push(path);
        }
    }
    found.sort();
    for path in found {
        files.push(named(path, format)?);
    }
    Ok("no file matches the pattern")
}

fn in_folder(folder: &Path, format: Option<Format>) -> Result<Vec<InputFile>, InputError> {
    let io = |source| InputError::Io {
        name: folder.display().to_string(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.is_file() && !hidden(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    let files = paths.into_iter().filter_map(|path| {
        let (found, compression) = Format::of(&path)?;
        (format.is_none() || format == Some(found)).then_some(InputFile {
            path: Source::File(path),
            format: found,
            compression,
        })
    });
    files.map(refuse_wrapped).collect()
}

fn named(path: PathBuf, format: Option<Format>) -> Result<InputFile, InputError> {
    let known = Format::of(&path).map(|(format, _)| format);
    let Some(format) = format.or(known) else {
        return Err(InputError::UnknownFormat {
            name: path.display().to_string(),
        });
    };
    let (_, compression) = unwrapped(&path);
    refuse_wrapped(InputFile {
        path: Source::File(path),
        format,
        compression,
    })
}

fn refuse_wrapped(file: InputFile) -> Result<InputFile, InputError> {
    if file.compression == Compression::None || file.format.is_text() {
        return Ok(file);
    }
    Err(InputError::Wrapped {
        name: file.path.to_string(),
        format: file.format,
    })
}

/// The path without what names a compression.
fn unwrapped(path: &Path) -> (PathBuf, Compression) {
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("gz") => (path.with_extension(""), Compression::Gzip),
        Some("zst") => (path.with_extension(""), Compression::Zstd),
        _ => (path.to_owned(), Compression::None),
    }
}

/// Whether the name starts as those of markers and unfinished files do.
fn hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(['.', '_'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for name in names {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
            fs::write(path, "").expect("written");
        }
        folder
    }

    fn names(folder: &Path, pattern: &str) -> Vec<String> {
        let pattern = folder.join(pattern).display().to_string();
        let files = find(&[pattern], None).expect("files");
        let name = |file: &InputFile| match &file.path {
            Source::File(path) => path
                .strip_prefix(folder)
                .expect("inside")
                .display()
                .to_string(),
            Source::Stdin => "-".to_owned(),
        };
        files.iter().map(name).collect()
    }

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

    #[test]
    fn folders_and_patterns_give_their_files_sorted_and_two_stars_go_down() {
        let folder = folder(&[
            "b.csv",
            "a.csv.gz",
            "_SUCCESS",
            ".c.csv",
            "README",
            "x/d.csv",
            "x/y/e.csv",
        ]);
        assert_eq!(names(folder.path(), ""), ["a.csv.gz", "b.csv"]);
        assert_eq!(names(folder.path(), "*.csv"), ["b.csv"]);
        assert_eq!(
            names(folder.path(), "**/*.csv"),
            ["b.csv", "x/d.csv", "x/y/e.csv"]
        );
        assert_eq!(names(folder.path(), "b.csv"), ["b.csv"]);
    }

    #[test]
    fn what_gives_nothing_is_an_error_that_says_what_is_missing() {
        let folder = folder(&[
            "a.txt",
            "a.csv",
            "b.jsonl",
            "c.parquet.gz",
            "e/readme.md",
            "f[1].csv",
        ]);
        let at = |name: &str| folder.path().join(name).display().to_string();
        let error =
            |paths: &[String], format| find(paths, format).expect_err("no input").to_string();
        assert!(error(&[at("none.csv")], None).contains("there is no such file"));
        assert!(error(&[at("*.tsv")], None).contains("no file matches"));
        assert!(error(&[at("e")], None).contains("no files of a known format"));
        assert!(error(&[at("a.txt")], None).contains("--in-format (csv, "));
        assert!(error(&[at("a[")], None).contains("is not a pattern"));
        assert!(error(&["-".to_owned()], None).contains("standard input"));
        assert!(error(&[at("c.parquet.gz")], None).contains("unpack it first"));
        let mixed = error(&[at("a.csv"), at("b.jsonl")], None);
        assert!(mixed.contains("a.csv` is csv") && mixed.contains("b.jsonl` is jsonl"));
        assert!(error(&[], None).contains("no path is given"));
        assert_eq!(
            find(&[at("a.txt")], Some(Format::Csv))
                .expect("named")
                .len(),
            1
        );
        assert_eq!(
            find(&[at("f[1].csv")], None).expect("a plain name").len(),
            1
        );
    }
}
