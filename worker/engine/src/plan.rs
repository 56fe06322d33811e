//! A compiled model and the per-thread states that run it.

use std::sync::Arc;

use tract_onnx::prelude::{
    IntoTValue, IntoTensor, SymbolValues, TVec, TypedModel, TypedSimplePlan, TypedSimpleState,
};
use tract_onnx::tract_core::internal::{DimLike, TDim, format_err};
use tract_onnx::tract_core::plan::eval;

use crate::element::{Element, TensorSpec};
use crate::error::{InputError, LoadError, RunError};
use crate::load::reason;
use crate::model::{BatchProof, Model, Session};
use crate::profile::{self, NodeTime};
use crate::proof;
use crate::tensor::Tensor;

/// A model compiled by tract, for any batch size its file allows.
#[derive(Debug)]
pub struct OnnxModel {
    compiled: Arc<Compiled>,
    input_specs: Vec<TensorSpec>,
    output_specs: Vec<TensorSpec>,
    about: About,
    proof: BatchProof,
}

/// What the loader knows beside the plan.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) output_names: Vec<String>,
    pub(crate) random_operator: Option<String>,
    pub(crate) constants: Constants,
    /// Name of the card that dense parts may run on.
    #[cfg(feature = "gpu")]
    pub(crate) card: Option<String>,
}

/// Numbers a model brings with it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Constants {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// The numeric class of what ran on the CPU alone.
#[cfg(feature = "gpu")]
const CPU: &str = "cpu";

/// What sessions share.
#[derive(Debug)]
pub(crate) struct Compiled {
    plan: Arc<TypedSimplePlan>,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    /// The numeric class of what ran on the card, at least in part.
    #[cfg(feature = "gpu")]
    card: String,
}

/// An input or output with its sizes as the compiler knows them: numbers, symbols, expressions of both.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) element: Element,
    pub(crate) sizes: TVec<TDim>,
}

impl OnnxModel {
    pub(crate) fn new(plan: Arc<TypedSimplePlan>, about: About) -> Result<Self, LoadError> {
        let model = plan.model();
        let inputs = model
            .inputs
            .iter()
            .map(|input| Port::new(model.node(input.node).name.clone(), model, *input))
            .collect::<Result<Vec<_>, _>>()?;
        let outputs = model
            .outputs
            .iter()
            .zip(&about.output_names)
            .map(|(output, name)| Port::new(name.clone(), model, *output))
            .collect::<Result<Vec<_>, _>>()?;
        let compiled = Arc::new(Compiled {
            plan,
            inputs,
            outputs,
            #[cfg(feature = "gpu")]
            card: (about.card.as_ref())
                .map_or_else(|| CPU.to_owned(), |name| format!("gpu:{name}")),
        });
        let proof = proof::prove(&compiled, about.random_operator.as_deref());
        Ok(OnnxModel {
            input_specs: compiled.inputs.iter().map(Port::spec).collect(),
            output_specs: compiled.outputs.iter().map(Port::spec).collect(),
            compiled,
            about,
            proof,
        })
    }

    #[cfg(feature = "gpu")]
    pub(crate) fn graph(&self) -> &TypedModel {
        self.compiled.graph()
    }
}

impl Model for OnnxModel {
    fn inputs(&self) -> &[TensorSpec] {
        &self.input_specs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.output_specs
    }

    fn batch_proof(&self) -> &BatchProof {
        &self.proof
    }

    fn is_deterministic(&self) -> bool {
        self.about.random_operator.is_none()
    }

    fn memory_bytes(&self) -> u64 {
        self.about.constants.bytes
    }

    fn parameters(&self) -> u64 {
        self.about.constants.count
    }

    fn trial_inputs(&self, rows: usize) -> Option<Vec<Tensor>> {
        proof::trial_inputs(&self.compiled, rows)
    }

    fn profile(&self, inputs: Vec<Tensor>) -> Result<Vec<NodeTime>, RunError> {
        profile::run(&self.compiled, inputs)
    }

    #[cfg(feature = "gpu")]
    fn segments(&self) -> Vec<crate::model::SegmentReport> {
        crate::segment::reports(self.compiled.graph())
    }

    #[cfg(feature = "gpu")]
    fn numeric_class(&self) -> &str {
        if crate::segment::uses_card(self.compiled.graph()) {
            &self.compiled.card
        } else {
            CPU
        }
    }

    fn session(&self) -> Result<Box<dyn Session>, RunError> {
        let mut session = PlanSession::new(Arc::clone(&self.compiled));
        session.state = Some(self.compiled.spawn()?);
        Ok(Box::new(session))
    }
}

/// One thread's tract state.
///
/// A state that saw an error is poisoned: it keeps the sizes of the failed run and refuses
/// the next good one. So the state is taken out for each run and put back only after success;
/// an error or a panic drops it, and the run after that begins with a fresh one.
pub(crate) struct PlanSession {
    compiled: Arc<Compiled>,
    state: Option<TypedSimpleState>,
    #[cfg(feature = "gpu")]
    card: crate::segment::CardUse,
}

impl PlanSession {
    pub(crate) fn new(compiled: Arc<Compiled>) -> Self {
        PlanSession {
            compiled,
            state: None,
            #[cfg(feature = "gpu")]
            card: crate::segment::CardUse::default(),
        }
    }
}

impl Session for PlanSession {
    fn run_while(
        &mut self,
        inputs: Vec<Tensor>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Vec<Tensor>, RunError> {
        self.compiled.check(&inputs)?;
        let mut state = match self.state.take() {
            Some(state) => state,
            None => self.compiled.spawn()?,
        };
        let inputs = inputs
            .into_iter()
            .map(|tensor| tensor.into_inner().into_tvalue())
            .collect();
        // What a run noted that panicked is not this one's.
        #[cfg(feature = "gpu")]
        crate::segment::take_use();
        let mut stopped = false;
        let outputs = state.run_plan_with_eval(inputs, |context, op_state, node, inputs| {
            if wanted() {
                eval(context, op_state, node, inputs)
            } else {
                stopped = true;
                Err(format_err!("stopped before {node}"))
            }
        });
        // Also after an error, so that it is not counted for the next run.
        #[cfg(feature = "gpu")]
        {
            self.card = crate::segment::take_use();
        }
        let outputs = outputs.map_err(|error| match stopped {
            true => RunError::Stopped,
            false => RunError::Model(reason(&error)),
        })?;
        self.state = Some(state);
        outputs
            .into_iter()
            .map(|output| Tensor::from_inner(output.into_tensor()))
            .collect::<Result<_, _>>()
            .map_err(|error| RunError::Model(error.to_string()))
    }

    #[cfg(feature = "gpu")]
    fn device_class(&self) -> &str {
        if self.card.ran {
            &self.compiled.card
        } else {
            CPU
        }
    }

    #[cfg(feature = "gpu")]
    fn fallbacks(&self) -> u64 {
        self.card.fallbacks
    }
}

impl Compiled {
    #[cfg(feature = "gpu")]
    pub(crate) fn graph(&self) -> &TypedModel {
        self.plan.model()
    }

    pub(crate) fn spawn(&self) -> Result<TypedSimpleState, RunError> {
        self.plan
            .spawn()
            .map_err(|error| RunError::Device(reason(&error)))
    }

    /// Compares the tensors with the inputs, so that tract never sees what it would choke on.
    pub(crate) fn check(&self, tensors: &[Tensor]) -> Result<(), InputError> {
        let (got, expected) = (tensors.len(), self.inputs.len());
        if got != expected {
            return Err(InputError::Count { got, expected });
        }
        let mut symbols = SymbolValues::default();
        for (port, tensor) in self.inputs.iter().zip(tensors) {
            port.check(tensor, &mut symbols)?;
        }
        Ok(())
    }
}

impl Port {
    fn new(
        name: String,
        model: &TypedModel,
        outlet: tract_onnx::prelude::OutletId,
    ) -> Result<Self, LoadError> {
        let fact = model
            .outlet_fact(outlet)
            .map_err(|error| LoadError::Interface {
                tensor: name.clone(),
                reason: reason(&error),
            })?;
        // tract calculates shapes in a type of its own, which leaves the engine as `i64`.
        let element = Element::of(fact.datum_type).ok_or_else(|| LoadError::Interface {
            tensor: name.clone(),
            reason: format!(
                "elements of type {:?} cannot enter or leave",
                fact.datum_type
            ),
        })?;
        Ok(Port {
            name,
            element,
            sizes: fact.shape.iter().cloned().collect(),
        })
    }

    fn spec(&self) -> TensorSpec {
        TensorSpec {
            name: self.name.clone(),
            element: self.element,
            shape: self.sizes.iter().map(|size| size.to_usize().ok()).collect(),
        }
    }

    fn check(&self, tensor: &Tensor, symbols: &mut SymbolValues) -> Result<(), InputError> {
        if tensor.element() != self.element {
            return Err(InputError::Element {
                tensor: self.name.clone(),
                got: tensor.element(),
                expected: self.element,
            });
        }
        let misfit = || InputError::Shape {
            tensor: self.name.clone(),
            got: tensor.shape().to_vec(),
            expected: shape_text(&self.sizes),
        };
        if tensor.shape().len() != self.sizes.len() {
            return Err(misfit());
        }
        for (size, &got) in self.sizes.iter().zip(tensor.shape()) {
            match size {
                TDim::Val(fixed) if usize::try_from(*fixed) == Ok(got) => {}
                // Kernels are chosen on the understanding that there is at least one row.
                TDim::Val(_) => return Err(misfit()),
                _ if got == 0 => return Err(misfit()),
                TDim::Sym(symbol) => match symbols.get(symbol) {
                    None => symbols.set(symbol, i64::try_from(got).map_err(|_| misfit())?),
                    Some(expected) if usize::try_from(expected) == Ok(got) => {}
                    Some(expected) => {
                        return Err(InputError::Symbol {
                            tensor: self.name.clone(),
                            symbol: symbol.to_string(),
                            got,
                            expected: usize::try_from(expected).unwrap_or_default(),
                        });
                    }
                },
                // An expression of symbols this or an earlier input has set; else tract decides.
                expression => match expression.eval(symbols).to_usize() {
                    Ok(expected) if expected != got => return Err(misfit()),
                    _ => {}
                },
            }
        }
        Ok(())
    }
}

/// `[batch,64]`
pub(crate) fn shape_text(sizes: &[TDim]) -> String {
    let sizes: Vec<String> = sizes.iter().map(TDim::to_string).collect();
    format!("[{}]", sizes.join(","))
}
