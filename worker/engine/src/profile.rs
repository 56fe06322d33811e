//! Where the time of a run goes, node by node.

use std::time::{Duration, Instant};

use tract_onnx::prelude::IntoTValue;
use tract_onnx::tract_core::plan::eval;

use crate::error::RunError;
use crate::load::reason;
use crate::plan::OnnxModel;
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

impl OnnxModel {
    /// Runs once on a state of its own and times each node, in the order they run.
    ///
    /// # Errors
    /// As [`Session::run`](crate::Session::run).
    pub fn profile(&self, inputs: Vec<Tensor>) -> Result<Vec<NodeTime>, RunError> {
        let compiled = self.compiled();
        compiled.check(&inputs)?;
        let failed = |error| RunError::Model(reason(&error));
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
        outputs.map_err(failed)?;
        Ok(times)
    }
}
