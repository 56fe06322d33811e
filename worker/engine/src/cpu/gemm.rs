//! Rows times weights that were packed once, with what follows done in registers.
//!
//! Weights lie in panels two registers wide, `k` going down, the last panel filled up with zeros.
//! A tile of a few rows by one panel stays in registers while `k` goes by. `k` is cut into blocks whose
//! panel fits the nearest cache; between blocks the sums lie in the result, which changes no bit of them.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, LazyLock};

mod tile;

use self::tile::{K_BLOCK, ROW_STRIDE, Tile};
use super::simd::{Isa, Kernel, Simd, dispatch};
use crate::resident::{self, LEAST_BYTES, Table};

/// Rows copied together: with a block of `k` they take some 256 KiB of the second cache.
/// A multiple of the rows of a tile, for each instruction set.
const ROW_BLOCK: usize = 240;

/// A weight matrix `[k, n]`, packed for this processor.
pub(crate) struct PackedWeights {
    k: usize,
    n: usize,
    isa: Isa,
    /// `[panels][k][width]`.
    panels: Vec<f32>,
}

/// What is done with a sum before it is stored, in this order.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Epilogue<'a> {
    /// `[n]`, added to each row.
    pub(crate) bias: Option<&'a [f32]>,
    /// `[m, n]`, added element by element.
    pub(crate) residual: Option<&'a [f32]>,
    /// Lower and upper bound; a NaN stays one.
    pub(crate) clamp: Option<(f32, f32)>,
}

thread_local! {
    /// Copied rows. One per thread, so that a run allocates nothing once it is large enough.
    static ROWS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl fmt::Debug for PackedWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedWeights({}x{}, {:?})", self.k, self.n, self.isa)
    }
}

impl PackedWeights {
    /// Packs `weights`, `[k, n]` row-major, unless another model has the same packed already.
    pub(crate) fn shared(weights: &[f32], k: usize, n: usize) -> Arc<Self> {
        static PACKED: LazyLock<Table<PackedWeights>> = LazyLock::new(Table::default);
        let isa = Isa::best();
        if size_of_val(weights) < LEAST_BYTES {
            return Arc::new(Self::for_isa(weights, k, n, isa));
        }
        let digest = resident::digest(&format!("packed {isa:?} {k} {n}"), &[weights]);
        let make = || Ok(Self::for_isa(weights, k, n, isa));
        let Ok(shared) = PACKED.shared::<std::convert::Infallible>(digest, make);
        shared
    }

    pub(super) fn for_isa(weights: &[f32], k: usize, n: usize, isa: Isa) -> Self {
        assert_eq!(weights.len(), k * n, "the caller gives a matrix of k x n");
        let width = 2 * isa.lanes();
        let mut panels = vec![0.0; n.div_ceil(width) * k * width];
        if k > 0 && n > 0 {
            for (row, weights) in weights.chunks_exact(n).enumerate() {
                for (panel, weights) in weights.chunks(width).enumerate() {
                    let start = (panel * k + row) * width;
                    panels[start..start + weights.len()].copy_from_slice(weights);
                }
            }
        }
        Self { k, n, isa, panels }
    }

    /// The matrix `[k, n]`, row-major, as it was before it was packed.
    pub(crate) fn unpacked(&self) -> Vec<f32> {
        let width = 2 * self.isa.lanes();
        let mut weights = Vec::with_capacity(self.k * self.n);
        for row in 0..self.k {
            for first in (0..self.n).step_by(width) {
                let start = (first / width * self.k + row) * width;
                weights.extend_from_slice(&self.panels[start..start + width.min(self.n - first)]);
            }
        }
        weights
    }

    /// The same with each column multiplied by its factor; `None` if a weight would leave the normal range.
    pub(super) fn scaled(&self, factors: &[f32]) -> Option<Arc<Self>> {
        let mut weights = self.unpacked();
        for row in weights.chunks_exact_mut(self.n.max(1)) {
            for (weight, factor) in row.iter_mut().zip(factors) {
                let scaled = *weight * factor;
                if weight.is_normal() && !scaled.is_normal() {
                    return None;
                }
                *weight = scaled;
            }
        }
        Some(Self::shared(&weights, self.k, self.n))
    }

    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    /// `[panels][k][width]`, where a panel is two registers wide.
    pub(super) fn panels(&self) -> &[f32] {
        &self.panels
    }

    pub(crate) fn n(&self) -> usize {
        self.n
    }

    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// `result = epilogue(rows · weights)`. `rows` is `[m, k]` and `result` `[m, n]`, row-major.
    ///
    /// # Panics
    /// If a slice does not have the size its shape says.
    pub(crate) fn multiply(&self, rows: &[f32], result: &mut [f32], epilogue: Epilogue<'_>) {
        if self.n == 0 || result.is_empty() {
            return;
        }
        assert!(self.k > 0, "a product sums something up");
        let m = result.len() / self.n;
        assert_eq!(result.len(), m * self.n, "the result has whole rows");
        assert_eq!(rows.len(), m * self.k, "there are as many rows");
        assert!(epilogue.bias.is_none_or(|bias| bias.len() == self.n));
        assert!(
            epilogue
                .residual
                .is_none_or(|residual| residual.len() == m * self.n)
        );
        ROWS.with_borrow_mut(|copied| {
            dispatch(
                self.isa,
                Multiply {
                    weights: self,
                    rows,
                    result,
                    epilogue,
                    copied,
                },
            );
        });
    }
}

struct Multiply<'a> {
    weights: &'a PackedWeights,
    rows: &'a [f32],
    result: &'a mut [f32],
    epilogue: Epilogue<'a>,
    copied: &'a mut Vec<f32>,
}

impl Kernel for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let PackedWeights { k, n, .. } = *self.weights;
        let m = self.result.len() / n;
        let width = 2 * S::LANES;
        // With one row or two, more panels at a time keep the processor busy; see `Tile`.
        let panels_at_once = match m {
            1 => 4,
            2 => 2,
            _ => 1,
        };
        for first_row in (0..m).step_by(ROW_BLOCK) {
            let block_rows = ROW_BLOCK.min(m - first_row);
            for first_k in (0..k).step_by(K_BLOCK) {
                let block_k = K_BLOCK.min(k - first_k);
                let rows = &self.rows[first_row * k..(first_row + block_rows) * k];
                copy_rows(rows, k, first_k..first_k + block_k, self.copied);
                for column in (0..n).step_by(width * panels_at_once) {
                    let mut tile = Tile {
                        k: block_k,
                        rows: &[],
                        panels: &self.weights.panels[(column / width * k + first_k) * width..],
                        panel_stride: k * width,
                        ahead: 0,
                        result: &mut *self.result,
                        row: first_row,
                        column,
                        n,
                        first: first_k == 0,
                        epilogue: (first_k + block_k == k).then_some(self.epilogue),
                    };
                    let mut rest = &self.copied[..];
                    for height in heights(block_rows, S::TILE_ROWS) {
                        // The first tile waits for the panel, the others have it near; the last of
                        // them fetches the next one meanwhile.
                        if tile.row > first_row && rest.len() == height * ROW_STRIDE {
                            tile.ahead = k * width;
                        }
                        let (rows, after) = rest.split_at(height * ROW_STRIDE);
                        (tile.rows, rest) = (rows, after);
                        tile.run_height::<S>(height, panels_at_once);
                        tile.row += height;
                    }
                }
            }
        }
    }
}

/// Cuts `rows` into as few tiles as there can be, of heights that differ by one at most.
#[inline(always)]
pub(super) fn heights(rows: usize, most: usize) -> impl Iterator<Item = usize> {
    let tiles = rows.div_ceil(most);
    (0..tiles).map(move |tile| rows / tiles + usize::from(tile < rows % tiles))
}

/// Rows lie apart by a stride that is known when compiling and is no power of two: rows of, say, 1 024
/// elements would all fall into the same few lines of the nearest cache.
#[inline(always)]
fn copy_rows(rows: &[f32], stride: usize, k: std::ops::Range<usize>, copied: &mut Vec<f32>) {
    copied.resize(rows.len() / stride * ROW_STRIDE, 0.0);
    for (to, from) in copied
        .chunks_exact_mut(ROW_STRIDE)
        .zip(rows.chunks_exact(stride))
    {
        to[..k.len()].copy_from_slice(&from[k.clone()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::Numbers;
    use proptest::prelude::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut numbers = Numbers(seed);
        (0..count)
            .map(|_| numbers.next_signed() as f32 / 2.0)
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_size_is_within_the_bound_and_a_row_alone_has_the_same_bits(
            m in 1usize..40, k in 1usize..600, n in 1usize..70, seed in any::<u64>(),
            with_bias: bool, with_residual: bool, clamped: bool,
        ) {
            let (rows, weights) = (numbers(m * k, seed), numbers(k * n, seed ^ 1));
            let (bias, residual) = (numbers(n, seed ^ 2), numbers(m * n, seed ^ 3));
            let clamp = clamped.then_some((-0.25, 0.5));
            let epilogue = Epilogue {
                bias: with_bias.then_some(&bias[..]),
                residual: with_residual.then_some(&residual[..]),
                clamp,
            };
            for isa in Isa::available() {
                let packed = PackedWeights::for_isa(&weights, k, n, isa);
                prop_assert_eq!(&packed.unpacked(), &weights);
                let mut result = vec![f32::NAN; m * n];
                packed.multiply(&rows, &mut result, epilogue);
                for row in 0..m {
                    for column in 0..n {
                        let mut sum = 0f64;
                        let mut size = 0f64;
                        for step in 0..k {
                            let term = f64::from(rows[row * k + step]) * f64::from(weights[step * n + column]);
                            sum += term;
                            size += term.abs();
                        }
                        let bound = (k as f64).sqrt() * size * 2f64.powi(-24) + 4.0 * f64::from(f32::EPSILON);
                        sum += epilogue.bias.map_or(0.0, |bias| bias[column].into());
                        sum += epilogue.residual.map_or(0.0, |more| more[row * n + column].into());
                        if let Some((low, high)) = clamp {
                            sum = sum.clamp(low.into(), high.into());
                        }
                        let got = f64::from(result[row * n + column]);
                        prop_assert!((got - sum).abs() <= bound, "{isa:?} {got} {sum} {bound}");
                    }
                    let mut alone = vec![0.0; n];
                    let own = Epilogue { residual: epilogue.residual.map(|more| &more[row * n..(row + 1) * n]), ..epilogue };
                    packed.multiply(&rows[row * k..(row + 1) * k], &mut alone, own);
                    let same = alone.iter().zip(&result[row * n..]).all(|(a, b)| a.to_bits() == b.to_bits());
                    prop_assert!(same, "{isa:?}, row {row}");
                }
            }
        }
    }

    #[test]
    fn a_clamp_keeps_what_is_not_a_number_in_its_row() {
        let rows = [1.0, f32::NAN, f32::INFINITY, -1.0];
        for isa in Isa::available() {
            let packed = PackedWeights::for_isa(&[1.0; 3], 1, 3, isa);
            let mut result = [0.0; 12];
            let clamp = Some((0.0, f32::INFINITY));
            packed.multiply(
                &rows,
                &mut result,
                Epilogue {
                    clamp,
                    ..Epilogue::default()
                },
            );
            assert!(result[3..6].iter().all(|value| value.is_nan()), "{isa:?}");
            assert_eq!(result[..3], [1.0; 3]);
            assert_eq!(
                result[6..],
                [f32::INFINITY, f32::INFINITY, f32::INFINITY, 0.0, 0.0, 0.0]
            );
        }
    }
}
