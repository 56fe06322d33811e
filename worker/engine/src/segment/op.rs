//! The operator: the same steps on a card and on the CPU, and the choice between the two.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tract_onnx::tract_core::internal::*;

use super::CardSettings;
use super::on_card::OnCard;
use super::on_cpu::{CpuPlan, Meaning};
use super::used::note;
use super::{check, tune};
use crate::cpu::elements;
use crate::gpu::{Choice, GpuError, Program, Step, Tile, Weights};
use crate::load::panic_reason;
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
    pub(super) meanings: Vec<Meaning>,
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
        program: &Program,
        inputs: &[&Tensor],
        symbols: &SymbolValues,
        choice: Choice,
    ) -> Result<Vec<Tensor>, GpuError> {
        let unfit = |error: TractError| GpuError::Unfit(format!("{error:#}"));
        let sizes = self.sizes(symbols).map_err(unfit)?;
        let values = inputs.iter().map(|input| elements::<f32>(input));
        let values = values.collect::<TractResult<Vec<_>>>().map_err(unfit)?;
        let slices: Vec<&[f32]> = values.iter().map(|values| &**values).collect();
        let results = program.run(&slices, &sizes, choice)?;
        let tensors = self.outputs.iter().zip(results);
        let tensors = tensors.map(|(value, result)| Tensor::from_shape(&sizes[*value], &result));
        tensors.collect::<TractResult<_>>().map_err(unfit)
    }

    /// The kernels that are used where nothing was measured.
    pub(super) fn choice(&self) -> Choice {
        if self.settings.deterministic {
            Choice::Alike
        } else {
            Choice::Likely
        }
    }

    /// How the card keeps its weights. Where all kernels have to add up alike, its own products are none of them.
    pub(super) fn kept_as(&self) -> Weights {
        match self.settings.weights {
            Weights::Half if self.settings.deterministic => Weights::F16,
            kept_as => kept_as,
        }
    }

    /// The card's own product of matrices, where its layers may use it.
    pub(super) fn own_product(&self) -> Option<Tile> {
        let may = self.kept_as() == Weights::Half;
        let own = may.then(|| self.card.gpu.cooperates()).flatten();
        own.map(|_| Tile::Cooperative)
    }

    /// Whether runs are sent to it already.
    pub(super) fn counts_on_own_product(&self) -> bool {
        matches!(self.routes.get(), Some(Ok(routes)) if routes.count_on_own_product())
    }

    /// Uploads it, checks it and decides where it runs.
    fn decide(&self, budget: Duration) -> Result<tune::Routes, String> {
        let program = self.upload();
        let program = program.map_err(|error| format!("the card does not take it: {error}"))?;
        let own = check::all(self, &program).map_err(|error| error.reason)?;
        let routes = if self.card.gpu.is_forced() {
            tune::Routes::forced(self.choice())
        } else {
            tune::decide(self, &program, own, budget)?
        };
        // Nobody needs it there if nothing runs there.
        if routes.use_card() {
            self.card.set(Some(program));
        }
        Ok(routes)
    }

    /// Whether any run was decided to go to the card.
    fn uses_card(&self) -> bool {
        matches!(self.routes.get(), Some(Ok(routes)) if routes.use_card())
    }

    /// The kernels, if runs of so many rows go to the card.
    fn route(&self, rows: usize) -> Option<Choice> {
        match self.routes.get()?.as_ref().ok()?.of(rows) {
            tune::Route::Card(choice) => Some(choice),
            tune::Route::Cpu => None,
        }
    }

    /// All outputs by the card; `None` if this run is for the CPU. No failure of the card is one of the run.
    fn try_card(&self, inputs: &[TValue], symbols: &SymbolValues) -> Option<TVec<TValue>> {
        let rows = self.rows.eval(symbols).to_usize().ok();
        let rows = rows.filter(|rows| *rows > 0)?;
        let choice = self.route(rows)?;
        let program = self.card.ready()?;
        let given: TVec<&Tensor> = inputs.iter().map(|input| &**input).collect();
        let run = || self.on_card(&program, &given, symbols, choice);
        let outcome = catch_unwind(AssertUnwindSafe(run));
        let outcome = outcome.unwrap_or_else(|panic| Err(GpuError::Unfit(panic_reason(&*panic))));
        match outcome {
            Ok(outputs) => {
                note(|noted| noted.ran = true);
                Some(outputs.into_iter().map(Tensor::into_tvalue).collect())
            }
            Err(error) => {
                note(|noted| noted.fallbacks += 1);
                self.card.gpu.failed(&error);
                tracing::warn!(%error, segment = self.name, rows, "the batch runs on the CPU, the card gave no result");
                None
            }
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

    /// Whether the card's own product of matrices may be used and passes the check.
    #[cfg(test)]
    pub(super) fn own_product_is_right(&self) -> Result<bool, String> {
        let program = self.0.upload()?;
        let own = check::all(&self.0, &program).map_err(|error| error.reason)?;
        Ok(own.is_some())
    }

    /// Decides once more, as if it were not forced.
    #[cfg(test)]
    pub(super) fn decided(&self, budget: Duration) -> Result<tune::Routes, String> {
        let program = self.0.card.program().ok_or("it is not on the card")?;
        let own = check::all(&self.0, &program).map_err(|error| error.reason)?;
        tune::decide(&self.0, &program, own, budget)
    }

    /// Checks it on the card and decides where it runs.
    pub(super) fn settle(&self, budget: Duration) {
        let segment = &self.0;
        segment.routes.get_or_init(|| {
            let decided = catch_unwind(AssertUnwindSafe(|| segment.decide(budget)));
            decided.unwrap_or_else(|panic| Err(panic_reason(&*panic)))
        });
    }

    pub(super) fn uses_card(&self) -> bool {
        self.0.uses_card()
    }

    pub(super) fn report(&self) -> SegmentReport {
        let segment = &self.0;
        SegmentReport {
            name: segment.name.clone(),
            layers: segment.layers.clone(),
            steps: segment.steps.len(),
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
        if let Some(outputs) = segment.try_card(&inputs, context.symbols) {
            return Ok(outputs);
        }
        if segment.uses_card() {
            segment.revive();
        }
        segment.cpu.run(inputs)
    }
}
