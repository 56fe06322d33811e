//! The operator: the same layers on a card and on the CPU, and the choice between the two.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tract_onnx::tract_core::internal::*;

use super::{check, tune};
use crate::cpu::dense::Dense;
use crate::cpu::elements;
use crate::gpu::{Gpu, GpuError, Layer, Program, Step};
use crate::model::SegmentReport;

/// Places in the graph that a value of a segment comes from, in the order of their numbers.
type Values = Vec<OutletId>;

/// Dense layers that belong together.
#[derive(Debug, Clone)]
pub(super) struct DenseSegment(Arc<Segment>);

#[derive(Debug)]
pub(super) struct Segment {
    name: String,
    pub(super) inputs: Vec<Input>,
    pub(super) steps: Vec<CpuStep>,
    /// Values that are needed outside.
    pub(super) outputs: Vec<usize>,
    gpu: Gpu,
    /// The layers on the card, or why they are not there.
    pub(super) program: Result<Program, GpuError>,
    /// Decided once, after loading; until then everything runs here.
    routes: OnceLock<Result<tune::Routes, String>>,
}

/// Rows of columns, as the graph holds them: the sizes of the axes that are columns together.
#[derive(Debug, Clone)]
pub(super) struct Input {
    axes: TVec<usize>,
    pub(super) columns: usize,
}

/// A layer and the values it works on.
#[derive(Debug)]
pub(super) struct CpuStep {
    pub(super) dense: Dense,
    pub(super) inputs: Vec<usize>,
}

thread_local! {
    static USE: Cell<CardUse> = const { Cell::new(CardUse { ran: false, fallbacks: 0 }) };
}

/// What the segments of a run did with the card.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CardUse {
    /// At least one ran there.
    pub(crate) ran: bool,
    /// So many should have, and ran on the CPU.
    pub(crate) fallbacks: u64,
}

/// What the segments that ran on this thread did since the last call.
pub(crate) fn take_use() -> CardUse {
    USE.take()
}

fn note(change: impl Fn(&mut CardUse)) {
    let mut noted = USE.get();
    change(&mut noted);
    USE.set(noted);
}

/// Puts one operator in the place of the nodes of a segment.
pub(super) fn replace(model: &mut TypedModel, nodes: &[usize], gpu: &Gpu) -> TractResult<()> {
    let (segment, values) = Segment::new(model, nodes, gpu)?;
    let mut patch = TypedModelPatch::new("dense segment");
    let taps = values[..segment.inputs.len()]
        .iter()
        .map(|input| patch.tap_model(model, *input))
        .collect::<TractResult<TVec<_>>>()?;
    let outputs: Vec<OutletId> = segment.outputs.iter().map(|value| values[*value]).collect();
    let name = format!("{}.segment", segment.name);
    let wires = patch.wire_node(name, DenseSegment(Arc::new(segment)), &taps)?;
    for (old, new) in outputs.into_iter().zip(wires) {
        patch.shunt_outside(model, old, new)?;
    }
    patch.apply(model)
}

impl Segment {
    fn new(model: &TypedModel, nodes: &[usize], gpu: &Gpu) -> TractResult<(Self, Values)> {
        let mut values = Values::new();
        let mut inputs = Vec::new();
        let mut layers = Vec::new();
        for id in nodes {
            let node = model.node(*id);
            let dense = node
                .op_as::<Dense>()
                .context("a segment is made of dense layers")?;
            for (place, input) in node.inputs.iter().enumerate() {
                if nodes.contains(&input.node) || values.contains(input) {
                    continue;
                }
                let axes: TVec<usize> = match place {
                    0 => dense.inner().into(),
                    _ => dense.columns().into(),
                };
                values.push(*input);
                inputs.push(Input {
                    columns: axes.iter().product(),
                    axes,
                });
            }
            layers.push((node, dense));
        }
        values.extend(nodes.iter().map(|id| OutletId::from(*id)));
        let number: HashMap<OutletId, usize> = values
            .iter()
            .enumerate()
            .map(|(number, value)| (*value, number))
            .collect();
        let steps: Vec<CpuStep> = layers
            .iter()
            .map(|(node, dense)| CpuStep {
                dense: (*dense).clone(),
                inputs: node.inputs.iter().map(|input| number[input]).collect(),
            })
            .collect();
        let leaves = |id: &usize| {
            let outside = |inlet: &InletId| !nodes.contains(&inlet.node);
            model.node(*id).outputs[0].successors.iter().any(outside)
                || model.outputs.contains(&(*id).into())
        };
        let outputs: Vec<usize> = nodes
            .iter()
            .filter(|id| leaves(id))
            .map(|id| number[&OutletId::from(*id)])
            .collect();
        let on_card: Vec<Step> = steps.iter().map(CpuStep::for_card).collect();
        let columns: Vec<usize> = inputs.iter().map(|input| input.columns).collect();
        let segment = Segment {
            name: model.node(nodes[0]).name.clone(),
            program: Program::new(gpu, &columns, &on_card, &outputs),
            inputs,
            steps,
            outputs,
            gpu: gpu.clone(),
            routes: OnceLock::new(),
        };
        Ok((segment, values))
    }

    /// All outputs, calculated here.
    pub(super) fn on_cpu(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let mut made: Vec<Tensor> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let result = step.dense.apply(&step.given(inputs, &made))?;
            made.push(result);
        }
        // Each is the result of a step of its own, which nobody needs any more.
        let outputs = self.outputs.iter();
        Ok(outputs
            .map(|value| std::mem::take(&mut made[value - inputs.len()]))
            .collect())
    }

    /// All outputs, as the card gives them.
    pub(super) fn on_card(
        &self,
        inputs: &[&Tensor],
        rows: usize,
    ) -> TractResult<Result<Vec<Tensor>, GpuError>> {
        let program = match &self.program {
            Ok(program) => program,
            Err(error) => return Ok(Err(error.clone())),
        };
        let rows_of = inputs.iter().map(|input| elements::<f32>(input));
        let rows_of = rows_of.collect::<TractResult<Vec<_>>>()?;
        let slices: Vec<&[f32]> = rows_of.iter().map(|rows| &**rows).collect();
        let results = match program.run(&slices, rows) {
            Ok(results) => results,
            Err(error) => return Ok(Err(error)),
        };
        let leading = self.leading(inputs[0].shape());
        let tensors = self.outputs.iter().zip(results).map(|(value, result)| {
            let mut shape: TVec<usize> = leading.into();
            let step = &self.steps[value - self.inputs.len()];
            shape.extend(step.dense.columns().iter().copied());
            Tensor::from_shape(&shape, &result)
        });
        tensors.collect::<TractResult<Vec<_>>>().map(Ok)
    }

    /// The axes of the first input that are rows.
    fn leading<'a>(&self, shape: &'a [usize]) -> &'a [usize] {
        &shape[..shape.len() - self.inputs[0].axes.len()]
    }

    /// The shape of an input with one axis of rows.
    pub(super) fn input_shape(&self, input: usize, rows: usize) -> TVec<usize> {
        let mut shape = tvec!(rows);
        shape.extend(self.inputs[input].axes.iter().copied());
        shape
    }

    fn route(&self, rows: usize) -> tune::Route {
        match self.routes.get() {
            Some(Ok(routes)) if self.gpu.usable() => routes.of(rows),
            _ => tune::Route::Cpu,
        }
    }
}

impl CpuStep {
    /// What the step works on: inputs of the segment and what the steps before it have made.
    fn given<'a, T>(&self, inputs: &[&'a T], made: &'a [T]) -> TVec<&'a T> {
        let values = self.inputs.iter();
        values
            .map(|value| match value.checked_sub(inputs.len()) {
                None => inputs[*value],
                Some(step) => &made[step],
            })
            .collect()
    }

    fn for_card(&self) -> Step {
        let weights = self.dense.weights();
        Step {
            layer: Layer {
                inputs: weights.k(),
                outputs: weights.n(),
                weights: weights.unpacked(),
                bias: self.dense.bias(),
                bounds: self.dense.bounds(),
            },
            rows: self.inputs[0],
            residual: self.dense.takes_residual().then(|| self.inputs[1]),
        }
    }
}

impl DenseSegment {
    pub(super) fn of(node: &TypedNode) -> Option<&Self> {
        node.op_as::<Self>()
    }

    #[cfg(test)]
    pub(super) fn segment(&self) -> &Segment {
        &self.0
    }

    pub(super) fn settle(&self, budget: Duration) {
        let segment = &self.0;
        segment.routes.get_or_init(|| {
            if let Err(error) = &segment.program {
                return Err(format!("the card does not take it: {error}"));
            }
            check::agree(segment)?;
            if segment.gpu.is_forced() {
                return Ok(tune::Routes::forced());
            }
            tune::measure(segment, budget)
        });
    }

    pub(super) fn report(&self) -> SegmentReport {
        let segment = &self.0;
        let layer = |step: &CpuStep| [step.dense.weights().k(), step.dense.weights().n()];
        SegmentReport {
            name: segment.name.clone(),
            layers: segment.steps.iter().map(layer).collect(),
            decision: match segment.routes.get() {
                Some(Ok(routes)) => routes.to_string(),
                Some(Err(reason)) => format!("on the CPU: {reason}"),
                None => "on the CPU: not checked yet".to_owned(),
            },
        }
    }
}

impl PartialEq for DenseSegment {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for DenseSegment {}

impl Op for DenseSegment {
    fn name(&self) -> StaticName {
        "DenseSegment".into()
    }

    op_as_typed_op!();
}

impl TypedOp for DenseSegment {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut made: Vec<TypedFact> = Vec::with_capacity(self.0.steps.len());
        for step in &self.0.steps {
            let facts = step.dense.output_facts(&step.given(inputs, &made))?;
            made.extend(facts);
        }
        let outputs = self.0.outputs.iter();
        Ok(outputs
            .map(|value| made[value - inputs.len()].clone())
            .collect())
    }

    as_op!();
}

impl EvalOp for DenseSegment {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let segment = &self.0;
        let inputs: TVec<&Tensor> = inputs.iter().map(|input| &**input).collect();
        let rows = segment.leading(inputs[0].shape()).iter().product();
        if segment.route(rows) == tune::Route::Card && rows > 0 {
            match segment.on_card(&inputs, rows)? {
                Ok(outputs) => {
                    note(|noted| noted.ran = true);
                    return Ok(outputs.into_iter().map(Tensor::into_tvalue).collect());
                }
                Err(error) => {
                    note(|noted| noted.fallbacks += 1);
                    segment.gpu.failed(&error);
                    tracing::warn!(%error, segment = segment.name, rows, "the batch runs on the CPU, the card gave no result");
                }
            }
        }
        let outputs = segment.on_cpu(&inputs)?;
        Ok(outputs.into_iter().map(Tensor::into_tvalue).collect())
    }
}
