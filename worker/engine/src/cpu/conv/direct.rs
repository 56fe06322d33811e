//! Convolution that reads shifted pixels where they lie.
//!
//! The image is copied once, with its margin, into planes of one pitch: for a stride of `s` into `s * s`
//! of them, one for each remainder of the place. Then the pixels that one tap of the kernel meets, for
//! the places of an output row, lie one after the other, at a distance that depends on the tap alone.
//! So a tile of some places by two registers of channels runs through all taps as a product of matrices
//! would, with its first operand never written down.

#![allow(
    unsafe_code,
    reason = "the inner loop reads planes without bounds checks; `convolve` makes them large enough"
)]

use std::cell::RefCell;

use super::super::gemm::{PackedWeights, heights};
use super::super::simd::{Kernel, Simd, dispatch};
use super::planes::Geometry;

/// Steps for which a panel of weights, 64 or 128 bytes a step, stays in the nearest cache.
const DEPTH_BLOCK: usize = 288;

/// Places turned from rows of channels into rows of places together; their sums stay in the nearest cache.
const PLACES_TOGETHER: usize = 16;

#[derive(Debug, Default)]
struct Scratch {
    planes: Vec<f32>,
    /// `[panels][places][channels of a panel]`.
    sums: Vec<f32>,
    /// Where the pixels of each step begin.
    starts: Vec<usize>,
}

thread_local! {
    /// One per thread, so that a run allocates nothing once it is large enough.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// One convolution of one image.
pub(super) struct Convolution<'a> {
    /// `[channels and taps, outputs]`.
    pub(super) weights: &'a PackedWeights,
    pub(super) geometry: &'a Geometry,
    /// `[channels, height, width]`.
    pub(super) pixels: &'a [f32],
    /// `[outputs]`.
    pub(super) bias: Option<&'a [f32]>,
    /// Shaped like the result.
    pub(super) residual: Option<&'a [f32]>,
    pub(super) clamp: Option<(f32, f32)>,
}

impl Convolution<'_> {
    /// Writes `[outputs, height, width]`.
    ///
    /// # Panics
    /// If a slice does not have the size its shape says.
    pub(super) fn run(self, result: &mut [f32]) {
        let (geometry, outputs) = (self.geometry, self.weights.n());
        let taps: usize = geometry.taps.iter().product();
        assert_eq!(
            self.pixels.len(),
            geometry.channels * geometry.input.iter().product::<usize>()
        );
        assert_eq!(
            result.len(),
            outputs * geometry.output.iter().product::<usize>()
        );
        assert_eq!(
            self.weights.k(),
            geometry.channels * taps,
            "the kernel has this depth"
        );
        assert!(self.bias.is_none_or(|bias| bias.len() == outputs));
        assert!(
            self.residual
                .is_none_or(|residual| residual.len() == result.len())
        );
        if result.is_empty() {
            return;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let isa = self.weights.isa();
            dispatch(
                isa,
                Run {
                    convolution: self,
                    result,
                    scratch,
                },
            );
        });
    }
}

struct Run<'a> {
    convolution: Convolution<'a>,
    result: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl Kernel for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Convolution {
            weights, geometry, ..
        } = self.convolution;
        let Scratch {
            planes,
            sums,
            starts,
        } = self.scratch;
        let [rows, pitch] = geometry.plane();
        let width = 2 * S::LANES;
        let depth = weights.k();
        let phases: usize = geometry.strides.iter().product();
        planes.clear();
        planes.resize(geometry.channels * phases * rows * pitch, 0.0);
        geometry.fill_planes(self.convolution.pixels, planes);
        geometry.starts(starts);
        let furthest = starts.iter().copied().max().unwrap_or(0);
        let (lines, line) = geometry.lines();
        let places = lines * line;
        let panels = weights.n().div_ceil(width);
        sums.resize(panels * places * width, 0.0);
        for first in (0..depth).step_by(DEPTH_BLOCK) {
            let block = DEPTH_BLOCK.min(depth - first);
            for (panel, sums) in sums.chunks_exact_mut(places * width).enumerate() {
                let panel = &weights.panels()[(panel * depth + first) * width..][..block * width];
                let mut rest = sums;
                for line_number in 0..lines {
                    let mut place = line_number * pitch;
                    for height in heights(line, S::TILE_ROWS) {
                        let (own, after) = rest.split_at_mut(height * width);
                        rest = after;
                        let mut tile = Tile {
                            panel,
                            starts: &starts[first..first + block],
                            furthest,
                            planes: &planes[place..],
                            sums: own,
                            first: first == 0,
                        };
                        tile.run_height::<S>(height);
                        place += height;
                    }
                }
            }
        }
        for (panel, sums) in sums.chunks_exact(places * width).enumerate() {
            self.convolution
                .finish(panel * width, sums, width, places, self.result);
        }
    }
}

impl Convolution<'_> {
    /// Turns the sums of a panel, `[places][width]`, into rows of the result, with all that comes after.
    #[inline(always)]
    fn finish(&self, output: usize, sums: &[f32], width: usize, places: usize, result: &mut [f32]) {
        let outputs = width.min(self.weights.n() - output);
        let (low, high) = self.clamp.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        for first in (0..places).step_by(PLACES_TOGETHER) {
            let count = PLACES_TOGETHER.min(places - first);
            let sums = &sums[first * width..(first + count) * width];
            for channel in 0..outputs {
                let place = (output + channel) * places + first;
                let result = &mut result[place..place + count];
                let bias = self.bias.map_or(0.0, |bias| bias[output + channel]);
                for (result, sums) in result.iter_mut().zip(sums.chunks_exact(width)) {
                    *result = sums[channel] + bias;
                }
                if let Some(residual) = self.residual {
                    for (result, more) in result.iter_mut().zip(&residual[place..]) {
                        *result += more;
                    }
                }
                if self.clamp.is_some() {
                    for result in result {
                        // Not `clamp` or `max`: a NaN stays one.
                        let value = if *result < low { low } else { *result };
                        *result = if value > high { high } else { value };
                    }
                }
            }
        }
    }
}

/// Some places by one panel of outputs, over one block of the depth.
struct Tile<'a> {
    /// `[depth][width]`.
    panel: &'a [f32],
    starts: &'a [usize],
    /// The largest of all starts.
    furthest: usize,
    /// From the first place of the tile on.
    planes: &'a [f32],
    /// `[places][width]`.
    sums: &'a mut [f32],
    /// The sums begin here, at zero.
    first: bool,
}

impl Tile<'_> {
    #[inline(always)]
    fn run_height<S: Simd>(&mut self, height: usize) {
        match height {
            1 => self.run::<S, 1>(),
            2 => self.run::<S, 2>(),
            3 => self.run::<S, 3>(),
            4 => self.run::<S, 4>(),
            5 if S::TILE_ROWS >= 5 => self.run::<S, 5>(),
            6 if S::TILE_ROWS >= 6 => self.run::<S, 6>(),
            7 if S::TILE_ROWS >= 7 => self.run::<S, 7>(),
            8 if S::TILE_ROWS >= 8 => self.run::<S, 8>(),
            9 if S::TILE_ROWS >= 9 => self.run::<S, 9>(),
            10 if S::TILE_ROWS >= 10 => self.run::<S, 10>(),
            11 if S::TILE_ROWS >= 11 => self.run::<S, 11>(),
            12 if S::TILE_ROWS >= 12 => self.run::<S, 12>(),
            _ => unreachable!("`heights` gives no tile of {height} rows"),
        }
    }

    #[inline(always)]
    fn run<S: Simd, const ROWS: usize>(&mut self) {
        let width = 2 * S::LANES;
        assert!(
            self.planes.len() >= self.furthest + ROWS,
            "planes hold what a tile reads"
        );
        assert!(self.panel.len() >= self.starts.len() * width && self.sums.len() >= ROWS * width);
        // SAFETY: `dispatch` runs this where the instructions exist, and no start is beyond the furthest.
        // So the lines before hold for all that is read and written.
        unsafe {
            let mut sums = [[S::splat(0.0); 2]; ROWS];
            let own = self.sums.as_mut_ptr();
            if !self.first {
                for (row, sums) in sums.iter_mut().enumerate() {
                    let own = own.add(row * width);
                    *sums = [S::load(own), S::load(own.add(S::LANES))];
                }
            }
            sums = steps::<S, ROWS>(sums, self.panel.as_ptr(), self.starts, self.planes.as_ptr());
            for (row, sums) in sums.iter().enumerate() {
                let own = own.add(row * width);
                S::store(own, sums[0]);
                S::store(own.add(S::LANES), sums[1]);
            }
        }
    }
}

/// Adds a step for each of `starts`. The sums come and go by value, so that they are in registers meanwhile.
///
/// # Safety
/// `panel` points to two registers for each start, `planes` to `ROWS` elements at each; see [`Simd`].
#[inline(always)]
unsafe fn steps<S: Simd, const ROWS: usize>(
    mut sums: [[S::V; 2]; ROWS],
    mut panel: *const f32,
    starts: &[usize],
    planes: *const f32,
) -> [[S::V; 2]; ROWS] {
    // SAFETY: the caller's.
    unsafe {
        for start in starts {
            let (left, right) = (S::load(panel), S::load(panel.add(S::LANES)));
            let pixels = planes.add(*start);
            for (row, sums) in sums.iter_mut().enumerate() {
                let pixel = S::splat(*pixels.add(row));
                sums[0] = S::mul_add(pixel, left, sums[0]);
                sums[1] = S::mul_add(pixel, right, sums[1]);
            }
            panel = panel.add(2 * S::LANES);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::super::super::simd::Isa;
    use super::super::transposed;
    use super::*;
    use crate::proof::Numbers;
    use proptest::prelude::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut numbers = Numbers(seed);
        (0..count)
            .map(|_| numbers.next_signed() as f32 / 2.0)
            .collect()
    }

    /// The sum of all terms at one place, and that of their sizes.
    fn exact(
        geometry: &Geometry,
        pixels: &[f32],
        weights: &[f32],
        output: usize,
        place: [usize; 2],
    ) -> (f64, f64) {
        let [height, width] = geometry.input;
        let (mut sum, mut size) = (0.0, 0.0);
        for channel in 0..geometry.channels {
            for y in 0..geometry.taps[0] {
                for x in 0..geometry.taps[1] {
                    let at = |axis: usize, tap: usize| {
                        (place[axis] * geometry.strides[axis] + tap * geometry.dilations[axis])
                            .checked_sub(geometry.before[axis])
                            .filter(|at| *at < geometry.input[axis])
                    };
                    let (Some(row), Some(column)) = (at(0, y), at(1, x)) else {
                        continue;
                    };
                    let tap = ((output * geometry.channels + channel) * geometry.taps[0] + y)
                        * geometry.taps[1]
                        + x;
                    let term = f64::from(pixels[(channel * height + row) * width + column])
                        * f64::from(weights[tap]);
                    sum += term;
                    size += term.abs();
                }
            }
        }
        (sum, size)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn any_geometry_is_within_the_bound(
            channels in 1usize..9, outputs in 1usize..15, input in [1usize..14, 1usize..40],
            before in [0usize..3, 0usize..3], after in [0usize..3, 0usize..3], taps in [1usize..5, 1usize..5],
            strides in [1usize..4, 1usize..4], dilations in [1usize..3, 1usize..3], seed in any::<u64>(),
        ) {
            let mut geometry = Geometry { channels, input, output: [0; 2], before, taps, strides, dilations };
            for axis in 0..2 {
                let all = input[axis] + before[axis] + after[axis];
                let reach = (taps[axis] - 1) * dilations[axis];
                prop_assume!(all > reach);
                geometry.output[axis] = (all - reach - 1) / strides[axis] + 1;
            }
            let depth = channels * taps[0] * taps[1];
            let (pixels, weights) = (numbers(channels * input[0] * input[1], seed), numbers(outputs * depth, seed ^ 1));
            let bias = numbers(outputs, seed ^ 2);
            let [rows, columns] = geometry.output;
            let residual = numbers(outputs * rows * columns, seed ^ 3);
            for isa in Isa::available() {
                let kernel = PackedWeights::for_isa(&transposed(&weights, depth), depth, outputs, isa);
                let mut result = vec![f32::NAN; residual.len()];
                let convolution = Convolution {
                    weights: &kernel, geometry: &geometry, pixels: &pixels,
                    bias: Some(&bias), residual: Some(&residual), clamp: Some((-0.5, 1.0)),
                };
                convolution.run(&mut result);
                for (place, got) in result.iter().enumerate() {
                    let (output, row, column) = (place / (rows * columns), place / columns % rows, place % columns);
                    let (sum, size) = exact(&geometry, &pixels, &weights, output, [row, column]);
                    let bound = (depth as f64).sqrt() * size * 2f64.powi(-24) + 4.0 * f64::from(f32::EPSILON);
                    let expected = (sum + f64::from(bias[output]) + f64::from(residual[place])).clamp(-0.5, 1.0);
                    prop_assert!((f64::from(*got) - expected).abs() <= bound, "{isa:?} {geometry:?} {place}");
                }
            }
        }
    }

    #[test]
    fn a_depth_of_several_blocks_adds_up_in_order() {
        let (channels, taps) = (70, 9);
        let geometry = Geometry {
            channels,
            input: [6, 6],
            output: [6, 6],
            before: [1, 1],
            taps: [3, 3],
            strides: [1, 1],
            dilations: [1, 1],
        };
        let (pixels, weights) = (numbers(channels * 36, 1), numbers(2 * channels * taps, 2));
        for isa in Isa::available() {
            let kernel = PackedWeights::for_isa(
                &transposed(&weights, channels * taps),
                channels * taps,
                2,
                isa,
            );
            let mut result = vec![0.0; 72];
            let convolution = Convolution {
                weights: &kernel,
                geometry: &geometry,
                pixels: &pixels,
                bias: None,
                residual: None,
                clamp: None,
            };
            convolution.run(&mut result);
            let (sum, size) = exact(&geometry, &pixels, &weights, 1, [2, 5]);
            let error = (f64::from(result[36 + 17]) - sum).abs();
            assert!(error <= size * 2f64.powi(-24) * 30.0, "{isa:?}: {error}");
        }
    }
}
