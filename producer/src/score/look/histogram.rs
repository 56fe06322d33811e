//! A histogram of numbers whose range is not known before they come.

use serde::Serialize;

use super::{NumberSummary, Range};

/// Number of bins.
const BINS: usize = 32;
/// Numbers that are kept to choose the first range.
const KEPT: usize = 1_024;

/// How numbers are distributed: bins of equal width, each from its lower end up to that of the next.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Histogram {
    /// The lower end of the first bin.
    pub from: f64,
    /// The width of a bin.
    pub width: f64,
    /// Numbers in each bin; empty if there was none at all.
    pub counts: Vec<u64>,
}

/// Gathers numbers.
#[derive(Debug, Default)]
pub(super) struct Growing {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    nan: u64,
    infinite: u64,
    /// The first numbers, until they are many enough to choose a range.
    kept: Vec<f64>,
    bins: Option<Bins>,
}

#[derive(Debug, Clone)]
struct Bins {
    from: f64,
    width: f64,
    counts: [u64; BINS],
}

impl Histogram {
    /// The counts as a line of bars, for a terminal.
    pub fn bars(&self) -> String {
        const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let most = self.counts.iter().max().copied().unwrap_or(0).max(1) as f64;
        let bar = |count: &u64| BARS[(*count as f64 / most * 8.0).ceil() as usize];
        self.counts.iter().map(bar).collect()
    }
}

impl Growing {
    pub(super) fn add(&mut self, value: f64) {
        if value.is_nan() {
            self.nan += 1;
            return;
        }
        if value.is_infinite() {
            self.infinite += 1;
            return;
        }
        if self.count == 0 {
            (self.min, self.max) = (value, value);
        }
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if let Some(bins) = &mut self.bins {
            bins.add(value);
            return;
        }
        self.kept.push(value);
        if self.kept.len() == KEPT {
            self.bins = Some(self.chosen());
            self.kept = Vec::new();
        }
    }

    pub(super) fn summary(&self) -> NumberSummary {
        let histogram = match &self.bins {
            Some(bins) => bins.histogram(),
            None if self.count > 0 => self.chosen().histogram(),
            None => Histogram {
                from: 0.0,
                width: 0.0,
                counts: Vec::new(),
            },
        };
        NumberSummary {
            range: (self.count > 0).then(|| Range {
                min: self.min,
                mean: self.sum / self.count as f64,
                max: self.max,
            }),
            nan: self.nan,
            infinite: self.infinite,
            histogram,
        }
    }

    /// Bins over what was kept.
    fn chosen(&self) -> Bins {
        let bins = BINS as f64;
        let mut width = self.max / bins - self.min / bins;
        if width <= 0.0 {
            // All the same: any width does, as long as it is one at this magnitude.
            width = (self.min.abs() * 1e-6).max(1e-6);
        }
        let mut bins = Bins {
            from: self.min,
            width,
            counts: [0; BINS],
        };
        self.kept.iter().for_each(|value| bins.add(*value));
        bins
    }
}

impl Bins {
    fn add(&mut self, value: f64) {
        let bins = BINS as f64;
        while value < self.from {
            // Twice as wide, with the old bins in the upper half.
            self.from -= bins * self.width;
            self.width *= 2.0;
            let old = self.counts;
            self.counts = [0; BINS];
            for (place, pair) in old.chunks_exact(2).enumerate() {
                self.counts[BINS / 2 + place] = pair[0] + pair[1];
            }
        }
        while value > self.from + bins * self.width {
            self.width *= 2.0;
            let old = self.counts;
            self.counts = [0; BINS];
            for (place, pair) in old.chunks_exact(2).enumerate() {
                self.counts[place] = pair[0] + pair[1];
            }
        }
        // The largest may lie on the upper end of the last bin.
        let place = ((value - self.from) / self.width) as usize;
        self.counts[place.min(BINS - 1)] += 1;
    }

    /// Without the empty bins at both ends, which a range that grew by doubling may have.
    fn histogram(&self) -> Histogram {
        let is_used = |count: &u64| *count > 0;
        let first = self.counts.iter().position(is_used).unwrap_or(0);
        let end = self
            .counts
            .iter()
            .rposition(is_used)
            .map_or(BINS, |last| last + 1);
        Histogram {
            from: self.from + first as f64 * self.width,
            width: self.width,
            counts: self.counts[first..end].to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = f64>) -> NumberSummary {
        let mut growing = Growing::default();
        values.into_iter().for_each(|value| growing.add(value));
        growing.summary()
    }

    #[test]
    fn the_range_grows_with_the_values_and_none_is_lost() {
        let rising = of((0..10_000).map(f64::from));
        assert_eq!(rising.histogram.counts.iter().sum::<u64>(), 10_000);
        let (from, width) = (rising.histogram.from, rising.histogram.width);
        assert!(
            from <= 0.0 && from + width * 32.0 >= 9_999.0,
            "{from} {width}"
        );
        for (place, count) in rising.histogram.counts.iter().enumerate() {
            let (low, high) = (
                from + width * place as f64,
                from + width * (place + 1) as f64,
            );
            let expected = (0..10_000)
                .filter(|n| (low..high).contains(&f64::from(*n)))
                .count();
            // Numbers on the edge of two bins may be counted in either.
            assert!(
                count.abs_diff(expected as u64) <= 1,
                "bin {place}: {count}, {expected}"
            );
        }
        let falling = of((0..10_000).map(|n| f64::from(-n)));
        assert_eq!(falling.histogram.counts.iter().sum::<u64>(), 10_000);
        let mean = falling.range.expect("numbers").mean;
        assert!((mean + 4_999.5).abs() < 1e-9);
    }

    #[test]
    fn a_range_that_doubled_shows_only_what_was_used() {
        // The smallest comes last, just below the range of those before it.
        let values = (0..2_000).map(|n| f64::from(n % 100) / 100.0 + 0.001);
        let grown = of(values.chain([0.0])).histogram;
        let end = grown.from + grown.width * grown.counts.len() as f64;
        assert!((-0.1..=0.0).contains(&grown.from), "{}", grown.from);
        assert!((0.99..1.1).contains(&end), "{end}");
        assert_eq!(grown.counts.iter().sum::<u64>(), 2_001);
    }

    #[test]
    fn odd_values_end_in_no_loop_and_no_panic() {
        assert_eq!(of([]).histogram.counts.len(), 0);
        assert_eq!(of(vec![7.0; 5_000]).histogram.counts[0], 5_000);
        let extreme = (0..3_000).map(|n| [f64::MAX, f64::MIN, 5e-324, 0.0][n % 4]);
        let extreme = of(extreme);
        assert_eq!(extreme.range.map(|range| range.max), Some(f64::MAX));
        assert_eq!(extreme.histogram.counts.iter().sum::<u64>(), 3_000);
        let late = (0..2_000).map(|n| if n < 1_500 { 1e-300 } else { -1e300 });
        assert_eq!(of(late).histogram.counts.iter().sum::<u64>(), 2_000);
        let odd = of([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0]);
        assert_eq!((odd.nan, odd.infinite), (1, 2));
    }

    #[test]
    fn bars_show_the_counts() {
        let histogram = Histogram {
            from: 0.0,
            width: 1.0,
            counts: vec![0, 1, 4, 8],
        };
        assert_eq!(histogram.bars(), " ▁▄█");
    }
}
