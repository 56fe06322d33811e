//! Where a run writes: the output, the rows that failed beside it, and the folder of the run.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{
    error::ScoreError,
    folder::{Manifest, RunFolder},
    input::{Compression, Format},
    options::{Begin, ScoreOptions},
};

/// The places of a run.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The output; `None` for standard output.
    pub(super) output: Option<PathBuf>,
    pub(super) format: Format,
    pub(super) compression: Compression,
    /// Where the rows that failed go; `None` for nowhere.
    pub(super) errors: Option<PathBuf>,
    /// Kept until the output is whole; `None` if the run cannot be resumed.
    folder: Option<PathBuf>,
}

impl Place {
    /// Refuses an output that is there already, unless it may be replaced.
    pub(super) fn of(options: &ScoreOptions) -> Result<Self, ScoreError> {
        let (format, compression) = match (&options.output, options.output_format) {
            (None, format) => (format.unwrap_or(Format::Csv), Compression::None),
            (Some(path), told) => match (Format::of(path), told) {
                (Some((named, compression)), told) => (told.unwrap_or(named), compression),
                (None, Some(told)) => (told, Compression::None),
                (None, None) => {
                    return Err(ScoreError::UnknownFormat { path: path.clone() });
                }
            },
        };
        let Some(output) = options.output.clone() else {
            return Ok(Self {
                output: None,
                format,
                compression,
                errors: options.errors.clone(),
                folder: None,
            });
        };
        if output.exists() && !options.force {
            return Err(ScoreError::Exists { path: output });
        }
        let reads_stdin = options.input.iter().any(|input| input == "-");
        let errors = options.errors.clone();
        Ok(Self {
            errors: errors.or_else(|| Some(beside(&output, ".errors.jsonl"))),
            folder: (!reads_stdin).then(|| beside(&output, ".run")),
            output: Some(output),
            format,
            compression,
        })
    }

    /// The run to go on with, if there is one and it is wished.
    pub(super) fn unfinished(&self, begin: Begin) -> Result<Option<RunFolder>, ScoreError> {
        let Some(path) = &self.folder else {
            return match begin {
                Begin::Resume => Err(ScoreError::NotResumable),
                Begin::New | Begin::Restart => Ok(None),
            };
        };
        let found = RunFolder::open(path)?;
        match (found, begin) {
            (Some(_), Begin::New) => Err(ScoreError::Unfinished { path: path.clone() }),
            (Some(folder), Begin::Resume) => Ok(Some(folder)),
            (_, Begin::Restart) | (None, _) => Ok(None),
        }
    }

    /// A new run.
    pub(super) fn begin(&self, manifest: Manifest) -> Result<RunFolder, ScoreError> {
        match &self.folder {
            Some(path) => RunFolder::create(path, manifest),
            None => RunFolder::temporary(manifest),
        }
    }

    /// The error for a run that is another one.
    pub(super) fn changed(&self, differences: Vec<String>) -> ScoreError {
        ScoreError::Changed {
            path: self.folder.clone().unwrap_or_default(),
            differences,
        }
    }
}

/// `path` with more at the end of its name.
pub(super) fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name: OsString = path.file_name().unwrap_or_default().to_owned();
    name.push(more);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(output: &Path) -> ScoreOptions {
        let model = "m".parse().expect("a good name");
        ScoreOptions::new(model, ["rows.csv"], output)
    }

    #[test]
    fn everything_stands_beside_the_output() {
        let place = Place::of(&options(Path::new("a/b/out.csv.gz"))).expect("it is not there");
        assert_eq!(place.format, Format::Csv);
        assert_eq!(place.compression, Compression::Gzip);
        assert_eq!(
            place.errors.as_deref(),
            Some(Path::new("a/b/out.csv.gz.errors.jsonl"))
        );
        assert_eq!(
            place.folder.as_deref(),
            Some(Path::new("a/b/out.csv.gz.run"))
        );
    }

    #[test]
    fn an_output_is_replaced_only_on_demand() {
        let home = tempfile::tempdir().expect("a folder");
        let output = home.path().join("out.csv");
        std::fs::write(&output, "precious").expect("writable");
        let mut options = options(&output);
        let refused = Place::of(&options).expect_err("it is there");
        assert!(refused.to_string().contains("--force"), "{refused}");
        options.force = true;
        Place::of(&options).expect("it may go");
    }

    #[test]
    fn what_was_read_from_standard_input_cannot_be_read_again() {
        let mut options = options(Path::new("out.csv"));
        options.input = vec!["-".to_owned()];
        let place = Place::of(&options).expect("it is not there");
        assert!(matches!(
            place.unfinished(Begin::Resume),
            Err(ScoreError::NotResumable)
        ));
    }
}
