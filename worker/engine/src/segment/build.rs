//! A segment made of nodes of the graph.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::OnceLock;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;

use super::CardSettings;
use super::beside;
use super::lower::{self, Lowered};
use super::on_card::OnCard;
use super::on_cpu::{Chain, CpuPlan, Meaning};
use super::op::{DenseSegment, Segment};
use crate::cpu::dense::Dense;
use crate::gpu::{Gpu, Layer, Operation, Part, Step};

/// Puts one operator in the place of `nodes`, which are in the order of evaluation.
///
/// They stay as they are if the sizes of their values do not follow from those of what comes in.
pub(super) fn replace(
    model: &mut TypedModel,
    nodes: &[usize],
    gpu: &Gpu,
    settings: CardSettings,
) -> TractResult<()> {
    let parts = Parts::of(model, nodes, settings)?;
    if !parts.sizes_are_known(model)? {
        return Ok(());
    }
    let (inputs, outputs) = (parts.given.clone(), parts.outputs(model));
    let segment = parts.segment(model, gpu)?;
    let mut patch = TypedModelPatch::new("dense segment");
    let taps = inputs
        .iter()
        .map(|input| patch.tap_model(model, *input))
        .collect::<TractResult<TVec<_>>>()?;
    let name = format!("{}.segment", model.node(nodes[0]).name);
    let wires = patch.wire_node(name, DenseSegment::new(segment), &taps)?;
    for (old, new) in outputs.into_iter().zip(wires) {
        patch.shunt_outside(model, old, new)?;
    }
    patch.apply(model)
}

/// What a segment is made of, as it is found node by node.
struct Parts<'a> {
    nodes: &'a [usize],
    inside: HashSet<usize>,
    settings: CardSettings,
    /// What comes from outside, and is no constant.
    given: Vec<OutletId>,
    /// Sources first, then what the steps make.
    values: Vec<Value>,
    number: HashMap<OutletId, usize>,
    constants: Vec<Option<Arc<Tensor>>>,
    steps: Vec<Step>,
    meanings: Vec<Meaning>,
}

struct Value {
    /// Where it is in the graph. Layers that became one have a result that is nowhere.
    outlet: Option<OutletId>,
    shape: TVec<TDim>,
}

impl<'a> Parts<'a> {
    fn of(model: &TypedModel, nodes: &'a [usize], settings: CardSettings) -> TractResult<Self> {
        let mut parts = Parts {
            nodes,
            inside: nodes.iter().copied().collect(),
            settings,
            given: vec![],
            values: vec![],
            number: HashMap::new(),
            constants: vec![],
            steps: vec![],
            meanings: vec![],
        };
        let inputs = nodes.iter().flat_map(|id| &model.node(*id).inputs);
        for input in inputs {
            if !parts.inside.contains(&input.node) && !parts.number.contains_key(input) {
                parts.add_source(model, *input)?;
            }
        }
        let groups = beside::groups(model, nodes, &parts.inside)?;
        for id in nodes {
            let node = model.node(*id);
            if let Some(group) = groups.iter().find(|group| group.contains(id)) {
                if group.first() == Some(id) {
                    parts.add_beside(model, group)?;
                }
                continue;
            }
            let lowered = lower::lower(model, node)?;
            let lowered = lowered.with_context(|| format!("{node} is nothing for the card"))?;
            if !parts.grow(model, node)? {
                parts.add_step(model, node, lowered)?;
            }
        }
        Ok(parts)
    }

    fn add_source(&mut self, model: &TypedModel, outlet: OutletId) -> TractResult<()> {
        let constant = model.outlet_fact(outlet)?.konst.clone();
        if constant.is_none() {
            self.given.push(outlet);
        }
        self.constants.push(constant);
        self.add_value(model, outlet)
    }

    fn add_value(&mut self, model: &TypedModel, outlet: OutletId) -> TractResult<()> {
        self.number.insert(outlet, self.values.len());
        self.values.push(Value {
            outlet: Some(outlet),
            shape: model.outlet_fact(outlet)?.shape.to_tvec(),
        });
        Ok(())
    }

    fn numbers(&self, outlets: &[OutletId]) -> Vec<usize> {
        outlets.iter().map(|outlet| self.number[outlet]).collect()
    }

    fn add_step(
        &mut self,
        model: &TypedModel,
        node: &TypedNode,
        lowered: Lowered,
    ) -> TractResult<()> {
        self.steps.push(Step {
            operation: lowered.operation,
            inputs: self.numbers(&lowered.inputs),
        });
        self.meanings.push(Meaning::Chain(Chain {
            operators: vec![node.op.clone()],
            inputs: self.numbers(&node.inputs),
        }));
        self.add_value(model, node.id.into())
    }

    /// One step for the layers of `group`, and one for what each of them gives.
    fn add_beside(&mut self, model: &TypedModel, group: &[usize]) -> TractResult<()> {
        let nodes = group.iter().map(|id| model.node(*id));
        let layers = nodes.clone().filter_map(|node| node.op_as::<Dense>());
        let columns: Vec<usize> = layers.clone().map(|layer| layer.weights().n()).collect();
        let all: usize = columns.iter().sum();
        let first = model.node(group[0]);
        let layer = first.op_as::<Dense>().context("a dense layer")?;
        let rows = self.numbers(&first.inputs);
        self.steps.push(Step {
            operation: Operation::Linear(Layer {
                inputs: layer.weights().k(),
                outputs: all,
                ..Layer::default()
            }),
            inputs: rows.clone(),
        });
        let operators = nodes.clone().map(|node| node.op.clone());
        self.meanings.push(Meaning::Beside(operators.collect()));
        let leading = first.outputs[0].fact.rank() - layer.columns().len();
        let shape = first.outputs[0].fact.shape.iter().take(leading).cloned();
        let together = self.values.len();
        self.values.push(Value {
            outlet: None,
            shape: shape.chain([all.to_dim()]).collect(),
        });
        let mut start = 0;
        for (node, columns) in nodes.zip(columns) {
            self.steps.push(Step {
                operation: Operation::Part(Part {
                    first: start,
                    columns,
                    of: all,
                }),
                inputs: vec![together],
            });
            self.meanings.push(Meaning::Chain(Chain {
                operators: vec![node.op.clone()],
                inputs: rows.clone(),
            }));
            self.add_value(model, node.id.into())?;
            start += columns;
        }
        Ok(())
    }

    /// Lets the dense layer before an activation do that as well, if nobody needs what is in between.
    fn grow(&mut self, model: &TypedModel, node: &TypedNode) -> TractResult<bool> {
        let Some(activation) = node.op_as::<ElementWiseOp>().and_then(lower::activation) else {
            return Ok(false);
        };
        let before = node.inputs[0];
        let step = self.number[&before].checked_sub(self.constants.len());
        let Some(step) = step.filter(|_| !is_needed_elsewhere(model, before, node.id)) else {
            return Ok(false);
        };
        let Operation::Linear(layer) = &mut self.steps[step].operation else {
            return Ok(false);
        };
        if layer.activation.is_some() {
            return Ok(false);
        }
        let Meaning::Chain(chain) = &mut self.meanings[step] else {
            return Ok(false);
        };
        layer.activation = Some(activation);
        chain.operators.push(node.op.clone());
        let value = self.constants.len() + step;
        self.values[value].outlet = Some(node.id.into());
        self.number.insert(node.id.into(), value);
        Ok(true)
    }

    /// Whether the size of every value follows from the sizes of what comes in.
    fn sizes_are_known(&self, model: &TypedModel) -> TractResult<bool> {
        let mut known = BTreeSet::new();
        for outlet in &self.given {
            for size in model.outlet_fact(*outlet)?.shape.iter() {
                if let TDim::Sym(symbol) = size {
                    known.insert(symbol.to_string());
                }
            }
        }
        for value in &self.values {
            for size in &value.shape {
                if !size
                    .symbols()
                    .iter()
                    .all(|symbol| known.contains(&symbol.to_string()))
                {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Values that are needed outside.
    fn outputs(&self, model: &TypedModel) -> Vec<OutletId> {
        let made = self.values[self.constants.len()..].iter();
        let made = made.filter_map(|value| value.outlet);
        made.filter(|value| {
            let successors = &model.node(value.node).outputs[value.slot].successors;
            let outside = |inlet: &InletId| !self.inside.contains(&inlet.node);
            successors.iter().any(outside) || model.outputs.contains(value)
        })
        .collect()
    }

    fn segment(self, model: &TypedModel, gpu: &Gpu) -> TractResult<Segment> {
        let outlets = self.outputs(model);
        let outputs: Vec<usize> = outlets.iter().map(|outlet| self.number[outlet]).collect();
        let shapes: Vec<_> = self.values.into_iter().map(|value| value.shape).collect();
        let layers = self.steps.iter().filter_map(|step| match &step.operation {
            Operation::Linear(layer) => Some([layer.inputs, layer.outputs]),
            _ => None,
        });
        let layers = layers.collect();
        let mut rows = None;
        let mut decided = SymbolValues::default();
        for (step, meaning) in self.meanings.iter().enumerate() {
            let Meaning::Chain(chain) = meaning else {
                continue;
            };
            if let Some(dense) = chain.operators[0].downcast_ref::<Dense>() {
                let shape = &shapes[self.constants.len() + step];
                let leading = shape.len() - dense.columns().len();
                let given = &shapes[chain.inputs[0]];
                let inner = given[given.len() - dense.inner().len()..].iter();
                for (size, decides) in inner.zip(dense.inner()) {
                    if let TDim::Sym(symbol) = size {
                        decided.set(symbol, *decides as i64);
                    }
                }
                rows.get_or_insert_with(|| shape[..leading].iter().product::<TDim>());
            }
        }
        Ok(Segment {
            name: model.node(self.nodes[0]).name.clone(),
            shapes,
            constants: self.constants,
            cpu: CpuPlan::new(model, self.nodes, &self.given, &outlets)?,
            card: OnCard::new(gpu.clone()),
            steps: self.steps,
            meanings: self.meanings,
            layers,
            decided,
            rows: rows.context("a segment has a dense layer")?,
            outputs,
            settings: self.settings,
            routes: OnceLock::new(),
        })
    }
}

fn is_needed_elsewhere(model: &TypedModel, outlet: OutletId, reader: usize) -> bool {
    let successors = &model.node(outlet.node).outputs[outlet.slot].successors;
    successors.iter().any(|inlet| inlet.node != reader) || model.outputs.contains(&outlet)
}
