//! An image copied into planes, in which the pixels that a tap meets along a row lie together.

/// Sizes of one convolution. Pairs are height and width.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub(super) channels: usize,
    pub(super) input: [usize; 2],
    pub(super) output: [usize; 2],
    /// Margin above and to the left.
    pub(super) before: [usize; 2],
    pub(super) taps: [usize; 2],
    pub(super) strides: [usize; 2],
    pub(super) dilations: [usize; 2],
}

impl Geometry {
    /// How far the last tap reaches, in places of a plane.
    fn reach(&self, axis: usize) -> usize {
        (self.taps[axis] - 1) * self.dilations[axis] / self.strides[axis]
    }

    /// Rows and pitch of a plane.
    pub(super) fn plane(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.output[axis] + self.reach(axis))
    }

    /// Rows of places that lie one after the other in a plane: all of them, if nothing hangs over.
    pub(super) fn lines(&self) -> (usize, usize) {
        let [rows, columns] = self.output;
        if self.reach(1) == 0 {
            (1, rows * columns)
        } else {
            (rows, columns)
        }
    }

    /// Copies the image into planes. What no pixel falls on is the margin, zero.
    #[inline(always)]
    pub(super) fn fill_planes(&self, pixels: &[f32], planes: &mut [f32]) {
        let [rows, pitch] = self.plane();
        let [height, width] = self.input;
        let [down, across] = self.strides;
        for channel in 0..self.channels {
            for y in 0..height {
                let (row, phase_y) = ((y + self.before[0]) / down, (y + self.before[0]) % down);
                if row >= rows {
                    continue;
                }
                let from = &pixels[(channel * height + y) * width..][..width];
                for phase_x in 0..across {
                    let plane = (channel * down + phase_y) * across + phase_x;
                    let to = &mut planes[(plane * rows + row) * pitch..][..pitch];
                    // The first pixel of this remainder, and the place it falls on.
                    let first = (phase_x + across - self.before[1] % across) % across;
                    let place = (first + self.before[1]) / across;
                    if across == 1 {
                        let count = width.min(pitch.saturating_sub(place));
                        to[place.min(pitch)..][..count].copy_from_slice(&from[..count]);
                        continue;
                    }
                    let to = to.iter_mut().skip(place);
                    for (to, from) in to.zip(from.iter().skip(first).step_by(across)) {
                        *to = *from;
                    }
                }
            }
        }
    }

    /// Where the pixels begin that each channel and tap meets at the first place.
    pub(super) fn starts(&self, starts: &mut Vec<usize>) {
        let [rows, pitch] = self.plane();
        starts.clear();
        for channel in 0..self.channels {
            for y in 0..self.taps[0] {
                for x in 0..self.taps[1] {
                    let (y, x) = (y * self.dilations[0], x * self.dilations[1]);
                    let [down, across] = self.strides;
                    let plane = (channel * down + y % down) * across + x % across;
                    starts.push((plane * rows + y / down) * pitch + x / across);
                }
            }
        }
    }
}
