//! The seam between the worker and whatever runs its models.
//!
//! [`OnnxModel`](crate::OnnxModel) is the implementation with tract behind it; tests of
//! the worker bring their own. Both traits are synchronous: a forward pass blocks, and
//! the thread it blocks is one kept for that.

use crate::element::TensorSpec;
use crate::error::RunError;
use crate::profile::NodeTime;
use crate::tensor::Tensor;

/// A loaded model: immutable, shared by threads.
///
/// An implementation keeps inputs and outputs in the model's own order and never changes
/// any of its answers during its life.
pub trait Model: Send + Sync {
    /// What [`Session::run`] takes, in order.
    fn inputs(&self) -> &[TensorSpec];

    /// What [`Session::run`] gives, in order.
    fn outputs(&self) -> &[TensorSpec];

    /// Whether rows of different requests may share one run.
    fn batch_proof(&self) -> &BatchProof;

    /// Whether equal inputs give equal outputs: `false` as soon as one operator may draw random numbers.
    fn is_deterministic(&self) -> bool;

    /// Bytes of the constants that stay in memory as long as the model does.
    fn memory_bytes(&self) -> u64;

    /// Numbers in those constants.
    fn parameters(&self) -> u64 {
        0
    }

    /// Inputs of `rows` rows that the model can be tried with: ordinary numbers, short texts. `None` if no
    /// sizes are known with which it runs.
    fn trial_inputs(&self, rows: usize) -> Option<Vec<Tensor>> {
        let _ = rows;
        None
    }

    /// Runs once on a state of its own and times each operator, in the order they run; nothing where that cannot be told.
    ///
    /// # Errors
    /// As [`Session::run`].
    fn profile(&self, inputs: Vec<Tensor>) -> Result<Vec<NodeTime>, RunError> {
        let _ = inputs;
        Ok(Vec::new())
    }

    /// Dense parts that were cut out for a graphics card, and where each runs; none where there is no card.
    fn segments(&self) -> Vec<SegmentReport> {
        Vec::new()
    }

    /// The numeric class that all runs are in unless a card fails, as [`Session::device_class`] names it. Of a model
    /// that was not loaded as deterministic some numbers of rows may run elsewhere.
    fn numeric_class(&self) -> &str {
        "cpu"
    }

    /// A fresh state for one thread. Cheap beside loading: constants are shared.
    ///
    /// # Errors
    /// [`RunError::Device`] if the state cannot be made.
    fn session(&self) -> Result<Box<dyn Session>, RunError>;
}

/// One thread's state of a model.
///
/// An `Err` or a panic leaves nothing behind: the next run is as good as one on a fresh session.
pub trait Session: Send {
    /// Runs the model once and blocks until the outputs are in host memory.
    ///
    /// `inputs` are in the order of [`Model::inputs`], the result in that of [`Model::outputs`].
    ///
    /// # Errors
    /// [`RunError::Input`] before anything runs, if a tensor does not fit its spec;
    /// [`RunError::Model`] and [`RunError::Device`] if the run itself failed.
    fn run(&mut self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, RunError> {
        self.run_while(inputs, &|| true)
    }

    /// The same, for as long as the answer is wanted: `wanted` is asked before each operator, on this thread,
    /// and should cost little beside one. What is inside an operator (a loop, a dense part on a card) is one piece.
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`RunError::Stopped`] once `wanted` said no.
    fn run_while(
        &mut self,
        inputs: Vec<Tensor>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Vec<Tensor>, RunError>;

    /// The numeric class of the last run's answers, named in each outcome: `cpu`, or `gpu:` and the
    /// adapter's name. Two classes may differ in the last bits.
    fn device_class(&self) -> &str {
        "cpu"
    }

    /// Parts of the last run that a card gave no result for and that were computed on the CPU instead.
    fn fallbacks(&self) -> u64 {
        0
    }
}

/// What became of a dense part of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// Name of its first operator.
    pub name: String,
    /// Columns in and out of each dense layer.
    pub layers: Vec<[usize; 2]>,
    /// Steps on the card, dense layers among them.
    pub steps: usize,
    /// Where it runs, as a sentence: by number of rows, or why not on the card.
    pub decision: String,
}

/// Whether a row's answer is independent of the rows beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchProof {
    /// Rows run together, alone and in another order gave the same bits.
    Proven,
    /// Each request has to run by itself.
    Refused {
        /// The input or output that failed.
        tensor: String,
        /// Why, as half a sentence after the tensor's name: "its axis 0 is fixed at 4".
        reason: String,
    },
}

impl BatchProof {
    /// Whether rows may be merged, split and cached one by one.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        matches!(self, BatchProof::Proven)
    }
}
