//! What was measured, kept in a folder, so that loading the same model on the same machine does not measure again.
//!
//! A file for each segment, named by everything that its times depend on and we know of. A file that is not
//! there, or makes no sense, is measured anew; one that cannot be written costs nothing but the next measuring.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::op::Segment;
use super::tune::{Measured, ROWS};
use crate::cpu;
use crate::gpu::{Choice, Tile, memory};

/// What stands in a file, by number of rows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    rows: usize,
    cpu_nanoseconds: u64,
    card_nanoseconds: u64,
    /// The kernel of dense layers; none where the likely ones were the fastest.
    tile: Option<String>,
}

/// The times of `segment`, if they are known.
pub(super) fn read(
    folder: &Path,
    segment: &Segment,
    own: Option<Tile>,
) -> Option<[Measured; ROWS.len()]> {
    let text = fs::read_to_string(path(folder, segment, own)).ok()?;
    let lines: Vec<Line> = serde_json::from_str(&text).ok()?;
    let measured = lines.iter().zip(ROWS).map(|(line, rows)| {
        let choice = match &line.tile {
            None => segment.choice(),
            Some(name) => {
                let mut tiles = Tile::ALL.into_iter().chain(own);
                Choice::Only(tiles.find(|tile| tile.name() == name)?)
            }
        };
        (line.rows == rows).then_some(Measured {
            cpu: Duration::from_nanos(line.cpu_nanoseconds),
            card: Duration::from_nanos(line.card_nanoseconds),
            choice,
        })
    });
    measured.collect::<Option<Vec<_>>>()?.try_into().ok()
}

/// Keeps the times of `segment`.
pub(super) fn write(
    folder: &Path,
    segment: &Segment,
    own: Option<Tile>,
    measured: &[Measured; ROWS.len()],
) {
    let nanoseconds = |took: Duration| u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    let lines = measured.iter().zip(ROWS).map(|(measured, rows)| Line {
        rows,
        cpu_nanoseconds: nanoseconds(measured.cpu),
        card_nanoseconds: nanoseconds(measured.card),
        tile: match measured.choice {
            Choice::Only(tile) => Some(tile.name().to_owned()),
            Choice::Likely | Choice::Alike => None,
        },
    });
    let lines: Vec<Line> = lines.collect();
    let path = path(folder, segment, own);
    let text = serde_json::to_vec_pretty(&lines).map_err(io::Error::from);
    if let Err(error) = text.and_then(|text| memory::write(&path, &text)) {
        tracing::warn!(%error, path = %path.display(), "what was measured is not kept, the next load measures again");
    }
}

fn path(folder: &Path, segment: &Segment, own: Option<Tile>) -> PathBuf {
    let own = own.and(segment.card.gpu.cooperates());
    let mut all = format!("{} {:?} {own:?} ", cpu::instructions(), segment.settings);
    for step in &segment.steps {
        let _ = write!(all, "{:?} {:?} ", step.operation, step.inputs);
    }
    for shape in &segment.shapes {
        let _ = write!(all, "{shape:?} ");
    }
    memory::path(folder, segment.card.gpu.info(), &all, "json")
}
