//! Which dense layers belong together.
//!
//! A segment is one operator, so it has to be convex: no path may leave it and come back, or it would
//! have to wait for itself. Layers join in the order of evaluation, each the segment of a layer it reads.

use std::collections::{BTreeSet, HashMap};

use tract_onnx::prelude::{OutletId, TractResult, TypedModel, TypedNode};

use crate::cpu::dense::Dense;

/// Layers of one segment: nodes in the order of evaluation.
pub(super) type Nodes = Vec<usize>;

/// All segments of `model`.
pub(super) fn segments(model: &TypedModel) -> TractResult<Vec<Nodes>> {
    let order = model.eval_order()?;
    let graph = order.iter().map(|id| {
        let node = model.node(*id);
        let inputs = node.inputs.iter().map(|input| input.node).collect();
        let joins = node.op_as::<Dense>().map(|_| joinable(model, node));
        (*id, inputs, joins)
    });
    Ok(partition(graph))
}

/// Layers that `node` may share a segment with: it reads them, and all its rows are theirs.
fn joinable(model: &TypedModel, node: &TypedNode) -> Vec<usize> {
    let reads = |input: &OutletId, axes: usize| {
        let before = model.node(input.node).op_as::<Dense>()?;
        // Rows of another number of axes would be another number of rows.
        (before.columns().len() == axes).then_some(input.node)
    };
    let Some(dense) = node.op_as::<Dense>() else {
        return vec![];
    };
    let rows = reads(&node.inputs[0], dense.inner().len());
    let residual = node
        .inputs
        .get(1)
        .and_then(|input| reads(input, dense.columns().len()));
    rows.into_iter().chain(residual).collect()
}

/// A node of the graph: itself, what it reads, and, if it is a layer, what it may join.
type Vertex = (usize, Vec<usize>, Option<Vec<usize>>);

/// `graph` is in the order of evaluation.
fn partition(graph: impl Iterator<Item = Vertex>) -> Vec<Nodes> {
    let mut cut = Cut::default();
    for (node, inputs, joins) in graph {
        if let Some(joins) = joins {
            let candidates = joins
                .iter()
                .filter_map(|layer| cut.segment_of.get(layer).copied());
            let free = candidates
                .into_iter()
                .find(|segment| !cut.leads_back(*segment, &inputs));
            let segment = free.unwrap_or_else(|| {
                cut.segments.push(Vec::new());
                cut.segments.len() - 1
            });
            cut.segments[segment].push(node);
            cut.segment_of.insert(node, segment);
        }
        cut.inputs.insert(node, inputs);
    }
    cut.segments
}

/// What has been looked at so far.
#[derive(Default)]
struct Cut {
    segments: Vec<Nodes>,
    segment_of: HashMap<usize, usize>,
    inputs: HashMap<usize, Vec<usize>>,
}

impl Cut {
    /// Does a path lead from `segment` out of it and on to one of `inputs`?
    ///
    /// Every other segment is one operator too: whoever reaches one of its layers goes on from all.
    fn leads_back(&self, segment: usize, inputs: &[usize]) -> bool {
        let mut waiting: Vec<usize> = inputs
            .iter()
            .copied()
            .filter(|input| self.segment_of.get(input) != Some(&segment))
            .collect();
        let mut seen: BTreeSet<usize> = waiting.iter().copied().collect();
        while let Some(node) = waiting.pop() {
            let own = self.segment_of.get(&node).copied();
            if own == Some(segment) {
                return true;
            }
            let together = own.map_or(&[][..], |own| &self.segments[own]);
            let inputs = self.inputs.get(&node).into_iter().flatten();
            for before in inputs.chain(together) {
                if seen.insert(*before) {
                    waiting.push(*before);
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reaches a node of the segment again after leaving it?
    fn comes_back(graph: &[(Vec<usize>, bool)], segment: &[usize]) -> bool {
        let mut outside = vec![false; graph.len()];
        for (node, (inputs, _)) in graph.iter().enumerate() {
            let inside = segment.contains(&node);
            let after = inputs
                .iter()
                .any(|input| outside[*input] || (!inside && segment.contains(input)));
            if inside && inputs.iter().any(|input| outside[*input]) {
                return true;
            }
            outside[node] = !inside && after;
        }
        false
    }

    /// With every segment one node, is there an order of evaluation?
    fn has_an_order(graph: &[(Vec<usize>, bool)], segments: &[Nodes]) -> bool {
        let name = |node: usize| {
            segments
                .iter()
                .position(|segment| segment.contains(&node))
                .unwrap_or(segments.len() + node)
        };
        let edges: BTreeSet<(usize, usize)> = graph
            .iter()
            .enumerate()
            .flat_map(|(node, (inputs, _))| {
                inputs.iter().map(move |input| (name(*input), name(node)))
            })
            .filter(|(from, to)| from != to)
            .collect();
        let mut left: BTreeSet<usize> = (0..graph.len()).map(name).collect();
        while !left.is_empty() {
            let free = left.iter().copied().find(|node| {
                !edges
                    .iter()
                    .any(|(from, to)| to == node && left.contains(from))
            });
            let Some(free) = free else {
                return false;
            };
            left.remove(&free);
        }
        true
    }

    fn cut(graph: &[(Vec<usize>, bool)]) -> Vec<Nodes> {
        let nodes = graph
            .iter()
            .enumerate()
            .map(|(node, (inputs, layer))| (node, inputs.clone(), layer.then(|| inputs.clone())));
        partition(nodes)
    }

    proptest! {
        #[test]
        fn segments_of_any_graph_are_convex_and_can_be_ordered(
            nodes in prop::collection::vec((prop::collection::vec(any::<prop::sample::Index>(), 0..3), any::<bool>()), 1..24),
        ) {
            let graph: Vec<(Vec<usize>, bool)> = nodes
                .iter()
                .enumerate()
                .map(|(node, (inputs, layer))| {
                    let inputs = if node == 0 { vec![] } else { inputs.iter().map(|input| input.index(node)).collect() };
                    (inputs, *layer)
                })
                .collect();
            let segments = cut(&graph);
            let layers = graph.iter().filter(|(_, layer)| *layer).count();
            prop_assert_eq!(segments.iter().map(Vec::len).sum::<usize>(), layers, "each layer is in one segment");
            for segment in &segments {
                prop_assert!(!comes_back(&graph, segment), "{:?} of {:?}", segment, graph);
            }
            prop_assert!(has_an_order(&graph, &segments), "{:?} of {:?}", segments, graph);
        }
    }

    #[test]
    fn a_chain_is_one_segment_and_a_detour_splits_it() {
        let layer = |inputs: &[usize]| (inputs.to_vec(), true);
        let other = |inputs: &[usize]| (inputs.to_vec(), false);
        let chain = [other(&[]), layer(&[0]), layer(&[1]), layer(&[2])];
        assert_eq!(cut(&chain), [vec![1, 2, 3]]);
        // The residual comes from before the detour, so the last layer cannot join the first.
        let detour = [other(&[]), layer(&[0]), other(&[1]), layer(&[2, 1])];
        assert_eq!(cut(&detour), [vec![1], vec![3]]);
    }
}
