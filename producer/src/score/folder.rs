//! What a run keeps between its beginning and its output: a manifest, and parts of finished chunks.
//!
//! ```text
//! <out>.run/run.json               what the run is, written once
//!           part-000000.arrow      finished chunks, a record batch each; which ones is in its schema
//!           part-000000.errors     the rows of them that failed, as JSON lines
//!           lock                   held while somebody works on the run
//! ```
//! A part is written beside, synced and renamed, errors first, so that one that is there is whole.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::RecordBatch;
use arrow_ipc::{reader::FileReader, writer::FileWriter};
use arrow_schema::{ArrowError, Schema};
use serde::{Deserialize, Serialize};

use super::{error::ScoreError, fingerprint::Fingerprint};

const MANIFEST: &str = "run.json";
const ABOUT: &str = "inferq";

/// What a run is. Fixed when it begins, since a chunk is a job, and a job never changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Its name, from which the ids of its jobs follow.
    pub(super) run: String,
    /// Rows of the input in each chunk.
    pub(super) chunk_rows: usize,
    /// The numeric class of the device that computed the first rows.
    pub(super) device: String,
    pub(super) fingerprint: Fingerprint,
}

/// What a part says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct About {
    /// Its chunks, in the order of its record batches.
    pub(super) chunks: Vec<u64>,
    /// Rows in it that have no answer.
    pub(super) errors: u64,
    /// Microseconds of one executor.
    pub(super) compute_us: u64,
    /// Chunks that came out of the cache.
    pub(super) cache_hits: u64,
    /// Input rows in it.
    pub(super) rows: u64,
}

/// The folder of a run that somebody works on.
#[derive(Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
    manifest: Manifest,
    /// What each part says, in the order in which they were written.
    parts: BTreeMap<u64, About>,
    /// The operating system lets go of it when we end, however we end.
    _lock: File,
    /// Removes a folder that nobody could find again.
    _temporary: Option<tempfile::TempDir>,
}

impl RunFolder {
    /// The unfinished run at `path`, if there is one.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, ScoreError> {
        let manifest = path.join(MANIFEST);
        let text = match fs::read(&manifest) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ScoreError::folder("read", &manifest)(error)),
        };
        let lock = lock(path)?;
        let parsed = serde_json::from_slice(&text)
            .map_err(|error| ScoreError::folder("read", &manifest)(error.into()))?;
        let mut folder = Self {
            path: path.to_owned(),
            manifest: parsed,
            parts: BTreeMap::new(),
            _lock: lock,
            _temporary: None,
        };
        folder.find_parts()?;
        Ok(Some(folder))
    }

    /// A new run at `path`; what an older one left there is removed.
    pub(super) fn create(path: &Path, manifest: Manifest) -> Result<Self, ScoreError> {
        fs::create_dir_all(path).map_err(ScoreError::folder("create", path))?;
        let lock = lock(path)?;
        Self::begin(path.to_owned(), manifest, lock, None)
    }

    /// A new run that ends with this process.
    pub(super) fn temporary(manifest: Manifest) -> Result<Self, ScoreError> {
        let folder = tempfile::Builder::new().prefix("inferq-score-").tempdir();
        let folder = folder.map_err(ScoreError::folder("create", &std::env::temp_dir()))?;
        let lock = lock(folder.path())?;
        Self::begin(folder.path().to_owned(), manifest, lock, Some(folder))
    }

    fn begin(
        path: PathBuf,
        manifest: Manifest,
        lock: File,
        temporary: Option<tempfile::TempDir>,
    ) -> Result<Self, ScoreError> {
        for file in files(&path)? {
            if file.file_name().is_some_and(|name| name != "lock") {
                fs::remove_file(&file).map_err(ScoreError::folder("remove", &file))?;
            }
        }
        let file = path.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| ScoreError::folder("write", &file)(error.into()))?;
        write_whole(&file, |out| out.write_all(&text))?;
        Ok(Self {
            path,
            manifest,
            parts: BTreeMap::new(),
            _lock: lock,
            _temporary: temporary,
        })
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What all parts together hold, in the order in which they were written.
    pub(super) fn total(&self) -> About {
        let mut total = About::default();
        for part in self.parts.values() {
            total.chunks.extend(&part.chunks);
            total.errors += part.errors;
            total.compute_us += part.compute_us;
            total.cache_hits += part.cache_hits;
            total.rows += part.rows;
        }
        total
    }

    /// Keeps finished chunks for good: after this they are never computed again.
    ///
    /// `batches` has one for each of `about.chunks`, all with one schema.
    pub(super) fn commit(
        &mut self,
        about: About,
        batches: &[RecordBatch],
        errors: &[String],
    ) -> Result<(), ScoreError> {
        let Some(first) = batches.first() else {
            return Ok(());
        };
        let number = self.parts.last_key_value().map_or(0, |(last, _)| last + 1);
        let part = self.part(number);
        let failed = part.with_extension("errors");
        if !errors.is_empty() {
            write_whole(&failed, |out| {
                errors.iter().try_for_each(|line| writeln!(out, "{line}"))
            })?;
        }
        let told = serde_json::to_string(&about)
            .map_err(|error| ScoreError::folder("write", &part)(error.into()))?;
        let schema = first.schema();
        let schema = Schema::new_with_metadata(schema.fields().clone(), [(ABOUT.to_owned(), told)]);
        let schema = Arc::new(schema);
        write_whole(&part, |out| {
            let mut writer = FileWriter::try_new(out, &schema).map_err(io)?;
            for batch in batches {
                let batch = batch.clone().with_schema(Arc::clone(&schema)).map_err(io)?;
                writer.write(&batch).map_err(io)?;
            }
            writer.finish().map_err(io)
        })?;
        self.parts.insert(number, about);
        Ok(())
    }

    /// Hands every finished chunk on, one after the other.
    pub(super) fn each_batch(
        &self,
        mut hand_on: impl FnMut(RecordBatch) -> Result<(), ScoreError>,
    ) -> Result<(), ScoreError> {
        for number in self.parts.keys() {
            let part = self.part(*number);
            let failed = |error: ArrowError| ScoreError::folder("read", &part)(io(error));
            let (_, reader) = open_part(&part)?;
            for batch in reader {
                let batch = batch.map_err(failed)?;
                // What the part says of itself is no part of the output.
                let plain = Arc::new(Schema::new(batch.schema().fields().clone()));
                let columns = batch.columns().to_vec();
                hand_on(RecordBatch::try_new(plain, columns).map_err(failed)?)?;
            }
        }
        Ok(())
    }

    /// Writes the lines of all failed rows to `out`.
    pub(super) fn copy_errors(&self, out: &mut impl Write) -> std::io::Result<()> {
        for (number, about) in &self.parts {
            if about.errors > 0 {
                let mut lines = File::open(self.part(*number).with_extension("errors"))?;
                std::io::copy(&mut lines, out)?;
            }
        }
        Ok(())
    }

    /// The run is finished, and its output somewhere else.
    pub(super) fn remove(self) -> Result<(), ScoreError> {
        // Without a manifest the rest is no run, even if we end in between.
        let manifest = self.path.join(MANIFEST);
        fs::remove_file(&manifest).map_err(ScoreError::folder("remove", &manifest))?;
        fs::remove_dir_all(&self.path).map_err(ScoreError::folder("remove", &self.path))
    }

    fn part(&self, number: u64) -> PathBuf {
        self.path.join(format!("part-{number:06}.arrow"))
    }

    fn find_parts(&mut self) -> Result<(), ScoreError> {
        for file in files(&self.path)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(".new") {
                fs::remove_file(&file).map_err(ScoreError::folder("remove", &file))?;
                continue;
            }
            let number = name
                .strip_prefix("part-")
                .and_then(|rest| rest.strip_suffix(".arrow"))
                .and_then(|number| number.parse().ok());
            if let Some(number) = number {
                let (about, _) = open_part(&file)?;
                self.parts.insert(number, about);
            }
        }
        Ok(())
    }
}

fn open_part(path: &Path) -> Result<(About, FileReader<std::io::BufReader<File>>), ScoreError> {
    let file = File::open(path).map_err(ScoreError::folder("open", path))?;
    let reader = FileReader::try_new_buffered(file, None)
        .map_err(|error| ScoreError::folder("read", path)(io(error)))?;
    let about = reader.schema().metadata().get(ABOUT).cloned();
    let about = serde_json::from_str(&about.unwrap_or_default())
        .map_err(|error| ScoreError::folder("read", path)(error.into()))?;
    Ok((about, reader))
}

/// A file that is either not there or whole, also after a power cut.
pub(super) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<(), ScoreError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let written = write_and_rename(&path.with_file_name(name), path, write);
    written.map_err(ScoreError::folder("write", path))
}

fn write_and_rename(
    beside: &Path,
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut out = BufWriter::new(File::create(beside)?);
    write(&mut out)?;
    out.into_inner()?.sync_all()?;
    fs::rename(beside, path)?;
    sync_folder(path)
}

/// Makes a rename in the folder of `path` last.
pub(super) fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn lock(path: &Path) -> Result<File, ScoreError> {
    let file = path.join("lock");
    let lock = File::create(&file).map_err(ScoreError::folder("create", &file))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ScoreError::Busy {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(ScoreError::folder("lock", &file)(source)),
    }
}

/// The files of the folder, sorted by name.
fn files(path: &Path) -> Result<Vec<PathBuf>, ScoreError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(ScoreError::folder("list", path))? {
        let entry = entry.map_err(ScoreError::folder("list", path))?;
        if entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn io(error: ArrowError) -> std::io::Error {
    match error {
        ArrowError::IoError(_, source) => source,
        other => std::io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Array, Int64Array};
    use arrow_schema::{DataType, Field};

    fn manifest() -> Manifest {
        Manifest {
            run: "r".into(),
            chunk_rows: 2,
            device: "cpu".into(),
            fingerprint: Fingerprint {
                model: "m".into(),
                version: 1,
                digest: "d".into(),
                mapping: serde_json::Value::Null,
                outputs: Vec::new(),
                keep: Vec::new(),
                ordered: true,
                input: Vec::new(),
            },
        }
    }

    fn batch(values: &[i64]) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("y", DataType::Int64, true)]);
        let column = Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_new(Arc::new(schema), vec![column]).expect("one column")
    }

    fn about(chunks: &[u64], errors: u64) -> About {
        About {
            chunks: chunks.to_vec(),
            errors,
            ..About::default()
        }
    }

    fn values(folder: &RunFolder) -> Vec<i64> {
        let mut values = Vec::new();
        let read = folder.each_batch(|batch| {
            let column = batch.column(0).as_any().downcast_ref::<Int64Array>();
            let column = column.expect("the column that was written");
            values.extend((0..column.len()).map(|row| column.value(row)));
            Ok(())
        });
        read.expect("whole parts");
        values
    }

    #[test]
    fn parts_survive_the_process_in_the_order_they_were_written() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("out.run");
        let mut folder = RunFolder::create(&path, manifest()).expect("created");
        let line = "{\"row\":1}".to_owned();
        let first = folder.commit(about(&[0, 1], 1), &[batch(&[1, 2]), batch(&[3])], &[line]);
        first.expect("written");
        drop(folder);
        let mut folder = RunFolder::open(&path)
            .expect("readable")
            .expect("it is there");
        assert_eq!(folder.manifest(), &manifest());
        folder
            .commit(about(&[2], 0), &[batch(&[4])], &[])
            .expect("written");
        assert_eq!(values(&folder), [1, 2, 3, 4]);
        assert_eq!(folder.total().chunks, [0, 1, 2]);
        let mut errors = Vec::new();
        folder.copy_errors(&mut errors).expect("readable");
        assert_eq!(errors, b"{\"row\":1}\n");
        folder.remove().expect("removable");
        assert!(!path.exists());
    }

    #[test]
    fn what_was_not_renamed_is_not_there() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("out.run");
        let mut folder = RunFolder::create(&path, manifest()).expect("created");
        folder
            .commit(about(&[0], 0), &[batch(&[1])], &[])
            .expect("written");
        drop(folder);
        fs::write(path.join("part-000001.arrow.new"), "half").expect("writable");
        fs::write(path.join("part-000001.errors"), "a line\n").expect("writable");
        let folder = RunFolder::open(&path)
            .expect("readable")
            .expect("it is there");
        assert_eq!(values(&folder), [1]);
        let mut errors = Vec::new();
        folder.copy_errors(&mut errors).expect("readable");
        assert!(errors.is_empty(), "they belong to a part that is not there");
    }

    #[test]
    fn two_runs_do_not_share_a_folder() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("out.run");
        assert!(RunFolder::open(&path).expect("readable").is_none());
        let folder = RunFolder::create(&path, manifest()).expect("created");
        let second = RunFolder::open(&path).expect_err("the first is at work");
        assert!(matches!(second, ScoreError::Busy { .. }));
        drop(folder);
        RunFolder::open(&path)
            .expect("the first has left")
            .expect("it is there");
    }
}
