//! Does the card do what the graph says?
//!
//! Each step is checked by itself: what the card made of its own values is held against what the CPU makes
//! of the same ones, within the bound of that step. Over a whole chain bounds would grow until they
//! mean nothing. Then the results as they come in a run, where values take each other's
//! places, have to be the same bit for bit.
//!
//! Every kernel that a run may choose is checked. Those that add up alike need not be held against the CPU again
//! where they give the same bits. The card's own products of matrices are looked at with more rows, so that all of
//! a tile and the next one have something in them, and twice; one that is wrong is not used, whatever else is right.

use tract_onnx::tract_core::internal::*;

use super::on_cpu::{Chain, Meaning};
use super::op::Segment;
use super::{bounds, trial};
use crate::gpu::{Choice, GpuError, Program, Tile, Weights};

/// Numbers of rows that are tried: one, an odd few, more than a tile.
const ROWS: [usize; 3] = [1, 5, 33];
/// The same for the card's own products of matrices: more than two tiles.
const OWN_ROWS: [usize; 4] = [1, 5, 33, 130];

/// Why a segment is not to run on the card.
#[derive(Debug)]
pub(super) struct Disagreement {
    pub(super) reason: String,
    /// The card is wrong, and will be another time; else it could not be asked.
    pub(super) is_final: bool,
}

impl From<TractError> for Disagreement {
    fn from(error: TractError) -> Self {
        Disagreement {
            reason: format!("the check failed: {error:#}"),
            is_final: true,
        }
    }
}

impl From<GpuError> for Disagreement {
    fn from(error: GpuError) -> Self {
        Disagreement {
            reason: format!("the check on the card failed: {error}"),
            is_final: false,
        }
    }
}

fn wrong(what: impl std::fmt::Display) -> Disagreement {
    Disagreement {
        reason: format!("the card is wrong: {what}"),
        is_final: true,
    }
}

/// All kernels that runs of `segment` may be sent to, on `program`. The card's own product of matrices comes back if it
/// may be used.
pub(super) fn all(segment: &Segment, program: &Program) -> Result<Option<Tile>, Disagreement> {
    // The other kernels take rows as they are.
    let kept_as = match segment.kept_as() {
        Weights::Half => Weights::F16,
        kept_as => kept_as,
    };
    let made: Vec<usize> = (segment.constants.len()..segment.shapes.len()).collect();
    let watched = program.watching(&made);
    for rows in ROWS {
        let trial = Trial::new(segment, rows)?;
        let by = |tile: Tile| trial.run(&watched, &made, Choice::Only(tile));
        let values = by(Tile::Skinny)?;
        trial.agrees(&values, &made, kept_as)?;
        trial.comes_out(program, &values, Choice::Only(Tile::Skinny))?;
        for tile in [Tile::Tile64, Tile::Tile128] {
            let others = by(tile)?;
            if same_bits(&values, &others) {
                continue;
            }
            if segment.settings.deterministic {
                return Err(wrong(format!(
                    "its kernels do not add up alike, as `deterministic` needs them to: {} differs from skinny at {rows} rows",
                    tile.name()
                )));
            }
            trial.agrees(&others, &made, kept_as)?;
        }
        for tile in [Tile::Gemv, Tile::Split] {
            if rows <= tile.most_rows() && !segment.settings.deterministic {
                trial.agrees(&by(tile)?, &made, kept_as)?;
            }
        }
    }
    let Some(own) = segment.own_product() else {
        return Ok(None);
    };
    match own_product(segment, program, own, &made) {
        Ok(()) => Ok(Some(own)),
        Err(error) if error.is_final && !segment.counts_on_own_product() => {
            tracing::warn!(
                error = error.reason,
                segment = segment.name,
                "the card's own products of matrices are not used"
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn own_product(
    segment: &Segment,
    program: &Program,
    own: Tile,
    made: &[usize],
) -> Result<(), Disagreement> {
    let watched = program.watching(made);
    for rows in OWN_ROWS {
        let trial = Trial::new(segment, rows)?;
        let values = trial.run(&watched, made, Choice::Only(own))?;
        trial.agrees(&values, made, Weights::Half)?;
        trial.comes_out(program, &values, Choice::Only(own))?;
    }
    Ok(())
}

fn same_bits(ones: &[Tensor], others: &[Tensor]) -> bool {
    let mut both = ones.iter().zip(others);
    both.all(|(one, other)| one.as_bytes() == other.as_bytes())
}

/// One number of rows, with what goes in.
struct Trial<'a> {
    segment: &'a Segment,
    symbols: SymbolValues,
    sizes: Vec<Vec<usize>>,
    inputs: Vec<Tensor>,
}

impl<'a> Trial<'a> {
    fn new(segment: &'a Segment, rows: usize) -> TractResult<Self> {
        let symbols = trial::symbols(segment, rows);
        Ok(Trial {
            sizes: segment.sizes(&symbols)?,
            inputs: trial::inputs(segment, &symbols)?,
            segment,
            symbols,
        })
    }

    /// All values: sources, and what the card makes of them.
    fn run(
        &self,
        watched: &Program,
        made: &[usize],
        choice: Choice,
    ) -> Result<Vec<Tensor>, Disagreement> {
        let mut given = self.inputs.iter();
        let mut values: Vec<Tensor> = Vec::with_capacity(self.sizes.len());
        for constant in &self.segment.constants {
            let value = constant.as_deref().or_else(|| given.next());
            values.push(value.context("an input for each source")?.clone());
        }
        let slices = self.inputs.iter();
        let slices = slices.map(|input| input.try_as_plain_ram()?.as_slice::<f32>());
        let slices = slices.collect::<TractResult<Vec<_>>>()?;
        let results = watched.run(&slices, &self.sizes, choice)?;
        for (value, result) in made.iter().zip(&results) {
            values.push(Tensor::from_shape(&self.sizes[*value], result)?);
        }
        Ok(values)
    }

    /// Is each step within its bound of the CPU, with weights that lose what those do?
    fn agrees(
        &self,
        values: &[Tensor],
        made: &[usize],
        kept_as: Weights,
    ) -> Result<(), Disagreement> {
        for (meaning, value) in self.segment.meanings.iter().zip(made) {
            match meaning {
                Meaning::Chain(chain) => {
                    step_agrees(chain, values, *value, &self.symbols, kept_as)?.map_err(wrong)?;
                }
                // The steps that take the columns of each layer are held against it.
                Meaning::Beside(_) => {}
            }
        }
        Ok(())
    }

    /// Are the results of a run those values?
    fn comes_out(
        &self,
        program: &Program,
        values: &[Tensor],
        choice: Choice,
    ) -> Result<(), Disagreement> {
        let inputs: Vec<&Tensor> = self.inputs.iter().collect();
        let outputs = self
            .segment
            .on_card(program, &inputs, &self.symbols, choice)?;
        for (output, value) in outputs.iter().zip(&self.segment.outputs) {
            if output.as_bytes() != values[*value].as_bytes() {
                return Err(wrong("it gives other bits in another run"));
            }
        }
        Ok(())
    }
}

fn step_agrees(
    chain: &Chain,
    values: &[Tensor],
    value: usize,
    symbols: &SymbolValues,
    kept_as: Weights,
) -> TractResult<Result<(), String>> {
    let inputs: Vec<&Tensor> = chain.inputs.iter().map(|input| &values[*input]).collect();
    let given = inputs.iter().map(|input| (*input).clone().into_tvalue());
    let ours = chain.apply(given.collect(), symbols)?;
    let bounds = bounds::of(chain, &inputs, &ours, symbols, kept_as)?;
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
    let forgiving = forgiving.map(crate::cpu::elements::<f32>).transpose()?;
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
