//! Batch proof: may rows of different requests share one run?
//!
//! First by the graph: every input has the same open axis 0, every output has it on axis 0
//! and nowhere else. Then by trial, since a softmax over the batch passes the first test:
//! four rows run together, each alone, and all in another order must agree bit for bit.

use std::sync::Arc;

use tract_onnx::prelude::{Symbol, SymbolValues, f16};
use tract_onnx::tract_core::internal::{DimLike, TDim};

use crate::element::Element;
use crate::error::RunError;
use crate::model::{BatchProof, Session};
use crate::plan::{Compiled, PlanSession, Port, shape_text};
use crate::tensor::Tensor;

/// Trials with numbers of their own. Orders of addition that differ often round alike; one trial misses them too easily.
const TRIALS: u64 = 3;

/// Rows of a trial: ordinary, extreme, one with a NaN, ordinary again.
const ROWS: usize = 4;
const EXTREME: usize = 1;
const WITH_NAN: usize = 2;

/// Where each place of the reordered run takes its row from.
const REORDERED: [usize; ROWS] = [2, 0, 3, 1];

/// Values tried for open sizes other than the batch, until one runs: 3 suits most sequences,
/// 32 the images that shrink on their way.
const OTHER_SIZES: [i64; 2] = [3, 32];

/// What stands in the extreme row, over and over: zero, large, very small, below the normal numbers.
const EXTREMES: [f64; 6] = [0.0, 1e4, -1e4, 1e-7, -0.0, 1e-40];

/// Ordinary rows for each input, with the first size of the open ones with which the model runs.
pub(crate) fn trial_inputs(model: &Arc<Compiled>, rows: usize) -> Option<Vec<Tensor>> {
    let batch = model.inputs.first().and_then(|port| port.sizes.first());
    let make = |other_size: i64| {
        let mut numbers = Numbers(0);
        let tensors = model.inputs.iter().map(|port| {
            let mut values = SymbolValues::default();
            for symbol in port.sizes.iter().flat_map(TDim::symbols) {
                let is_batch = batch == Some(&TDim::Sym(symbol.clone()));
                let rows = i64::try_from(rows).ok()?;
                values.set(&symbol, if is_batch { rows } else { other_size });
            }
            let sizes = port.sizes.iter().map(|size| size.eval(&values).to_usize());
            let shape: Vec<usize> = sizes.collect::<Result<_, _>>().ok()?;
            let bytes = row_bytes(port.element, shape.iter().product(), ROWS, &mut numbers);
            Tensor::stack(port.element, &shape, &[&bytes]).ok()
        });
        tensors.collect::<Option<Vec<Tensor>>>()
    };
    // The larger first: a sentence, not three words of it.
    OTHER_SIZES.into_iter().rev().find_map(|size| {
        let inputs = make(size)?;
        let runs = PlanSession::new(Arc::clone(model))
            .run(inputs.clone())
            .is_ok();
        runs.then_some(inputs)
    })
}

struct Refusal {
    tensor: String,
    reason: String,
}

pub(crate) fn prove(model: &Arc<Compiled>, random_operator: Option<&str>) -> BatchProof {
    let proven = match random_operator {
        Some(operator) => Err(refusal(
            model.outputs.first(),
            format!("operator `{operator}` draws random numbers, so rows cannot be compared"),
        )),
        None => batch_symbol(model).and_then(|batch| rows_agree(model, &batch)),
    };
    match proven {
        Ok(()) => BatchProof::Proven,
        Err(Refusal { tensor, reason }) => BatchProof::Refused { tensor, reason },
    }
}

fn refusal(port: Option<&Port>, reason: String) -> Refusal {
    Refusal {
        tensor: port.map(|port| port.name.clone()).unwrap_or_default(),
        reason,
    }
}

/// The symbol that is the batch by the shapes alone.
fn batch_symbol(model: &Compiled) -> Result<Symbol, Refusal> {
    let Some(first) = model.inputs.first() else {
        return Err(refusal(
            model.outputs.first(),
            "the model has no input".to_owned(),
        ));
    };
    let TDim::Sym(batch) = axis_0(first)? else {
        let reason = format!("its axis 0 is fixed: {}", shape_text(&first.sizes));
        return Err(refusal(Some(first), reason));
    };
    for port in model.inputs.iter().chain(&model.outputs) {
        let size = axis_0(port)?;
        let shape = shape_text(&port.sizes);
        if size.to_usize().is_ok() {
            return Err(refusal(Some(port), format!("its axis 0 is fixed: {shape}")));
        }
        if *size != TDim::Sym(batch.clone()) {
            let reason = format!(
                "its axis 0 is `{size}`, that of input `{}` is `{batch}`",
                first.name
            );
            return Err(refusal(Some(port), reason));
        }
        if port.sizes[1..]
            .iter()
            .any(|size| size.symbols().contains(batch))
        {
            let reason = format!("`{batch}` is on an axis other than 0 too: {shape}");
            return Err(refusal(Some(port), reason));
        }
    }
    Ok(batch.clone())
}

fn axis_0(port: &Port) -> Result<&TDim, Refusal> {
    port.sizes
        .first()
        .ok_or_else(|| refusal(Some(port), "it has no axis 0".to_owned()))
}

fn rows_agree(model: &Arc<Compiled>, batch: &Symbol) -> Result<(), Refusal> {
    let mut session = PlanSession::new(Arc::clone(model));
    let other_size = runnable_size(model, batch, &mut session)?;
    (0..TRIALS).try_for_each(|seed| {
        let trial = Trial::new(model, batch, other_size, seed)?;
        let together = trial.run(&mut session, &[0, 1, 2, 3])?;
        trial.compare(&mut session, &together)
    })
}

/// The first of [`OTHER_SIZES`] with which the model runs at all, or why the first of them does not.
fn runnable_size(
    model: &Compiled,
    batch: &Symbol,
    session: &mut PlanSession,
) -> Result<i64, Refusal> {
    let mut runs = |size: i64| {
        Trial::new(model, batch, size, 0)?
            .run(session, &[0])
            .map(|_| size)
    };
    let [first, rest @ ..] = OTHER_SIZES;
    runs(first).or_else(|refusal| {
        rest.into_iter()
            .find_map(|size| runs(size).ok())
            .ok_or(refusal)
    })
}

/// Four rows for each input, and the shapes they have.
struct Trial<'a> {
    model: &'a Compiled,
    /// By input: the shape of one row and the bytes of each.
    inputs: Vec<(Vec<usize>, [Vec<u8>; ROWS])>,
}

impl<'a> Trial<'a> {
    fn new(
        model: &'a Compiled,
        batch: &Symbol,
        other_size: i64,
        seed: u64,
    ) -> Result<Self, Refusal> {
        let mut numbers = Numbers(seed);
        let mut inputs = Vec::with_capacity(model.inputs.len());
        for port in &model.inputs {
            let mut values = SymbolValues::default();
            for symbol in port.sizes.iter().flat_map(TDim::symbols) {
                values.set(&symbol, if symbol == *batch { 1 } else { other_size });
            }
            let shape = port.sizes[1..]
                .iter()
                .map(|size| size.eval(&values).to_usize())
                .collect::<Result<Vec<usize>, _>>()
                .map_err(|_| {
                    let shape = shape_text(&port.sizes);
                    refusal(
                        Some(port),
                        format!("no sizes for a trial fit its shape {shape}"),
                    )
                })?;
            let elements = shape.iter().product();
            let rows =
                std::array::from_fn(|row| row_bytes(port.element, elements, row, &mut numbers));
            inputs.push((shape, rows));
        }
        Ok(Trial { model, inputs })
    }

    fn run(&self, session: &mut PlanSession, rows: &[usize]) -> Result<Vec<Tensor>, Refusal> {
        let mut tensors = Vec::with_capacity(self.inputs.len());
        for (port, (row_shape, bytes)) in self.model.inputs.iter().zip(&self.inputs) {
            let parts: Vec<&[u8]> = rows.iter().map(|row| bytes[*row].as_slice()).collect();
            let mut shape = vec![rows.len()];
            shape.extend(row_shape);
            let tensor = Tensor::stack(port.element, &shape, &parts);
            tensors.push(tensor.map_err(|error| refusal(Some(port), error.to_string()))?);
        }
        session.run(tensors).map_err(|error: RunError| {
            let reason = format!("the trial with {} rows failed: {error}", rows.len());
            refusal(self.model.outputs.first(), reason)
        })
    }

    /// Compares the rows of `together` with each row run alone and with all run in another order.
    fn compare(&self, session: &mut PlanSession, together: &[Tensor]) -> Result<(), Refusal> {
        let reordered = self.run(session, &REORDERED)?;
        for (place, row) in REORDERED.into_iter().enumerate() {
            self.same_row(
                together,
                row,
                &reordered,
                place,
                "the rows are in another order",
            )?;
        }
        for row in 0..ROWS {
            let alone = self.run(session, &[row])?;
            self.same_row(together, row, &alone, 0, "it runs alone")?;
        }
        Ok(())
    }

    fn same_row(
        &self,
        left: &[Tensor],
        left_row: usize,
        right: &[Tensor],
        right_row: usize,
        when: &str,
    ) -> Result<(), Refusal> {
        for ((port, left), right) in self.model.outputs.iter().zip(left).zip(right) {
            let same_shape = left.shape().get(1..) == right.shape().get(1..);
            let left = left.rows(left_row..left_row + 1);
            let right = right.rows(right_row..right_row + 1);
            // A missing row is an error on either side, and that is no agreement.
            let same = same_shape && matches!((&left, &right), (Ok(a), Ok(b)) if a == b);
            if !same {
                let reason = format!("the answer for a row changes when {when}");
                return Err(refusal(Some(port), reason));
            }
        }
        Ok(())
    }
}

/// One row. Integers stay at 0 and 1: they are often indices, and any table has those two.
fn row_bytes(element: Element, elements: usize, row: usize, numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = Vec::new();
    for index in 0..elements {
        if element == Element::String {
            let text = ["a", "", "two words", "é"][numbers.next_below(4)];
            bytes.extend_from_slice(&[text.len() as u8, 0, 0, 0]);
            bytes.extend_from_slice(text.as_bytes());
        } else if element.is_float() {
            let value = match row {
                EXTREME => EXTREMES[index % EXTREMES.len()],
                // One NaN in the middle: it may spoil its own row and no other.
                WITH_NAN if index == elements / 2 => f64::NAN,
                _ => numbers.next_signed(),
            };
            push_float(&mut bytes, element, value);
        } else {
            let bit = match row {
                EXTREME => 1,
                _ => numbers.next_below(2) as u8,
            };
            let start = bytes.len();
            bytes.resize(start + element.size().unwrap_or(1), 0);
            bytes[start] = bit;
        }
    }
    bytes
}

fn push_float(bytes: &mut Vec<u8>, element: Element, value: f64) {
    match element {
        Element::F16 => bytes.extend_from_slice(&f16::from_f64(value).to_le_bytes()),
        Element::F32 => bytes.extend_from_slice(&(value as f32).to_le_bytes()),
        _ => bytes.extend_from_slice(&value.to_le_bytes()),
    }
}

/// Repeatable numbers; the proof of a model must come out the same on every worker. SplitMix64.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn next_below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Uniform in -2 to 2.
    pub(crate) fn next_signed(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64 * 4.0 - 2.0
    }
}
