//! What a step of a program does. All values are `f32`, row-major and without gaps.

use inferq_shaders::{activation, elementwise};

pub use inferq_shaders::{Tile, Weights};

use super::part::Part;

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
    /// The same elements in the same order, under another shape; of a part, one that keeps its rows apart.
    View,
    /// Some columns of each row, where they lie. Products alone read them, and views of them.
    Part(Part),
}

impl Operation {
    /// The same without the numbers that are on the device: what a launch has to know.
    pub(super) fn without_numbers(&self) -> Self {
        match self {
            Operation::Linear(layer) => Operation::Linear(Layer {
                weights: vec![],
                bias: vec![],
                ..*layer
            }),
            Operation::Norm(norm) => Operation::Norm(Norm {
                scale: norm.scale.as_ref().map(|_| vec![]),
                shift: norm.shift.as_ref().map(|_| vec![]),
                ..*norm
            }),
            Operation::Product(_)
            | Operation::Softmax { .. }
            | Operation::Elementwise { .. }
            | Operation::View
            | Operation::Part(_) => self.clone(),
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
    /// How the weights are kept on the device.
    pub kept_as: Weights,
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

/// Which kernel a dense layer runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// What is likely the fastest for its sizes.
    Likely,
    /// The same, but of those that add up alike: a row's bits do not depend on the number of rows.
    Alike,
    /// This one, wherever it can.
    Only(Tile),
}

/// A tile has to leave work for so many workgroups; fewer of a large one would leave most of a card idle.
const ENOUGH_GROUPS: usize = 64;
/// So many workgroups keep any card busy: a few for each of its processors.
const BUSY_GROUPS: usize = 256;
/// Least of `k` that is worth a workgroup of its own.
const LEAST_OF_K: usize = 64;
/// Most pieces; adding them up must stay less than making them.
const MOST_PIECES: usize = 16;

/// Into how many pieces [`Tile::Split`] splits `k` for `m` rows of `n` columns; one where there are many tiles.
pub(super) fn pieces(m: usize, k: usize, n: usize) -> usize {
    let [rows, columns] = Tile::Split.size().map(|size| size as usize);
    let tiles = m.div_ceil(rows) * n.div_ceil(columns);
    let wanted = BUSY_GROUPS.div_ceil(tiles.max(1)).min(MOST_PIECES);
    wanted.min(k / LEAST_OF_K).max(1)
}

impl Choice {
    /// The kernel for `m` rows of `n` columns, each a sum of `k` products; `cooperative` says whether the card's own
    /// products of matrices may be used.
    #[must_use]
    pub fn tile(self, [m, k, n]: [usize; 3], cooperative: bool) -> Tile {
        let can = |tile: &Tile| match tile {
            Tile::Split => m <= tile.most_rows() && pieces(m, k, n) > 1,
            Tile::Cooperative => cooperative,
            Tile::Gemv | Tile::Skinny | Tile::Tile64 | Tile::Tile128 => m <= tile.most_rows(),
        };
        match self {
            Choice::Only(tile) if can(&tile) => return tile,
            Choice::Likely if can(&Tile::Gemv) => return Tile::Gemv,
            Choice::Likely | Choice::Alike | Choice::Only(_) => {}
        }
        let suits = |tile: &Tile| {
            let [rows, columns] = tile.size().map(|size| size as usize);
            // More than half of it has something to do.
            let filled = 2 * m > rows && 2 * n > columns;
            filled && m.div_ceil(rows) * n.div_ceil(columns) >= ENOUGH_GROUPS
        };
        let large = [Tile::Tile128, Tile::Tile64].into_iter().find(suits);
        large.unwrap_or(Tile::Skinny)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_is_large_only_where_there_is_enough_to_do() {
        assert_eq!(Choice::Likely.tile([1, 1_024, 4_096], false), Tile::Gemv);
        assert_eq!(Choice::Alike.tile([1, 1_024, 4_096], false), Tile::Skinny);
        assert_eq!(Choice::Likely.tile([16, 1_024, 4_096], false), Tile::Skinny);
        assert_eq!(
            Choice::Likely.tile([128, 1_024, 4_096], false),
            Tile::Tile64
        );
        assert_eq!(
            Choice::Likely.tile([4_096, 1_024, 4_096], false),
            Tile::Tile128
        );
        assert_eq!(
            Choice::Likely.tile([100_000, 1_024, 10], false),
            Tile::Skinny
        );
        assert_eq!(
            Choice::Only(Tile::Tile128).tile([3, 3, 3], false),
            Tile::Tile128
        );
        // They take four rows and 64 at most.
        assert_eq!(
            Choice::Only(Tile::Gemv).tile([5, 1_024, 4_096], false),
            Tile::Skinny
        );
        let split = |m, k, n| Choice::Only(Tile::Split).tile([m, k, n], false);
        assert_eq!(split(64, 1_024, 1_024), Tile::Split);
        assert_eq!(split(65, 1_024, 1_024), Tile::Skinny);
        // Nor is there anything to split.
        assert_eq!(split(64, 1_024, 262_144), Tile::Tile64);
        assert_eq!(split(16, 127, 128), Tile::Skinny);
        let own = Choice::Only(Tile::Cooperative);
        assert_eq!(own.tile([3, 3, 3], true), Tile::Cooperative);
        assert_eq!(own.tile([3, 3, 3], false), Tile::Skinny);
        // Nothing takes it that was not measured.
        let others = [Choice::Likely, Choice::Alike].map(|choice| choice.tile([16, 64, 64], true));
        assert_eq!(others, [Tile::Skinny; 2]);
    }

    #[test]
    fn what_is_split_keeps_a_card_busy_by_pieces_that_are_worth_it() {
        assert_eq!(pieces(16, 1_024, 1_024), 8);
        assert_eq!(pieces(64, 1_024, 1_024), 2);
        assert_eq!(pieces(16, 4_096, 128), 16);
        assert_eq!(pieces(16, 200, 128), 3);
        assert_eq!(pieces(16, 63, 128), 1);
        assert_eq!(pieces(64, 4_096, 100_000), 1);
        assert_eq!(pieces(0, 0, 0), 1);
    }
}
