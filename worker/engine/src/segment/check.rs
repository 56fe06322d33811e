//! Is what the card gives within the bound of what the CPU gives?
//!
//! Both sum up the same products, each with an error of at most `sqrt(k) * 2^-24 * sum|row||weight|` and
//! 4 units in the last place for what follows. An error of a layer goes through the weights of the
//! next, so the bound is carried along with the values.

use tract_onnx::tract_core::internal::*;

use super::op::Segment;
use crate::proof::Numbers;

/// Numbers of rows that are tried: one, an odd few, more than a tile.
const ROWS: [usize; 3] = [1, 5, 33];
/// What stands in one row of each trial, over and over.
const EXTREMES: [f32; 6] = [0.0, 1e4, -1e4, 1e-7, -0.0, 1e-20];
/// The row with a NaN, where there are so many.
const WITH_NAN: usize = 2;
const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// `Err` says what does not agree.
pub(super) fn agree(segment: &Segment) -> Result<(), String> {
    let failed = |error: TractError| format!("the check failed: {error:#}");
    for rows in ROWS {
        let inputs = trial(segment, rows).map_err(failed)?;
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let ours = segment.on_cpu(&inputs).map_err(failed)?;
        let theirs = segment.on_card(&inputs, rows).map_err(failed)?;
        let theirs = theirs.map_err(|error| format!("the check on the card failed: {error}"))?;
        let bounds = bounds(segment, &inputs, rows).map_err(failed)?;
        for ((ours, theirs), bounds) in ours.iter().zip(&theirs).zip(bounds) {
            within(ours, theirs, &bounds, rows)
                .map_err(|error| format!("the card is wrong: {error}"))?;
        }
    }
    Ok(())
}

fn within(ours: &Tensor, theirs: &Tensor, bounds: &[f64], rows: usize) -> Result<(), String> {
    let values = |tensor: &Tensor| -> TractResult<Vec<f32>> {
        Ok(tensor.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
    };
    let (Ok(ours), Ok(theirs)) = (values(ours), values(theirs)) else {
        return Err("its results cannot be read".to_owned());
    };
    let columns = ours.len() / rows;
    for (place, ((ours, theirs), bound)) in ours.iter().zip(&theirs).zip(bounds).enumerate() {
        let error = (f64::from(*ours) - f64::from(*theirs)).abs();
        let spoiled = ours.is_nan() && theirs.is_nan();
        if !spoiled && (error > *bound || error.is_nan()) {
            let (row, column) = (place / columns, place % columns);
            return Err(format!(
                "{theirs} for {ours} in row {row} of {rows}, column {column}; {bound:.1e} apart is allowed"
            ));
        }
    }
    Ok(())
}

/// One tensor for each input: ordinary rows, an extreme one, one with a NaN.
pub(super) fn trial(segment: &Segment, rows: usize) -> TractResult<Vec<Tensor>> {
    let mut numbers = Numbers(0);
    let mut tensors = Vec::new();
    for input in 0..segment.inputs.len() {
        let columns = segment.inputs[input].columns;
        let mut values = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            for column in 0..columns {
                values.push(match row {
                    1 => EXTREMES[column % EXTREMES.len()],
                    WITH_NAN if column == columns / 2 => f32::NAN,
                    _ => numbers.next_signed() as f32,
                });
            }
        }
        tensors.push(Tensor::from_shape(
            &segment.input_shape(input, rows),
            &values,
        )?);
    }
    Ok(tensors)
}

/// How far each element of each output may be apart.
fn bounds(segment: &Segment, inputs: &[&Tensor], rows: usize) -> TractResult<Vec<Vec<f64>>> {
    let mut values: Vec<Vec<f64>> = Vec::new();
    let mut errors: Vec<Vec<f64>> = Vec::new();
    for input in inputs {
        let input = input.try_as_plain_ram()?;
        values.push(
            input
                .as_slice::<f32>()?
                .iter()
                .map(|value| f64::from(*value))
                .collect(),
        );
        errors.push(vec![0.0; values.last().map_or(0, Vec::len)]);
    }
    for step in &segment.steps {
        let weights = step.dense.weights().unpacked();
        let bias = step.dense.bias();
        let (k, n) = (step.dense.weights().k(), step.dense.weights().n());
        let (low, high) = step
            .dense
            .bounds()
            .unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        let (given, given_errors) = (&values[step.inputs[0]], &errors[step.inputs[0]]);
        let (mut made, mut made_errors) = (vec![0.0; rows * n], vec![0.0; rows * n]);
        let mut sums = vec![(0.0, 0.0, 0.0); n];
        for row in 0..rows {
            sums.fill((0.0, 0.0, 0.0));
            for (place, weights) in weights.chunks_exact(n).enumerate() {
                let (value, error) = (given[row * k + place], given_errors[row * k + place]);
                for ((sum, size, carried), weight) in sums.iter_mut().zip(weights) {
                    let weight = f64::from(*weight);
                    *sum += value * weight;
                    *size += (value * weight).abs();
                    *carried += error * weight.abs();
                }
            }
            for (column, (sum, size, carried)) in sums.iter().enumerate() {
                let place = row * n + column;
                let bias = f64::from(bias[column]);
                let mut value = sum + bias;
                let mut more = 0.0;
                if let Some(residual) = step.inputs.get(1) {
                    value += values[*residual][place];
                    more = errors[*residual][place];
                }
                let least = f64::from(f32::MIN_POSITIVE);
                let ulp = 2.0 * UNIT * value.abs().max(bias.abs()).max(least);
                // Both of them may be off, in opposite directions. Numbers below the normal range may be taken as 0.
                let own = 2.0 * ((k as f64).sqrt() * UNIT * size + 4.0 * ulp) + k as f64 * least;
                made[place] = if value.is_nan() {
                    value
                } else {
                    value.clamp(low.into(), high.into())
                };
                made_errors[place] = own + carried + more;
            }
        }
        values.push(made);
        errors.push(made_errors);
    }
    Ok(segment
        .outputs
        .iter()
        .map(|output| errors[*output].clone())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_beyond_the_bound_is_told_with_its_place() {
        let tensor = |values: &[f32]| Tensor::from_shape(&[2, 2], values).expect("four values");
        let ours = tensor(&[1.0, f32::NAN, 3.0, 4.0]);
        let bounds = [1e-6; 4];
        assert_eq!(within(&ours, &ours, &bounds, 2), Ok(()));
        let off = tensor(&[1.0, f32::NAN, 3.0, 4.5]);
        let told = within(&ours, &off, &bounds, 2).expect_err("it is off");
        assert_eq!(
            told,
            "4.5 for 4 in row 1 of 2, column 1; 1.0e-6 apart is allowed"
        );
        // A NaN that one of them lost, or made, is never within a bound.
        let lost = tensor(&[1.0, 0.0, 3.0, 4.0]);
        assert!(within(&ours, &lost, &bounds, 2).is_err());
        assert!(within(&lost, &ours, &bounds, 2).is_err());
    }
}
