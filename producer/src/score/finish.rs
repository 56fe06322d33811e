//! From finished chunks to the output: one file, put in its place when it is whole.

use std::{fs, path::PathBuf, time::Duration};

use super::{
    error::ScoreError,
    folder::{RunFolder, sync_folder, write_whole},
    look::{self, Look},
    place::{Place, beside},
    write::{Target, Writer},
};

/// What was written, and what it took.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) output: Option<PathBuf>,
    pub(super) errors_at: Option<PathBuf>,
    pub(super) device: String,
    pub(super) chunk_rows: usize,
    pub(super) chunks: u64,
    pub(super) rows: u64,
    pub(super) errors: u64,
    pub(super) compute: Duration,
    pub(super) cache_hits: u64,
    pub(super) look: look::Summary,
}

/// Writes the output of a run whose chunks are all there, and removes the run.
pub(super) fn finish(folder: RunFolder, place: &Place) -> Result<Finished, ScoreError> {
    let total = folder.total();
    let errors_at = match &place.errors {
        Some(path) if total.errors > 0 => {
            write_errors(&folder, path)?;
            Some(path.clone())
        }
        Some(path) if path.exists() => {
            // Of an older run, whose output is replaced.
            fs::remove_file(path).map_err(ScoreError::folder("remove", path))?;
            None
        }
        Some(_) | None => None,
    };
    let look = write_output(&folder, place)?;
    let finished = Finished {
        output: place.output.clone(),
        errors_at,
        device: folder.manifest().device.clone(),
        chunk_rows: folder.manifest().chunk_rows,
        chunks: total.chunks.len() as u64,
        rows: total.rows,
        errors: total.errors,
        compute: Duration::from_micros(total.compute_us),
        cache_hits: total.cache_hits,
        look,
    };
    folder.remove()?;
    Ok(finished)
}

fn write_errors(folder: &RunFolder, path: &std::path::Path) -> Result<(), ScoreError> {
    write_whole(path, |out| folder.copy_errors(out))
}

fn write_output(folder: &RunFolder, place: &Place) -> Result<look::Summary, ScoreError> {
    let new = place.output.as_ref().map(|output| beside(output, ".new"));
    let target = match &new {
        Some(path) => Target::File(path.clone()),
        None => Target::Stdout,
    };
    let mut out: Option<(Writer, Look)> = None;
    folder.each_batch(|batch| {
        let (writer, look) = match &mut out {
            Some(out) => out,
            None => {
                let (format, compression) = (place.format, place.compression);
                let writer = Writer::create(target.clone(), format, compression, batch.schema())?;
                out.insert((writer, Look::new(&batch.schema())))
            }
        };
        look.add(&batch);
        Ok(writer.write(&batch)?)
    })?;
    let Some((writer, look)) = out else {
        return Err(ScoreError::Nothing);
    };
    writer.finish()?;
    if let (Some(new), Some(output)) = (&new, &place.output) {
        fs::rename(new, output).map_err(ScoreError::folder("replace", output))?;
        sync_folder(output).map_err(ScoreError::folder("sync", output))?;
    }
    Ok(look.summary())
}
