//! What a run came to, for people, for programs and as a page.

use std::path::Path;

use anyhow::Context;
use indicatif::HumanCount;
use inferq::score::{Summary, look::ColumnSummary, report::Report};
use serde_json::json;

use super::super::output::{Output, took};

/// Values of a column that are shown.
const TOP: usize = 3;

/// Prints the summary. What people read goes to standard error where rows went to standard output.
pub(super) fn summary(summary: &Summary, output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output.line(&json!({
            "phase": "done", "output": summary.output, "errors_at": summary.errors_at, "version": summary.version,
            "device": summary.device, "rows": summary.rows, "errors": summary.errors, "chunks": summary.chunks,
            "chunk_rows": summary.chunk_rows, "seconds": summary.took.as_secs_f64(),
            "rows_per_second": per_second(summary).round(), "compute_seconds": summary.compute.as_secs_f64(),
            "cache_hits": summary.cache_hits, "notes": summary.notes, "look": summary.look,
        }));
    }
    for note in &summary.notes {
        output.note(note);
    }
    if summary.output.is_some() {
        let rows = summary.look.columns.iter().map(row).collect();
        output.table(
            &[
                "column",
                "type",
                "values",
                "min",
                "mean",
                "max",
                "most often",
            ],
            rows,
        );
    }
    output.note(&format!(
        "{} rows in {}, {}/s: version {} on {}, {} of compute in {}{}",
        HumanCount(summary.rows),
        took(summary.took),
        HumanCount(per_second(summary) as u64),
        summary.version,
        summary.device,
        took(summary.compute),
        jobs(summary),
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
        output.note(&format!("{} rows failed{told}", HumanCount(summary.errors)));
    }
    Ok(())
}

/// Writes the page.
pub(super) fn report(summary: &Summary, title: String, path: &Path) -> anyhow::Result<()> {
    let facts = [
        ("rows", summary.rows.to_string()),
        ("failed", summary.errors.to_string()),
        ("version", summary.version.to_string()),
        ("device", summary.device.clone()),
        ("took", took(summary.took)),
        ("compute", took(summary.compute)),
        ("rows per second", format!("{:.0}", per_second(summary))),
        ("jobs", jobs(summary)),
        ("jobs from the cache", summary.cache_hits.to_string()),
        ("columns", summary.notes.join("; ")),
    ];
    let moments = summary.throughput.windows(2).filter_map(|pair| {
        let passed = pair[1].0.saturating_sub(pair[0].0).as_secs_f64();
        let rows = pair[1].1.saturating_sub(pair[0].1) as f64;
        (passed > 0.0).then(|| (pair[1].0.as_secs_f64(), rows / passed))
    });
    let page = Report {
        title,
        facts: facts.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        summary: summary.look.clone(),
        throughput: moments.collect(),
    };
    std::fs::write(path, page.html())
        .with_context(|| format!("the report {} cannot be written", path.display()))
}

/// How many there were, and of how many rows.
fn jobs(summary: &Summary) -> String {
    let jobs = match summary.chunks {
        1 => "1 job".to_owned(),
        many => format!("{} jobs", HumanCount(many)),
    };
    format!("{jobs} of up to {} rows", summary.chunk_rows)
}

/// Of this part of the run.
fn per_second(summary: &Summary) -> f64 {
    let rows = summary.throughput.last().map_or(0, |(_, rows)| *rows);
    rows as f64 / summary.took.as_secs_f64().max(0.001)
}

fn row(column: &ColumnSummary) -> Vec<String> {
    let range = column.numbers.as_ref().and_then(|numbers| numbers.range);
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.4}"));
    let top = column.top.iter().take(TOP);
    let top = top.map(|(value, count)| format!("{value} ({count})"));
    let largest = column.largest.iter().take(TOP);
    let largest = largest.map(|(place, count)| format!("place {place} is largest ({count})"));
    let often: Vec<String> = top.chain(largest).collect();
    vec![
        column.name.clone(),
        column.datatype.clone(),
        column.values.to_string(),
        number(range.map(|range| range.min)),
        number(range.map(|range| range.mean)),
        number(range.map(|range| range.max)),
        often.join(", "),
    ]
}
