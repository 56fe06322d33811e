//! Does the card do what the graph says?
//!
//! Each step is checked by itself: what the card made of its own values is held against what the CPU makes
//! of the same ones, within the bound of that step. Over a whole chain bounds would grow until they
//! mean nothing. Then the results as they come in a run, where values take each other's
//! places, have to be the same bit for bit.

use tract_onnx::tract_core::internal::*;

use super::bounds;
use super::on_cpu::Chain;
use super::op::Segment;
use crate::gpu::Choice;
use crate::proof::Numbers;

/// Numbers of rows that are tried: one, an odd few, more than a tile.
const ROWS: [usize; 3] = [1, 5, 33];
/// What stands in the second row of each trial, over and over.
const EXTREMES: [f32; 6] = [0.0, 1e4, -1e4, 1e-7, -0.0, 1e-20];
/// From so many rows on, the last one has a NaN. It spoils all that a row is mixed with, so there must be others.
const ROWS_WITH_NAN: usize = 33;
/// Longest that sizes other than the first are in a trial.
const LONGEST: usize = 16;

/// `Err` says what does not agree. Dense layers run on the kernels of `choice`.
pub(super) fn agree(segment: &Segment, choice: Choice) -> Result<(), String> {
    let failed = |error: TractError| format!("the check failed: {error:#}");
    let on_card = |error| format!("the check on the card failed: {error}");
    let program = segment.card.program();
    let program = program.ok_or("the check found nothing on the card")?;
    let sources = segment.constants.len();
    let made: Vec<usize> = (sources..segment.shapes.len()).collect();
    let watched = program.watching(&made);
    for rows in ROWS {
        let symbols = symbols(segment, rows);
        let sizes = segment.sizes(&symbols).map_err(failed)?;
        let inputs = trial(segment, &symbols).map_err(failed)?;
        let mut given = inputs.iter();
        let mut values: Vec<Tensor> = Vec::with_capacity(segment.shapes.len());
        for constant in &segment.constants {
            let value = constant.as_deref().or_else(|| given.next());
            values.push(value.cloned().ok_or("the check has too few inputs")?);
        }
        let slices = inputs
            .iter()
            .map(|input| input.try_as_plain_ram()?.as_slice::<f32>());
        let slices = slices.collect::<TractResult<Vec<_>>>().map_err(failed)?;
        let results = watched.run(&slices, &sizes, choice).map_err(on_card)?;
        for (value, result) in made.iter().zip(&results) {
            values.push(Tensor::from_shape(&sizes[*value], result).map_err(failed)?);
        }
        for (chain, value) in segment.chains.iter().zip(&made) {
            step_agrees(segment, chain, &values, *value, &symbols)
                .map_err(failed)?
                .map_err(|error| format!("the card is wrong: {error}"))?;
        }
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let outputs = segment.on_card(&inputs, &symbols, choice).map_err(failed)?;
        for (output, value) in outputs.map_err(on_card)?.iter().zip(&segment.outputs) {
            if output.as_bytes() != values[*value].as_bytes() {
                return Err(format!(
                    "the card gives other bits in another run of {rows} rows"
                ));
            }
        }
    }
    Ok(())
}

fn step_agrees(
    segment: &Segment,
    chain: &Chain,
    values: &[Tensor],
    value: usize,
    symbols: &SymbolValues,
) -> TractResult<Result<(), String>> {
    let inputs: Vec<&Tensor> = chain.inputs.iter().map(|input| &values[*input]).collect();
    let given = inputs.iter().map(|input| (*input).clone().into_tvalue());
    let ours = chain.apply(given.collect(), symbols)?;
    let bounds = bounds::of(chain, &inputs, &ours, symbols, segment.settings.weights)?;
    let Some(result) = ours.last() else {
        return Ok(Ok(()));
    };
    // tract's activations and bounds may make a number of a NaN; that the card keeps it is no mistake.
    let before: Vec<&Tensor> = match ours.len() {
        1 => inputs,
        several => vec![&ours[several - 2]],
    };
    let forgiving = before
        .into_iter()
        .find(|before| bounds::may_lose_nan(chain) && before.shape() == result.shape());
    within(result, &values[value], &bounds, forgiving).map(|agrees| {
        agrees.map_err(|error| format!("{} gives {error}", chain.operators[0].name()))
    })
}

/// `forgiving`: where this has a NaN, theirs may have one though ours has none.
fn within(
    ours: &Tensor,
    theirs: &Tensor,
    bounds: &[f64],
    forgiving: Option<&Tensor>,
) -> TractResult<Result<(), String>> {
    let columns = ours.shape().last().copied().unwrap_or(1);
    let forgiving = forgiving
        .map(|before| crate::cpu::elements::<f32>(before))
        .transpose()?;
    let ours = crate::cpu::elements::<f32>(ours)?;
    let theirs = crate::cpu::elements::<f32>(theirs)?;
    for (place, ((ours, theirs), bound)) in ours.iter().zip(&*theirs).zip(bounds).enumerate() {
        let error = (f64::from(*ours) - f64::from(*theirs)).abs();
        let forgiven = forgiving
            .as_ref()
            .is_some_and(|before| before[place].is_nan());
        let spoiled = theirs.is_nan() && (ours.is_nan() || forgiven);
        if !spoiled && (error > *bound || error.is_nan()) && ours != theirs {
            let (row, column) = (place / columns, place % columns);
            return Ok(Err(format!(
                "{theirs} for {ours} in row {row}, column {column}; {bound:.1e} apart is allowed"
            )));
        }
    }
    Ok(Ok(()))
}

/// Sizes with which the first dense layer has about `rows` rows: what comes first among the sizes is the batch.
pub(super) fn symbols(segment: &Segment, rows: usize) -> SymbolValues {
    let mut symbols = segment.decided.clone();
    let given = segment.shapes.iter().zip(&segment.constants);
    let given = given.filter(|(_, constant)| constant.is_none());
    let mut found: Vec<Symbol> = vec![];
    for (shape, _) in given {
        for size in shape {
            if let TDim::Sym(symbol) = size {
                if symbols.get(symbol).is_none() && !found.contains(symbol) {
                    found.push(symbol.clone());
                }
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
pub(super) fn trial(segment: &Segment, symbols: &SymbolValues) -> TractResult<Vec<Tensor>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_beyond_the_bound_is_told_with_its_place() {
        let tensor = |values: &[f32]| Tensor::from_shape(&[2, 2], values).expect("four values");
        let ours = tensor(&[1.0, f32::NAN, 3.0, 4.0]);
        let bounds = [1e-6; 4];
        let compare = |ours: &Tensor, theirs: &Tensor, forgiving: Option<&Tensor>| {
            within(ours, theirs, &bounds, forgiving).expect("plain numbers")
        };
        assert_eq!(compare(&ours, &ours, None), Ok(()));
        let off = tensor(&[1.0, f32::NAN, 3.0, 4.5]);
        let told = compare(&ours, &off, None).expect_err("it is off");
        assert_eq!(
            told,
            "4.5 for 4 in row 1, column 1; 1.0e-6 apart is allowed"
        );
        // A NaN that the card lost is never within a bound; one that it made, only where an activation was given one.
        let lost = tensor(&[1.0, 0.0, 3.0, 4.0]);
        assert!(compare(&ours, &lost, None).is_err());
        assert!(compare(&lost, &ours, None).is_err());
        assert_eq!(compare(&lost, &ours, Some(&ours)), Ok(()));
        assert!(compare(&ours, &lost, Some(&ours)).is_err());
    }
}
