//! Rows times weights that were packed once, with what follows done in registers.
//!
//! Weights lie in panels two registers wide, `k` going down, the last panel filled up with zeros.
//! A tile of a few rows by one panel stays in registers while `k` goes by. `k` is cut into blocks whose
//! panel fits the nearest cache; between blocks the sums lie in the result, which changes no bit of them.

#![allow(
    unsafe_code,
    reason = "the inner loop reads packed memory without bounds checks; its callers check all sizes first"
)]

use std::cell::RefCell;
use std::fmt;

use super::simd::{Isa, Kernel, Simd, dispatch};

/// Steps of `k` for which a panel, 64 or 128 bytes a step, stays in 32 KiB beside the rows.
const K_BLOCK: usize = 256;

/// How far apart the copied rows lie.
const ROW_STRIDE: usize = K_BLOCK + 16;

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
    /// Packs `weights`, `[k, n]` row-major.
    pub(crate) fn new(weights: &[f32], k: usize, n: usize) -> Self {
        Self::for_isa(weights, k, n, Isa::best())
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
            // Once even without any k: the result is then what the epilogue makes of zero.
            for first_k in (0..k.max(1)).step_by(K_BLOCK) {
                let block_k = K_BLOCK.min(k - first_k);
                let rows = &self.rows[first_row * k..(first_row + block_rows) * k];
                copy_rows(rows, k, first_k..first_k + block_k, self.copied);
                for column in (0..n).step_by(width * panels_at_once) {
                    let mut tile = Tile {
                        k: block_k,
                        rows: &[],
                        panels: &self.weights.panels[(column / width * k + first_k) * width..],
                        panel_stride: k * width,
                        result: &mut *self.result,
                        row: first_row,
                        column,
                        n,
                        first: first_k == 0,
                        epilogue: (first_k + block_k == k).then_some(self.epilogue),
                    };
                    let mut rest = &self.copied[..];
                    for height in heights(block_rows, S::TILE_ROWS) {
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
    let count = rows.len().checked_div(stride).unwrap_or(0);
    copied.resize(count * ROW_STRIDE, 0.0);
    for (to, from) in copied
        .chunks_exact_mut(ROW_STRIDE)
        .zip(rows.chunks_exact(stride.max(1)))
    {
        to[..k.len()].copy_from_slice(&from[k.clone()]);
    }
}

/// Some rows by one panel or more, over one block of `k`.
///
/// A sum takes a multiply-add at each step, which takes some four times as long as it takes to begin
/// one on each of two units. So at least eight sums have to go on at once: four rows of one panel, or
/// one row of four.
struct Tile<'a> {
    k: usize,
    /// [`ROW_STRIDE`] apart.
    rows: &'a [f32],
    /// From the first step of this block of the first panel.
    panels: &'a [f32],
    panel_stride: usize,
    /// All of it, `[m, n]`.
    result: &'a mut [f32],
    row: usize,
    column: usize,
    n: usize,
    /// The sums begin here, at zero; else they lie in the result.
    first: bool,
    /// The sums end here.
    epilogue: Option<Epilogue<'a>>,
}

/// Sums of a tile: by row, panel and register.
type Sums<V, const ROWS: usize, const PANELS: usize> = [[[V; 2]; PANELS]; ROWS];

impl Tile<'_> {
    #[inline(always)]
    fn run_height<S: Simd>(&mut self, height: usize, panels: usize) {
        // What follows the heights of a tile is compiled for no instruction set that lacks registers for it.
        match height {
            1 if panels == 4 && self.column + 6 * S::LANES < self.n => self.run::<S, 1, 4>(),
            1 => self.panel_by_panel::<S, 1>(panels),
            2 if panels == 2 && self.column + 2 * S::LANES < self.n => self.run::<S, 2, 2>(),
            2 => self.panel_by_panel::<S, 2>(panels),
            3 => self.run::<S, 3, 1>(),
            4 => self.run::<S, 4, 1>(),
            5 if S::TILE_ROWS >= 5 => self.run::<S, 5, 1>(),
            6 if S::TILE_ROWS >= 6 => self.run::<S, 6, 1>(),
            7 if S::TILE_ROWS >= 7 => self.run::<S, 7, 1>(),
            8 if S::TILE_ROWS >= 8 => self.run::<S, 8, 1>(),
            9 if S::TILE_ROWS >= 9 => self.run::<S, 9, 1>(),
            10 if S::TILE_ROWS >= 10 => self.run::<S, 10, 1>(),
            11 if S::TILE_ROWS >= 11 => self.run::<S, 11, 1>(),
            12 if S::TILE_ROWS >= 12 => self.run::<S, 12, 1>(),
            _ => unreachable!("`heights` gives no tile of {height} rows"),
        }
    }

    /// What is left at the right edge when several panels go at once.
    #[inline(always)]
    fn panel_by_panel<S: Simd, const ROWS: usize>(&mut self, panels: usize) {
        let (column, all) = (self.column, self.panels);
        for panel in 0..panels {
            self.column = column + panel * 2 * S::LANES;
            if self.column >= self.n {
                break;
            }
            self.panels = &all[panel * self.panel_stride..];
            self.run::<S, ROWS, 1>();
        }
        (self.column, self.panels) = (column, all);
    }

    #[inline(always)]
    fn run<S: Simd, const ROWS: usize, const PANELS: usize>(&mut self) {
        let width = 2 * S::LANES;
        assert!(self.rows.len() >= ROWS * ROW_STRIDE && self.k <= ROW_STRIDE);
        assert!(self.panels.len() >= (PANELS - 1) * self.panel_stride + self.k * width);
        // SAFETY: `dispatch` runs this where the instructions exist. The lines before hold for the
        // packed operands; all else goes through slices.
        unsafe {
            let mut sums = [[[S::splat(0.0); 2]; PANELS]; ROWS];
            if !self.first {
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (panel, sums) in sums.iter_mut().enumerate() {
                        *sums = self.wide::<S>(&*self.result, row, panel);
                    }
                }
            }
            let (rows, panels) = (self.rows.as_ptr(), self.panels.as_ptr());
            sums = steps::<S, ROWS, PANELS>(sums, rows, panels, self.panel_stride, self.k);
            if let Some(epilogue) = self.epilogue {
                self.finish::<S, ROWS, PANELS>(&mut sums, epilogue);
            }
            for (row, sums) in sums.iter().enumerate() {
                for (panel, sums) in sums.iter().enumerate() {
                    self.store::<S>(row, panel, sums);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn finish<S: Simd, const ROWS: usize, const PANELS: usize>(
        &self,
        sums: &mut Sums<S::V, ROWS, PANELS>,
        epilogue: Epilogue<'_>,
    ) {
        // SAFETY: see `run`.
        unsafe {
            if let Some(bias) = epilogue.bias {
                for panel in 0..PANELS {
                    let column = self.column + panel * 2 * S::LANES;
                    let bias = narrow::<S>(&bias[column..]);
                    for sums in sums.iter_mut() {
                        let sums = &mut sums[panel];
                        *sums = [S::add(sums[0], bias[0]), S::add(sums[1], bias[1])];
                    }
                }
            }
            if let Some(residual) = epilogue.residual {
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (panel, sums) in sums.iter_mut().enumerate() {
                        let more = self.wide::<S>(residual, row, panel);
                        *sums = [S::add(sums[0], more[0]), S::add(sums[1], more[1])];
                    }
                }
            }
            if let Some((low, high)) = epilogue.clamp {
                let (low, high) = (S::splat(low), S::splat(high));
                for sum in sums.iter_mut().flatten().flatten() {
                    *sum = S::at_most(S::at_least(*sum, low), high);
                }
            }
        }
    }

    /// Where the columns of a panel lie in a row of a matrix like the result.
    #[inline(always)]
    fn place<S: Simd>(&self, row: usize, panel: usize) -> std::ops::Range<usize> {
        let start = (self.row + row) * self.n;
        start + self.column + panel * 2 * S::LANES..start + self.n
    }

    #[inline(always)]
    unsafe fn wide<S: Simd>(&self, matrix: &[f32], row: usize, panel: usize) -> [S::V; 2] {
        // SAFETY: see `run`.
        unsafe { narrow::<S>(&matrix[self.place::<S>(row, panel)]) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(&mut self, row: usize, panel: usize, sums: &[S::V; 2]) {
        let place = self.place::<S>(row, panel);
        let columns = &mut self.result[place];
        // SAFETY: two registers are written to memory of at least that length.
        unsafe {
            if columns.len() >= 2 * S::LANES {
                S::store(columns.as_mut_ptr(), sums[0]);
                S::store(columns.as_mut_ptr().add(S::LANES), sums[1]);
                return;
            }
            let mut padded = [0.0; 2 * MOST_LANES];
            S::store(padded.as_mut_ptr(), sums[0]);
            S::store(padded.as_mut_ptr().add(S::LANES), sums[1]);
            columns.copy_from_slice(&padded[..columns.len()]);
        }
    }
}

/// The first two registers of `columns`, which may be shorter at the right edge.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
unsafe fn narrow<S: Simd>(columns: &[f32]) -> [S::V; 2] {
    // SAFETY: two registers are read from memory of at least that length.
    unsafe {
        if columns.len() >= 2 * S::LANES {
            return [
                S::load(columns.as_ptr()),
                S::load(columns.as_ptr().add(S::LANES)),
            ];
        }
        let mut padded = [0.0; 2 * MOST_LANES];
        padded[..columns.len()].copy_from_slice(columns);
        [
            S::load(padded.as_ptr()),
            S::load(padded.as_ptr().add(S::LANES)),
        ]
    }
}

/// Adds `k` steps to the sums. They come and go by value, so that they are in registers meanwhile.
///
/// # Safety
/// `rows` points to `ROWS` rows of `k` elements, [`ROW_STRIDE`] apart, and `panels` to `PANELS` times
/// `k` times two registers, `panel_stride` apart; see [`Simd`].
#[inline(always)]
unsafe fn steps<S: Simd, const ROWS: usize, const PANELS: usize>(
    mut sums: Sums<S::V, ROWS, PANELS>,
    rows: *const f32,
    panels: *const f32,
    panel_stride: usize,
    k: usize,
) -> Sums<S::V, ROWS, PANELS> {
    // SAFETY: the caller's.
    unsafe {
        for step in 0..k {
            for panel in 0..PANELS {
                let weights = panels.add(panel * panel_stride + step * 2 * S::LANES);
                let (left, right) = (S::load(weights), S::load(weights.add(S::LANES)));
                for row in 0..ROWS {
                    let value = S::splat(*rows.add(row * ROW_STRIDE + step));
                    let sums = &mut sums[row][panel];
                    sums[0] = S::mul_add(value, left, sums[0]);
                    sums[1] = S::mul_add(value, right, sums[1]);
                }
            }
        }
    }
    sums
}

/// Lanes of the widest register.
pub(super) const MOST_LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_size_is_within_the_bound_and_a_row_alone_has_the_same_bits(
            m in 1usize..40, k in 0usize..600, n in 1usize..70, seed in any::<u64>(),
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
