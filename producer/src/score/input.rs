//! Which files make the input, and how each is written.

mod error;
mod format;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use self::format::unwrapped;

pub use self::error::InputError;
pub use self::format::{Compression, Format, FormatError};

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
