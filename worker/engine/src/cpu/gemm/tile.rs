//! Some rows by some panels of weights, in registers.

#![allow(
    unsafe_code,
    reason = "the inner loop reads packed memory without bounds checks; its callers check all sizes first"
)]

use super::super::simd::Simd;
use super::Epilogue;

/// Steps of `k` for which a panel, 64 or 128 bytes a step, stays in 32 KiB beside the rows.
pub(super) const K_BLOCK: usize = 256;

/// How far apart the copied rows lie.
pub(super) const ROW_STRIDE: usize = K_BLOCK + 16;

/// Some rows by one panel or more, over one block of `k`.
///
/// A sum takes a multiply-add at each step, which takes some four times as long as it takes to begin
/// one on each of two units. So at least eight sums have to go on at once: four rows of one panel, or
/// one row of four.
pub(super) struct Tile<'a> {
    pub(super) k: usize,
    /// [`ROW_STRIDE`] apart.
    pub(super) rows: &'a [f32],
    /// From the first step of this block of the first panel.
    pub(super) panels: &'a [f32],
    pub(super) panel_stride: usize,
    /// How far behind the weights those lie that are wanted next, in elements.
    pub(super) ahead: usize,
    /// All of it, `[m, n]`.
    pub(super) result: &'a mut [f32],
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) n: usize,
    /// The sums begin here, at zero; else they lie in the result.
    pub(super) first: bool,
    /// The sums end here.
    pub(super) epilogue: Option<Epilogue<'a>>,
}

/// Sums of a tile: by row, panel and register.
type Sums<V, const ROWS: usize, const PANELS: usize> = [[[V; 2]; PANELS]; ROWS];

impl Tile<'_> {
    /// Runs the tile for a number of rows and panels that are known when compiling.
    #[inline(always)]
    pub(super) fn run_height<S: Simd>(&mut self, height: usize, panels: usize) {
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
            let (stride, ahead) = (self.panel_stride, self.ahead);
            sums = steps::<S, ROWS, PANELS>(sums, rows, panels, stride, self.k, ahead);
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
/// `k` times two registers, `panel_stride` apart; see [`Simd`]. `ahead` may lead anywhere.
#[inline(always)]
unsafe fn steps<S: Simd, const ROWS: usize, const PANELS: usize>(
    mut sums: Sums<S::V, ROWS, PANELS>,
    rows: *const f32,
    panels: *const f32,
    panel_stride: usize,
    k: usize,
    ahead: usize,
) -> Sums<S::V, ROWS, PANELS> {
    // SAFETY: the caller's.
    unsafe {
        for step in 0..k {
            for panel in 0..PANELS {
                let weights = panels.add(panel * panel_stride + step * 2 * S::LANES);
                S::prefetch(weights.wrapping_add(ahead));
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
const MOST_LANES: usize = 16;
