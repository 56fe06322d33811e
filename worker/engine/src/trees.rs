//! Tree ensembles: `TreeEnsembleClassifier` and `TreeEnsembleRegressor` of the domain `ai.onnx.ml`.
//!
//! They take the place of tract's classifier, which looks through all leaves before the one it
//! wants and reads a node of mode `BRANCH_GTE` as a leaf; it has no regressor. What the standard
//! leaves open is as ONNX Runtime does it, except that the label of two classes with scores of their
//! own is the one with the larger score.

mod forest;
mod op;
mod parse;
mod scores;

use tract_onnx::model::OnnxOpRegister;

/// Makes the translator of ONNX nodes use the operators of this module.
pub(crate) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("TreeEnsembleClassifier", op::classifier);
    operators.insert("TreeEnsembleRegressor", op::regressor);
}
