//! What a run came to, for people and programs.

use indicatif::{HumanCount, HumanDuration};
use inferq::score::Summary;
use serde_json::json;

use super::super::output::Output;

/// Prints the summary: on standard error for people, since rows may have gone to standard output.
pub(super) fn summary(summary: &Summary, output: &Output) -> anyhow::Result<()> {
    let seconds = summary.took.as_secs_f64();
    let now = summary.throughput.last().map_or(0, |(_, rows)| *rows);
    let per_second = now as f64 / seconds.max(0.001);
    if output.is_json() {
        return output.line(&json!({
            "phase": "done", "output": summary.output, "errors_at": summary.errors_at, "version": summary.version,
            "device": summary.device, "rows": summary.rows, "errors": summary.errors, "chunks": summary.chunks,
            "chunk_rows": summary.chunk_rows, "seconds": seconds, "rows_per_second": per_second.round(),
            "compute_seconds": summary.compute.as_secs_f64(), "cache_hits": summary.cache_hits, "notes": summary.notes,
        }));
    }
    for note in &summary.notes {
        output.note(note);
    }
    output.note(&format!(
        "{} rows in {}, {}/s: version {} on {}, {} of compute in {} jobs of {} rows{}",
        HumanCount(summary.rows),
        HumanDuration(summary.took),
        HumanCount(per_second as u64),
        summary.version,
        summary.device,
        HumanDuration(summary.compute),
        HumanCount(summary.chunks),
        summary.chunk_rows,
        match summary.cache_hits {
            0 => String::new(),
            hits => format!(", {} of them from the cache", HumanCount(hits)),
        }
    ));
    if let Some(path) = &summary.output {
        output.note(&format!("the output is in {}", path.display()));
    }
    if summary.errors > 0 {
        let told = match &summary.errors_at {
            Some(path) => format!("; why is in {}", path.display()),
            None => String::new(),
        };
        output.note(&format!(
            "{} rows failed and have no answer{told}",
            HumanCount(summary.errors)
        ));
    }
    Ok(())
}
