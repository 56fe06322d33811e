//! The same operators on the CPU: all of them as a plan of their own, or one by one.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::prelude::{TypedSimplePlan, TypedSimpleState};
use tract_onnx::tract_core::internal::*;

use crate::resident;

/// What the segment does, compiled as it would be without a card.
pub(super) struct CpuPlan {
    plan: Arc<TypedSimplePlan>,
    /// States between their runs.
    idle: Mutex<Vec<TypedSimpleState>>,
}

impl CpuPlan {
    /// `nodes` of `model`, given the values `inputs`, up to the values `outputs`.
    pub(super) fn new(
        model: &TypedModel,
        nodes: &[usize],
        inputs: &[OutletId],
        outputs: &[OutletId],
    ) -> TractResult<Self> {
        let mut own = TypedModel {
            symbols: model.symbols.clone(),
            ..TypedModel::default()
        };
        let mut wires: HashMap<OutletId, OutletId> = HashMap::new();
        // Names of their own: a node of the model may be called anything.
        let mut names = (0..).map(|number| format!("inferq.given.{number}"));
        let mut name = || names.next().unwrap_or_default();
        for input in inputs {
            let fact = model.outlet_fact(*input)?.without_value();
            let name = name();
            wires.insert(*input, own.add_source(name, fact)?);
        }
        for id in nodes {
            let node = model.node(*id);
            let mut given = tvec!();
            for input in &node.inputs {
                let wire = match (wires.get(input), &model.outlet_fact(*input)?.konst) {
                    (Some(wire), _) => *wire,
                    (None, Some(constant)) => {
                        let wire = own.add_const(name(), Arc::clone(constant))?;
                        wires.insert(*input, wire);
                        wire
                    }
                    (None, None) => bail!("{input:?} comes from nowhere"),
                };
                given.push(wire);
            }
            let made = own.wire_node(&node.name, node.op.clone(), &given)?;
            wires.extend(
                made.iter()
                    .map(|wire| OutletId::new(*id, wire.slot))
                    .zip(made.clone()),
            );
        }
        let outputs: Vec<OutletId> = outputs.iter().map(|output| wires[output]).collect();
        own.select_output_outlets(&outputs)?;
        let mut optimized = own.into_optimized()?;
        resident::share_constants(&mut optimized)?;
        Ok(CpuPlan {
            plan: TypedSimplePlan::new(optimized)?,
            idle: Mutex::default(),
        })
    }

    pub(super) fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = idle().pop();
        let mut state = match waiting {
            Some(state) => state,
            None => self.plan.spawn()?,
        };
        // A state whose run failed is not used again.
        let outputs = state.run(inputs)?;
        idle().push(state);
        Ok(outputs)
    }
}

impl fmt::Debug for CpuPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuPlan({} nodes)", self.plan.model().nodes().len())
    }
}

/// What a step does, in the operators of the graph.
#[derive(Debug, Clone)]
pub(super) enum Meaning {
    /// One after the other.
    Chain(Chain),
    /// Dense layers beside each other. Steps of their own say what each of them gives.
    Beside(Vec<Box<dyn TypedOp>>),
}

impl Meaning {
    pub(super) fn operators(&self) -> &[Box<dyn TypedOp>] {
        match self {
            Meaning::Chain(chain) => &chain.operators,
            Meaning::Beside(layers) => layers,
        }
    }
}

/// The operators of one step: what the first makes, the next ones change.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub(super) operators: Vec<Box<dyn TypedOp>>,
    /// Values that the first one works on, in its own order.
    pub(super) inputs: Vec<usize>,
}

impl Chain {
    /// What each operator makes of `inputs`.
    pub(super) fn apply(
        &self,
        inputs: TVec<TValue>,
        symbols: &SymbolValues,
    ) -> TractResult<Vec<Tensor>> {
        let context = EvalContext {
            symbols,
            ..EvalContext::out_of_plan()
        };
        let mut made: Vec<Tensor> = Vec::with_capacity(self.operators.len());
        for operator in &self.operators {
            let given = match made.last() {
                Some(before) => tvec!(before.clone().into_tvalue()),
                None => inputs.clone(),
            };
            let mut results = operator.eval(&context, given)?;
            made.push(results.remove(0).into_tensor());
        }
        Ok(made)
    }
}
