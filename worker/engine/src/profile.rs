//! Where the time of a run goes, node by node.

use std::time::{Duration, Instant};

use tract_onnx::prelude::IntoTValue;
use tract_onnx::tract_core::plan::eval;

use crate::error::RunError;
use crate::load::reason;
use crate::plan::Compiled;
use crate::tensor::Tensor;

/// What one node of the compiled graph took in one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTime {
    /// Its name, which begins with that of the ONNX node it comes from.
    pub node: String,
    /// What it computes, by the name its operator has after compilation.
    pub operator: String,
    /// Wall time.
    pub took: Duration,
}

/// See [`Model::profile`](crate::Model::profile).
pub(crate) fn run(compiled: &Compiled, inputs: Vec<Tensor>) -> Result<Vec<NodeTime>, RunError> {
    compiled.check(&inputs)?;
    let mut state = compiled.spawn()?;
    let inputs = inputs
        .into_iter()
        .map(|tensor| tensor.into_inner().into_tvalue())
        .collect();
    let mut times = Vec::new();
    let outputs = state.run_plan_with_eval(inputs, |context, state, node, inputs| {
        let started = Instant::now();
        let outputs = eval(context, state, node, inputs);
        times.push(NodeTime {
            node: node.name.clone(),
            operator: node.op.name().into_owned(),
            took: started.elapsed(),
        });
        outputs
    });
    outputs.map_err(|error| RunError::Model(reason(&error)))?;
    Ok(times)
}
