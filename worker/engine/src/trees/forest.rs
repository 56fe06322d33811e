//! Trees as flat arrays, walked several at a time.
//!
//! The two children of a node lie side by side, so a comparison is an addition and not a jump the
//! processor has to guess. A leaf leads to itself. Eight walks go on at once, in one tree for eight
//! rows or in eight trees for one row, so that each waits for memory while the others go on.
//! A row's leaves are added up in the order of the trees, whoever its neighbours are.

/// Walks that go on at once.
const WALKS: usize = 8;

/// Rows that pass through one tree while its nodes are in the nearest cache.
const ROWS_AT_ONCE: usize = 64;

/// How a node compares a feature with its threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    Equal,
    NotEqual,
    Leaf,
}

/// What becomes of the values that a row's leaves give for one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

/// A node as it is walked. 12 bytes, so that five fit a cache line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Node {
    /// NaN in a leaf: nothing is less than it, so a walk goes to `child + 1`, the leaf itself.
    pub(super) threshold: f32,
    pub(super) feature: u32,
    /// Where a true comparison leads; a false one leads to the node after it.
    pub(super) child: u32,
}

/// How nodes compare that are not all `LessOrEqual`, and where a missing feature counts as true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) mode: Mode,
    pub(super) missing_is_true: bool,
}

/// All trees of an ensemble. Made by `parse.rs`, which checks every index.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Forest {
    /// First node of each tree.
    pub(super) roots: Vec<u32>,
    pub(super) nodes: Vec<Node>,
    /// One per node, or none at all where all are `LessOrEqual` and a missing feature is false.
    pub(super) comparisons: Vec<Comparison>,
    /// Values of node `n` are those at `spans[n]..spans[n + 1]`; only leaves have some.
    pub(super) spans: Vec<u32>,
    /// Target and value.
    pub(super) values: Vec<(u32, f32)>,
    pub(super) targets: usize,
    /// Features that a row must have at least.
    pub(super) features: usize,
    pub(super) aggregate: Aggregate,
}

/// An element type of rows. Integers come as `f64`, which holds those that matter exactly.
pub(super) trait Feature: Copy + PartialOrd + From<f32> {}

impl Feature for f32 {}
impl Feature for f64 {}

impl Forest {
    /// Scores of `rows`, each `width` features long: `[rows, targets]`.
    ///
    /// `width` is at least [`features`](Self::features). A target that no leaf of a row mentions is 0.
    pub(super) fn scores<T: Feature>(&self, rows: &[T], width: usize) -> Vec<f32> {
        let rows: Vec<&[T]> = rows.chunks_exact(width).collect();
        let mut totals = vec![Total::default(); rows.len() * self.targets];
        let blocks = rows.chunks(ROWS_AT_ONCE);
        for (rows, totals) in blocks.zip(totals.chunks_mut(ROWS_AT_ONCE * self.targets)) {
            let mut parts = rows.chunks_exact(WALKS);
            let full = rows.len() - parts.remainder().len();
            for &root in &self.roots {
                for (eight, totals) in rows[..full]
                    .chunks_exact(WALKS)
                    .zip(totals.chunks_mut(WALKS * self.targets))
                {
                    let mut places = [root; WALKS];
                    self.walk(&mut places, |walk| eight[walk]);
                    for (place, totals) in places.into_iter().zip(totals.chunks_mut(self.targets)) {
                        self.add(place, totals);
                    }
                }
            }
            let rest = parts.by_ref().count() * WALKS * self.targets;
            for (row, totals) in parts
                .remainder()
                .iter()
                .zip(totals[rest..].chunks_mut(self.targets))
            {
                self.add_row(row, totals);
            }
        }
        totals
            .into_iter()
            .map(|total| total.finish(self.aggregate, self.roots.len()))
            .collect()
    }

    /// One row through all trees.
    fn add_row<T: Feature>(&self, row: &[T], totals: &mut [Total]) {
        let mut eights = self.roots.chunks_exact(WALKS);
        for eight in &mut eights {
            let mut places = [0; WALKS];
            places.copy_from_slice(eight);
            self.walk(&mut places, |_| row);
            for place in places {
                self.add(place, totals);
            }
        }
        for &root in eights.remainder() {
            let mut places = [root];
            self.walk(&mut places, |_| row);
            self.add(places[0], totals);
        }
    }

    /// Goes on from `places` until each is a leaf.
    fn walk<'a, T: Feature + 'a, const N: usize>(
        &self,
        places: &mut [u32; N],
        row: impl Fn(usize) -> &'a [T],
    ) {
        loop {
            let before = *places;
            for (walk, place) in places.iter_mut().enumerate() {
                let node = self.nodes[*place as usize];
                let feature = row(walk)[node.feature as usize];
                let goes = match self.comparisons.get(*place as usize) {
                    None => feature <= T::from(node.threshold),
                    Some(comparison) => comparison.is_true(feature, T::from(node.threshold)),
                };
                *place = node.child.wrapping_add(u32::from(!goes));
            }
            if *places == before {
                return;
            }
        }
    }

    fn add(&self, leaf: u32, totals: &mut [Total]) {
        let leaf = leaf as usize;
        let values = self.spans[leaf] as usize..self.spans[leaf + 1] as usize;
        for &(target, value) in &self.values[values] {
            totals[target as usize].add(value, self.aggregate);
        }
    }
}

impl Comparison {
    fn is_true<T: Feature>(&self, feature: T, threshold: T) -> bool {
        // Only a NaN has no order with itself; a leaf has no flag.
        if feature.partial_cmp(&feature).is_none() {
            return self.missing_is_true;
        }
        match self.mode {
            Mode::LessOrEqual => feature <= threshold,
            Mode::Less => feature < threshold,
            Mode::GreaterOrEqual => feature >= threshold,
            Mode::Greater => feature > threshold,
            Mode::Equal => feature == threshold,
            Mode::NotEqual => feature != threshold,
            Mode::Leaf => false,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Total {
    value: f32,
    seen: bool,
}

impl Total {
    fn add(&mut self, value: f32, aggregate: Aggregate) {
        self.value = match aggregate {
            Aggregate::Sum | Aggregate::Average => self.value + value,
            Aggregate::Min if self.seen => self.value.min(value),
            Aggregate::Max if self.seen => self.value.max(value),
            Aggregate::Min | Aggregate::Max => value,
        };
        self.seen = true;
    }

    fn finish(self, aggregate: Aggregate, trees: usize) -> f32 {
        match aggregate {
            Aggregate::Average => self.value / trees as f32,
            _ => self.value,
        }
    }
}
