//! Why a model could not be loaded, and why a batch could not be run.
//!
//! Callers act on the variant; the text is for people and names the tensor, node
//! or file that is at fault.

use std::path::PathBuf;

use crate::element::Element;
use crate::tensor::TensorError;

/// Why a file is not a model this engine serves. Loading it again cannot help, except after [`LoadError::Read`].
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The model and its external data are larger than the caller allows.
    #[error("the model takes {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Size of the file, or of the file and its external data.
        bytes: u64,
        /// [`LoadLimits::max_bytes`](crate::LoadLimits::max_bytes).
        limit: u64,
    },
    /// The graph has more nodes than the caller allows.
    #[error("the graph has {nodes} nodes, the limit is {limit}")]
    TooManyNodes {
        /// Nodes of the graph and of the graphs inside its nodes.
        nodes: usize,
        /// [`LoadLimits::max_nodes`](crate::LoadLimits::max_nodes).
        limit: usize,
    },
    /// The bytes are not ONNX, or are cut off or damaged.
    #[error("not a valid ONNX file: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The model is written for an operator set this engine was not made for.
    #[error(
        "operator set {version} is outside {oldest} to {newest}; export the model again for one of these"
    )]
    Opset {
        /// The version the file asks for.
        version: i64,
        /// The oldest one accepted.
        oldest: i64,
        /// The newest one accepted.
        newest: i64,
    },
    /// The graph uses an operator that has no implementation here.
    #[error("node `{node}` uses operator `{operator}`, which this engine does not have")]
    UnsupportedOperator {
        /// The node's name, or its first output where it has none.
        node: String,
        /// The operator as the file names it.
        operator: String,
    },
    /// An input or output is not a tensor the engine can take or give.
    #[error("tensor `{tensor}`: {reason}")]
    Interface {
        /// Name of the input or output.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A weight lies in a file that may not be read: outside the model's folder, behind a link, or absent.
    #[error("weight `{tensor}` is kept in `{location}`: {reason}")]
    ExternalData {
        /// Name of the initializer.
        tensor: String,
        /// The location the model gives.
        location: String,
        /// Why it is refused.
        reason: String,
    },
    /// The graph does not hold together: shapes clash, or an operator's attributes make no sense.
    #[error("the graph failed at {stage}: {reason}")]
    Graph {
        /// How far it came.
        stage: Stage,
        /// The compiler's account, outermost cause first; it names node and operator where they are known.
        reason: String,
    },
}

/// The steps from bytes to a plan, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// ONNX nodes to operators.
    Translation,
    /// Shapes and element types of every tensor.
    Typing,
    /// Simplification that does not change what is computed.
    Declutter,
    /// Choice of kernels, packing of weights.
    Optimization,
    /// Order of evaluation.
    Planning,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stage::Translation => "translation",
            Stage::Typing => "shape and type analysis",
            Stage::Declutter => "simplification",
            Stage::Optimization => "optimization",
            Stage::Planning => "planning",
        })
    }
}

/// Why a batch gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The tensors do not fit the model's inputs. The same tensors never will.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The model itself failed on these values, say an index out of range. The same values will fail again.
    #[error("the model failed: {0}")]
    Model(String),
    /// The device failed in a way another attempt, perhaps elsewhere, may not.
    #[error("the device failed: {0}")]
    Device(String),
    /// The caller said that nobody wants the answer any more, so the rest was not computed.
    #[error("the run was stopped half-way")]
    Stopped,
}

/// How the given tensors differ from the model's inputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// Too many tensors, or too few.
    #[error("{got} tensors for a model with {expected} inputs")]
    Count {
        /// Tensors given.
        got: usize,
        /// Inputs of the model.
        expected: usize,
    },
    /// An element type differs; the engine converts nothing.
    #[error("input `{tensor}` holds {got}, the model takes {expected}")]
    Element {
        /// Name of the input.
        tensor: String,
        /// Type given.
        got: Element,
        /// Type wanted.
        expected: Element,
    },
    /// The shape differs in rank or in a fixed size, or an open size is zero.
    #[error("input `{tensor}` has shape {got:?}, the model takes {expected}")]
    Shape {
        /// Name of the input.
        tensor: String,
        /// Shape given.
        got: Vec<usize>,
        /// Shape wanted, open sizes by their names: `[batch,64]`.
        expected: String,
    },
    /// One named size has two values, say a batch of 3 in one input and of 4 in another.
    #[error("input `{tensor}` makes `{symbol}` {got}, another input made it {expected}")]
    Symbol {
        /// The later of the two inputs.
        tensor: String,
        /// The size's name.
        symbol: String,
        /// Its value in this input.
        got: usize,
        /// Its value in an earlier input.
        expected: usize,
    },
    /// The bytes are no tensor of the stated type and shape.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}
