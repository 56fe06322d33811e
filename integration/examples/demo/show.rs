//! The table, and what to try next: lines and bold on a terminal, plain columns in a pipe.

use std::{
    collections::BTreeSet,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use comfy_table::{
    Attribute, Cell, CellAlignment, ContentArrangement, LineStyle, Table, presets::NOTHING,
};
use inferq::{
    bench::Mode,
    stack::{Stack, WorkerProcess},
};
use inferq_integration::digits::Digit;

use crate::{passes::Done, verdict::Kept};

/// Something said beside the result.
pub(crate) fn note(text: &str) {
    writeln!(std::io::stderr().lock(), "{text}").ok();
}

/// What runs.
pub(crate) fn stack(stack: &Stack, images: usize) {
    let redis = match stack.redis() {
        Some(_) => "Redis on a private socket",
        None => "no redis-server found, so answers are cached in each worker's memory only",
    };
    print(&format!(
        "{images} handwritten digits that the model has never seen, one per request\n\
         workers: {}, nats-server at {}, {redis}\n",
        stack.workers().len(),
        stack.nats_url(),
    ));
}

/// A row for each pass, 80 characters wide with two workers.
pub(crate) fn table(done: &[Done], workers: &[Arc<WorkerProcess>]) {
    let terminal = std::io::stdout().is_terminal();
    let mut table = Table::new();
    // A reader may be narrower than the table, and a wrapped number is hard to read.
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.load_style(if terminal {
        NOTHING.header_separator(LineStyle::none().fill('─').junction('─'))
    } else {
        NOTHING
    });
    let headings = [
        "",
        "accuracy",
        "answers/s",
        "p50 ms",
        "p99 ms",
        "hit/miss/shared",
        "by worker",
    ];
    table.set_header(headings.map(|heading| {
        let cell = Cell::new(heading);
        if terminal {
            cell.add_attribute(Attribute::Bold)
        } else {
            cell
        }
    }));
    for done in done {
        table.add_row(row(done, workers));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        if column.index > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    print(&table.trim_fmt());
    let devices: BTreeSet<&str> = done
        .iter()
        .flat_map(|done| &done.found.devices)
        .map(String::as_str)
        .collect();
    let devices: Vec<&str> = devices.into_iter().collect();
    let in_flight = |mode| {
        let pass = done.iter().find(|done| done.pass.mode == mode);
        pass.map_or(0, |done| done.pass.in_flight)
    };
    print(&format!(
        "\nin flight: {} jobs or {} calls, latency from sending to answer; device: {}",
        in_flight(Mode::Jobs),
        in_flight(Mode::Rpc),
        devices.join(", ")
    ));
}

/// What the queue and the outcomes were found to hold.
pub(crate) fn kept(kept: &Kept) {
    print(&format!(
        "{} jobs, {} outcomes, each read back from the stream; {} dead letters, nothing left in the queue",
        kept.jobs, kept.outcomes, kept.dead_letters
    ));
}

/// Three commands that work as they stand, in two terminals.
pub(crate) fn next(models: &Path, images: &[Digit]) {
    let Some(image) = images.last() else { return };
    let pixels: Vec<String> = image.pixels.iter().map(f32::to_string).collect();
    let body = format!("{{\"instances\": [[{}]]}}", pixels.join(","));
    let (inferq, models) = (program(), near(models));
    let inferq = inferq.display();
    print(&format!(
        "\nTry next (the image shows a {}):\n  \
         {inferq} up --models {} --workers 2\n  \
         {inferq} call digits '{body}'\n  \
         nats req infer.rpc.digits '{body}'",
        image.label,
        models.display(),
    ));
}

fn row(done: &Done, workers: &[Arc<WorkerProcess>]) -> Vec<String> {
    let (report, found) = (&done.report, &done.found);
    let answers = found.outcomes.len().max(1);
    let by_worker = workers.iter().map(|worker| {
        let answers = found.by_worker.get(worker.id()).copied();
        answers.unwrap_or_default().to_string()
    });
    vec![
        done.pass.title.to_owned(),
        format!("{:.1} %", 100.0 * found.right as f64 / answers as f64),
        format!("{:.0}", report.per_second),
        millis(report.latency.p50_us),
        millis(report.latency.p99_us),
        format!("{}/{}/{}", found.hits, found.misses, found.shared),
        by_worker.collect::<Vec<_>>().join(" + "),
    ]
}

fn millis(micros: u64) -> String {
    format!("{:.2}", micros as f64 / 1_000.0)
}

/// `inferq` as it was built beside this example.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let folder = own.parent().and_then(Path::parent);
    folder.unwrap_or(Path::new("")).join("inferq")
}

/// A path below the current folder without the way to it.
fn near(path: &Path) -> PathBuf {
    let below = std::env::current_dir()
        .ok()
        .and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    below.unwrap_or_else(|| path.to_owned())
}

/// A reader that has left, as `head` does, is no error.
fn print(text: &str) {
    writeln!(std::io::stdout().lock(), "{text}").ok();
}
