//! What a segment is tried with: sizes for what the model leaves open, and numbers for what comes in.

use tract_onnx::tract_core::internal::*;

use super::op::Segment;
use crate::proof::Numbers;

/// What stands in the second row of each trial, over and over.
const EXTREMES: [f32; 6] = [0.0, 1e4, -1e4, 1e-7, -0.0, 1e-20];
/// From so many rows on, the last one has a NaN. It spoils all that a row is mixed with, so there must be others.
const ROWS_WITH_NAN: usize = 33;
/// Longest that sizes other than the first are in a trial.
const LONGEST: usize = 16;

/// Sizes with which the first dense layer has about `rows` rows: what comes first among the sizes is the batch.
pub(super) fn symbols(segment: &Segment, rows: usize) -> SymbolValues {
    let mut symbols = segment.decided.clone();
    let given = segment.shapes.iter().zip(&segment.constants);
    let given = given.filter(|(_, constant)| constant.is_none());
    let mut found: Vec<Symbol> = vec![];
    for (shape, _) in given {
        for size in shape {
            if let TDim::Sym(symbol) = size
                && symbols.get(symbol).is_none()
                && !found.contains(symbol)
            {
                found.push(symbol.clone());
            }
        }
    }
    let other = match found.len() {
        0 | 1 => 1,
        _ => (1..=LONGEST.min(rows))
            .rev()
            .find(|size| rows.is_multiple_of(*size))
            .unwrap_or(1),
    };
    for (place, symbol) in found.iter().enumerate() {
        let size = if place == 0 { rows / other } else { other };
        symbols.set(symbol, size as i64);
    }
    symbols
}

/// One tensor for each input: ordinary rows, an extreme one, one with a NaN.
pub(super) fn inputs(segment: &Segment, symbols: &SymbolValues) -> TractResult<Vec<Tensor>> {
    let mut numbers = Numbers(0);
    let sizes = segment.sizes(symbols)?;
    let given = sizes.iter().zip(&segment.constants);
    let given = given.filter(|(_, constant)| constant.is_none());
    let tensors = given.map(|(shape, _)| {
        let columns = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().product::<usize>() / columns.max(1);
        let mut values = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            for column in 0..columns {
                values.push(if row == 1 {
                    EXTREMES[column % EXTREMES.len()]
                } else if rows >= ROWS_WITH_NAN && row + 1 == rows && column == columns / 2 {
                    f32::NAN
                } else {
                    numbers.next_signed() as f32
                });
            }
        }
        Tensor::from_shape(shape, &values)
    });
    tensors.collect()
}
