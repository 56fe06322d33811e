//! How many rows go into one job.

use std::time::Duration;

/// Body of a chunk to aim at: far above what a message costs, far below what a message may hold.
const BODY: usize = 256 << 10;
/// A chunk should be done in about this time, so that several workers get equal parts of what is left at the
/// end, progress is seen, and little is lost with a worker.
const TAKES: Duration = Duration::from_millis(250);
/// More rows than this save nothing.
const MOST: usize = 8_192;
/// Rows run together by a worker; whole runs of them waste nothing.
const RUN: usize = 32;

/// What is known of a row before the run begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RowCost {
    /// Bytes of its inputs.
    pub(super) input_bytes: usize,
    /// Bytes of its outputs.
    pub(super) output_bytes: usize,
    /// Time of one executor.
    pub(super) compute: Duration,
}

/// Rows of a chunk: as many as fit the body and the time, in whole runs.
pub(super) fn chunk_rows(cost: RowCost) -> usize {
    let by_bytes = BODY / cost.input_bytes.max(cost.output_bytes).max(1);
    let by_time = TAKES.as_nanos() / cost.compute.as_nanos().max(1);
    let rows = by_bytes.min(usize::try_from(by_time).unwrap_or(MOST));
    let rows = rows.clamp(1, MOST);
    if rows > RUN { rows - rows % RUN } else { rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(input_bytes: usize, output_bytes: usize, micros: u64) -> usize {
        chunk_rows(RowCost {
            input_bytes,
            output_bytes,
            compute: Duration::from_micros(micros),
        })
    }

    #[test]
    fn small_rows_fill_a_body_in_whole_runs() {
        assert_eq!(rows(256, 40, 10), 1_024);
        assert_eq!(rows(64 * 4 + 16, 8, 10) % RUN, 0);
        assert_eq!(rows(4, 4, 0), MOST);
    }

    #[test]
    fn large_outputs_slow_rows_and_giant_rows_make_small_chunks() {
        assert_eq!(rows(8, 32 << 10, 1), 8);
        assert_eq!(rows(8, 8, 50_000), 5);
        assert_eq!(rows(8, 8, 60_000_000), 1);
        assert_eq!(rows(10 << 20, 8, 1), 1);
    }
}
