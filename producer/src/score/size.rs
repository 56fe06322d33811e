//! How many rows go into one job.

use std::time::Duration;

use inferq_schemas::{DataType, Tensor};

/// Body of a chunk to aim at, where a message may hold it: what a message costs, beside its bytes, is little then.
/// `integration/benches/score/README.md` has figures.
const BODY: usize = 640 << 10;
/// The same for a run that may take only a share of the executors: calls need not wait for so much of it at once.
const GENTLE_BODY: usize = 128 << 10;
/// Of what a message may hold, so much goes to rows: the rest is for what is around them, and for rows that are longer
/// than those that were looked at.
const SHARE: (usize, usize) = (5, 6);
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

/// Bytes of one of these rows on average; of its texts twice as many, since others may well be longer.
pub(super) fn row_bytes(tensors: &[Tensor]) -> usize {
    let rows = tensors.first().map_or(1, |tensor| tensor.rows().max(1));
    let bytes = |tensor: &Tensor| match tensor.datatype {
        DataType::Bytes => 2 * tensor.data.len(),
        _ => tensor.data.len(),
    };
    tensors.iter().map(bytes).sum::<usize>() / rows
}

/// Rows of a chunk: as many as fit the body and the time, in whole runs. Bodies above `inline_limit` bytes do not travel in
/// their message, which costs more. A `gentle` run shares the executors with others.
pub(super) fn chunk_rows(cost: RowCost, inline_limit: usize, gentle: bool) -> usize {
    let body = if gentle { GENTLE_BODY } else { BODY };
    let body = body.min(inline_limit / SHARE.1 * SHARE.0);
    let by_bytes = body / cost.input_bytes.max(cost.output_bytes).max(1);
    let by_time = TAKES.as_nanos() / cost.compute.as_nanos().max(1);
    let rows = by_bytes.min(usize::try_from(by_time).unwrap_or(MOST));
    let rows = rows.clamp(1, MOST);
    if rows > RUN { rows - rows % RUN } else { rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a server that takes messages of 1 MiB.
    const INLINE_LIMIT: usize = 768 << 10;

    fn rows(input_bytes: usize, output_bytes: usize, micros: u64) -> usize {
        let cost = RowCost {
            input_bytes,
            output_bytes,
            compute: Duration::from_micros(micros),
        };
        chunk_rows(cost, INLINE_LIMIT, false)
    }

    #[test]
    fn small_rows_fill_a_body_in_whole_runs() {
        assert_eq!(rows(256, 40, 10), 2_560);
        assert_eq!(rows(64 * 4 + 16, 8, 10) % RUN, 0);
        assert_eq!(rows(4, 4, 0), MOST);
    }

    #[test]
    fn large_outputs_slow_rows_and_giant_rows_make_small_chunks() {
        assert_eq!(rows(8, 32 << 10, 1), 20);
        assert_eq!(rows(8, 8, 50_000), 5);
        assert_eq!(rows(8, 8, 60_000_000), 1);
        assert_eq!(rows(10 << 20, 8, 1), 1);
    }

    #[test]
    fn a_chunk_travels_in_its_message() {
        let cost = RowCost {
            input_bytes: 1_000,
            output_bytes: 8,
            compute: Duration::ZERO,
        };
        for inline_limit in [6 << 10, 30 << 10, 48 << 10, INLINE_LIMIT, 64 << 20] {
            let rows = chunk_rows(cost, inline_limit, false);
            let most = BODY.min(inline_limit / 6 * 5);
            assert!(rows * 1_000 <= most, "{rows} rows");
        }
        assert_eq!(chunk_rows(cost, 48 << 10, false), RUN);
        let rows = chunk_rows(cost, INLINE_LIMIT, true);
        assert!(rows * 1_000 <= GENTLE_BODY && rows > RUN, "{rows} rows");
    }

    #[test]
    fn texts_count_twice() {
        let numbers = Tensor::from_f32("x", vec![2, 3], &[0.0; 6]).expect("it fits");
        assert_eq!(row_bytes(std::slice::from_ref(&numbers)), 12);
        let texts = Tensor::from_strings("t", vec![2], &["four", "sixsix"]).expect("it fits");
        assert_eq!(row_bytes(&[numbers, texts]), (24 + 2 * (4 + 4 + 4 + 6)) / 2);
        assert_eq!(row_bytes(&[]), 0);
    }
}
