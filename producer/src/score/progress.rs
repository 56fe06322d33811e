//! How far a run is, for whoever watches it; and what it came to.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use super::look;

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// It looks at model and input.
    #[default]
    Starting,
    /// Rows go to workers and come back.
    Scoring,
    /// All rows are back; the output is put together.
    Writing,
}

impl Phase {
    /// Its name in progress lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Scoring => "scoring",
            Self::Writing => "writing",
        }
    }
}

/// How far a run is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// What it does.
    pub phase: Phase,
    /// Rows that are done, those of an earlier part of a resumed run included.
    pub rows: u64,
    /// Those of them that an earlier part of the run had done.
    pub rows_before: u64,
    /// Rows that failed.
    pub errors: u64,
    /// Rows that were read and are not done.
    pub rows_in_flight: u64,
    /// How much of the input was read, 0 to 1, where that can be told.
    pub read: Option<f64>,
    /// Time of one executor so far.
    pub compute: Duration,
    /// Chunks that came out of the cache.
    pub cache_hits: u64,
}

impl Progress {
    /// How much of the input is done, 0 to 1.
    pub fn fraction(&self) -> Option<f64> {
        let read = self.rows + self.rows_in_flight;
        let done = if read == 0 {
            0.0
        } else {
            self.rows as f64 / read as f64
        };
        self.read.map(|fraction| fraction * done)
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Summary {
    /// Where the output is; `None` for standard output.
    pub output: Option<PathBuf>,
    /// Where the rows that failed are, if there are any.
    pub errors_at: Option<PathBuf>,
    /// The version that scored.
    pub version: u64,
    /// The numeric class of what computed it.
    pub device: String,
    /// Rows of the input, and of the output.
    pub rows: u64,
    /// Rows that failed.
    pub errors: u64,
    /// Jobs that the rows were sent in.
    pub chunks: u64,
    /// Rows of each, except the last.
    pub chunk_rows: usize,
    /// From the beginning to the end, of this part of a resumed run.
    pub took: Duration,
    /// Time of one executor, of the whole run.
    pub compute: Duration,
    /// Chunks that came out of the cache.
    pub cache_hits: u64,
    /// Rows done by this part of the run at some moments since its beginning.
    pub throughput: Vec<(Duration, u64)>,
    /// What the columns of the output look like.
    pub look: look::Summary,
    /// What a user should know beside, such as columns that were not used.
    pub notes: Vec<String>,
}

/// Rows over time, in a bounded number of moments.
#[derive(Debug)]
pub(super) struct Throughput {
    began: Instant,
    every: Duration,
    moments: Vec<(Duration, u64)>,
}

impl Throughput {
    const MOST: usize = 512;

    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            every: Duration::from_millis(100),
            moments: vec![(Duration::ZERO, 0)],
        }
    }

    /// Takes note of the rows done by now, unless the last note is fresh.
    pub(super) fn note(&mut self, rows: u64) {
        let now = self.began.elapsed();
        let last = self.moments.last().map_or(Duration::ZERO, |(at, _)| *at);
        if now.saturating_sub(last) < self.every {
            return;
        }
        if self.moments.len() >= Self::MOST {
            let mut index = 0;
            self.moments.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.every *= 2;
        }
        self.moments.push((now, rows));
    }

    /// The notes, with the last one at the end of the run: a moment without rows after it is no part of its speed.
    pub(super) fn end(mut self, rows: u64) -> Vec<(Duration, u64)> {
        let end = self.began.elapsed();
        if let [_, .., (last, _)] = self.moments[..]
            && end.saturating_sub(last) < self.every
        {
            self.moments.pop();
        }
        self.moments.push((end, rows));
        self.moments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fraction_counts_what_is_done_and_not_what_is_read() {
        let progress = Progress {
            rows: 50,
            rows_in_flight: 50,
            read: Some(0.5),
            ..Progress::default()
        };
        assert_eq!(progress.fraction(), Some(0.25));
        assert_eq!(Progress::default().fraction(), None);
    }

    #[test]
    fn a_long_run_keeps_a_bounded_number_of_moments() {
        let mut throughput = Throughput::new();
        throughput.every = Duration::ZERO;
        for rows in 0..10_000 {
            throughput.note(rows);
        }
        assert!(throughput.moments.len() <= Throughput::MOST);
        let moments = throughput.end(10_000);
        assert_eq!(moments.first(), Some(&(Duration::ZERO, 0)));
        assert_eq!(moments.last().map(|(_, rows)| *rows), Some(10_000));
        assert!(moments.is_sorted());
    }

    #[test]
    fn a_short_run_is_one_moment_long() {
        let mut throughput = Throughput::new();
        assert_eq!(Throughput::new().end(0).len(), 2, "a beginning and an end");
        throughput.moments.push((Duration::ZERO, 600));
        let moments = throughput.end(600);
        let rows: Vec<u64> = moments.iter().map(|(_, rows)| *rows).collect();
        assert_eq!(rows, [0, 600]);
    }
}
