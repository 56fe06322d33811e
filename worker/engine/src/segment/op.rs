//! The operator: the same steps on a card and on the CPU, and the choice between the two.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tract_onnx::tract_core::internal::*;

use super::CardSettings;
use super::on_card::OnCard;
use super::on_cpu::{Chain, CpuPlan};
use super::used::note;
use super::{check, tune};
use crate::cpu::elements;
use crate::gpu::{Choice, GpuError, Step};
use crate::model::SegmentReport;

/// Operators that belong together.
#[derive(Debug, Clone)]
pub(super) struct DenseSegment(Arc<Segment>);

/// Values are counted: sources first, then what each step makes.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: String,
    /// Of each value.
    pub(super) shapes: Vec<TVec<TDim>>,
    /// Of each source that is one; all others come with each run.
    pub(super) constants: Vec<Option<Arc<Tensor>>>,
    /// What each step does, in the words of the card, without the numbers it brings with it.
    pub(super) steps: Vec<Step>,
    /// What each step does, in the operators of the graph.
    pub(super) chains: Vec<Chain>,
    /// Values that are needed outside.
    pub(super) outputs: Vec<usize>,
    /// Columns in and out of each dense layer.
    pub(super) layers: Vec<[usize; 2]>,
    /// How many rows the first dense layer has.
    pub(super) rows: TDim,
    /// Sizes that the model leaves open and a dense layer decides.
    pub(super) decided: SymbolValues,
    pub(super) cpu: CpuPlan,
    pub(super) card: OnCard,
    pub(super) settings: CardSettings,
    /// Decided once, after loading; until then everything runs here.
    pub(super) routes: OnceLock<Result<tune::Routes, String>>,
}

impl Segment {
    /// The shape of each value.
    pub(super) fn sizes(&self, symbols: &SymbolValues) -> TractResult<Vec<Vec<usize>>> {
        let sizes = |shape: &TVec<TDim>| {
            let sizes = shape.iter().map(|size| size.eval(symbols).to_usize());
            Ok(sizes.collect::<Result<_, _>>()?)
        };
        self.shapes.iter().map(sizes).collect()
    }

    /// All outputs, calculated here.
    pub(super) fn on_cpu(&self, inputs: &[Tensor]) -> TractResult<()> {
        let inputs = inputs.iter().map(|input| input.clone().into_tvalue());
        self.cpu.run(inputs.collect()).map(drop)
    }

    /// All outputs, as the card gives them.
    pub(super) fn on_card(
        &self,
        inputs: &[&Tensor],
        symbols: &SymbolValues,
        choice: Choice,
    ) -> TractResult<Result<Vec<Tensor>, GpuError>> {
        let Some(program) = self.card.program() else {
            return Ok(Err(GpuError::Lost("nothing was uploaded".to_owned())));
        };
        let sizes = self.sizes(symbols)?;
        let values = inputs.iter().map(|input| elements::<f32>(input));
        let values = values.collect::<TractResult<Vec<_>>>()?;
        let slices: Vec<&[f32]> = values.iter().map(|values| &**values).collect();
        let results = match program.run(&slices, &sizes, choice) {
            Ok(results) => results,
            Err(error) => return Ok(Err(error)),
        };
        let tensors = self.outputs.iter().zip(results);
        let tensors = tensors.map(|(value, result)| Tensor::from_shape(&sizes[*value], &result));
        tensors.collect::<TractResult<Vec<_>>>().map(Ok)
    }

    /// The kernels that are used where nothing was measured.
    pub(super) fn choice(&self) -> Choice {
        if self.settings.deterministic {
            Choice::Alike
        } else {
            Choice::Likely
        }
    }

    fn route(&self, rows: usize) -> tune::Route {
        match self.routes.get() {
            Some(Ok(routes)) if self.card.is_ready() => routes.of(rows),
            _ => tune::Route::Cpu,
        }
    }
}

impl DenseSegment {
    pub(super) fn new(segment: Segment) -> Self {
        DenseSegment(Arc::new(segment))
    }

    pub(super) fn of(node: &TypedNode) -> Option<&DenseSegment> {
        node.op_as()
    }

    #[cfg(test)]
    pub(super) fn segment(&self) -> &Segment {
        &self.0
    }

    /// Checks it on the card and decides where it runs.
    pub(super) fn settle(&self, budget: Duration) {
        let segment = &self.0;
        segment.routes.get_or_init(|| {
            let taken = segment.upload();
            taken.map_err(|error| format!("the card does not take it: {error}"))?;
            check::agree(segment, segment.choice())?;
            if segment.card.gpu.is_forced() {
                return Ok(tune::Routes::forced(segment.choice()));
            }
            tune::decide(segment, budget)
        });
    }

    pub(super) fn uses_card(&self) -> bool {
        matches!(self.0.routes.get(), Some(Ok(routes)) if routes.use_card())
    }

    pub(super) fn report(&self) -> SegmentReport {
        let segment = &self.0;
        SegmentReport {
            name: segment.name.clone(),
            layers: segment.layers.clone(),
            steps: segment.chains.len(),
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
    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let outputs = self.0.outputs.iter();
        Ok(outputs
            .map(|value| f32::fact(self.0.shapes[*value].clone()))
            .collect())
    }

    as_op!();
}

impl EvalOp for DenseSegment {
    not_out_of_plan!();

    fn eval(&self, context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let segment = &self.0;
        let rows = segment.rows.eval(context.symbols).to_usize()?;
        if let (tune::Route::Card(choice), 1..) = (segment.route(rows), rows) {
            let given: TVec<&Tensor> = inputs.iter().map(|input| &**input).collect();
            match segment.on_card(&given, context.symbols, choice)? {
                Ok(outputs) => {
                    note(|noted| noted.ran = true);
                    return Ok(outputs.into_iter().map(Tensor::into_tvalue).collect());
                }
                Err(error) => {
                    note(|noted| noted.fallbacks += 1);
                    segment.card.gpu.failed(&error);
                    tracing::warn!(%error, segment = segment.name, rows, "the batch runs on the CPU, the card gave no result");
                }
            }
        }
        if matches!(segment.routes.get(), Some(Ok(_))) {
            segment.revive();
        }
        segment.cpu.run(inputs)
    }
}
