//! What a step of a program does. All values are `f32`, row-major and without gaps.

use inferq_shaders::{activation, elementwise};

/// What one step makes of the values it is given.
#[derive(Debug, Clone)]
pub enum Operation {
    /// `activated(rows · weights + bias + residual)`, of the rows and, if there is a second value, that residual.
    /// The rows' last axes together are `inputs` long.
    Linear(Layer),
    /// Products of two values along the axes that they share.
    Product(Pairs),
    /// `softmax(scores * scale + mask)` along the last axis, of the scores and, if there is a second value, that
    /// mask, which broadcasts to the scores. With a mask, of at most four axes.
    Softmax {
        /// Every score is multiplied by it.
        scale: f32,
    },
    /// Layer norm or RMS norm along the last axis.
    Norm(Norm),
    /// `activated(left with right)`. The right one has the axes of the left one or fewer, four at most, and
    /// broadcasts to it.
    Elementwise {
        /// How the second value is taken in, if there is one.
        combine: Option<Combine>,
        /// What comes last.
        activation: Option<Activation>,
    },
    /// The same elements in the same order, under another shape.
    View,
}

impl Operation {
    /// The same without the numbers that are on the device: what a launch has to know.
    pub(super) fn without_numbers(self) -> Self {
        match self {
            Operation::Linear(layer) => Operation::Linear(Layer {
                weights: vec![],
                bias: vec![],
                ..layer
            }),
            Operation::Norm(norm) => Operation::Norm(Norm {
                scale: norm.scale.map(|_| vec![]),
                shift: norm.shift.map(|_| vec![]),
                ..norm
            }),
            other @ (Operation::Product(_)
            | Operation::Softmax { .. }
            | Operation::Elementwise { .. }
            | Operation::View) => other,
        }
    }
}

/// A dense layer.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// Columns of its rows.
    pub inputs: usize,
    /// Columns of its result.
    pub outputs: usize,
    /// `[inputs, outputs]`, row-major.
    pub weights: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
    /// What comes last.
    pub activation: Option<Activation>,
}

/// Which axis of each value a product goes along; an axis that is not there counts as one of size 1.
///
/// `result[outer, inner, row, column] = sum over k of left[outer, inner, row, k] * right[outer, inner, k, column]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pairs {
    /// Of the left value; its columns are `k`.
    pub left: Axes,
    /// Of the right value; its rows are `k`.
    pub right: Axes,
    /// Of the result.
    pub result: Axes,
}

/// Axes of a value by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Axes {
    /// One product for each index.
    pub outer: Option<usize>,
    /// One product for each index, within the outer one.
    pub inner: Option<usize>,
    /// Rows of the matrices.
    pub row: Option<usize>,
    /// Columns of the matrices.
    pub column: Option<usize>,
}

/// `(row - mean) / sqrt(mean of squares + epsilon) * scale + shift`.
#[derive(Debug, Clone, Default)]
pub struct Norm {
    /// Length of a row.
    pub columns: usize,
    /// Whether the mean is subtracted, as in layer norm; RMS norm does not.
    pub centered: bool,
    /// Added to the mean of the squares.
    pub epsilon: f32,
    /// `[columns]`, if there is one.
    pub scale: Option<Vec<f32>>,
    /// `[columns]`, if there is one.
    pub shift: Option<Vec<f32>>,
}

/// How two values become one, element by element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// `left + right`.
    Add,
    /// `left - right`.
    Subtract,
    /// `right - left`.
    SubtractFrom,
    /// `left * right`.
    Multiply,
}

impl Combine {
    pub(super) fn number(self) -> u32 {
        match self {
            Combine::Add => elementwise::ADD,
            Combine::Subtract => elementwise::SUBTRACT,
            Combine::SubtractFrom => elementwise::SUBTRACT_FROM,
            Combine::Multiply => elementwise::MULTIPLY,
        }
    }
}

/// A function of each element alone. A NaN stays one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// Within bounds, infinite where there is none; relu is `0` and infinity.
    Clip {
        /// Nothing is smaller.
        low: f32,
        /// Nothing is larger.
        high: f32,
    },
    /// `x / 2 * (1 + erf(x / sqrt(2)))`.
    Gelu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))`.
    GeluTanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * clip(x / 6 + 1 / 2, 0, 1)`.
    HardSwish,
    /// `slope * x` where `x` is negative.
    LeakyRelu {
        /// The factor.
        slope: f32,
    },
}

impl Activation {
    pub(super) fn number(self) -> u32 {
        match self {
            Activation::Clip { .. } => activation::CLIP,
            Activation::Gelu => activation::GELU,
            Activation::GeluTanh => activation::GELU_TANH,
            Activation::Sigmoid => activation::SIGMOID,
            Activation::Tanh => activation::TANH,
            Activation::Silu => activation::SILU,
            Activation::HardSwish => activation::HARD_SWISH,
            Activation::LeakyRelu { .. } => activation::LEAKY_RELU,
        }
    }

    /// The two numbers that the shader calls `low` and `high`.
    pub(super) fn parameters(self) -> [f32; 2] {
        match self {
            Activation::Clip { low, high } => [low, high],
            Activation::LeakyRelu { slope } => [slope, 0.0],
            Activation::Gelu
            | Activation::GeluTanh
            | Activation::Sigmoid
            | Activation::Tanh
            | Activation::Silu
            | Activation::HardSwish => [0.0; 2],
        }
    }
}
