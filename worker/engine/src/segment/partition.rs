//! Which operators belong together on the card.
//!
//! A segment is one operator, so it has to be convex: no path may leave it and come back, or it would
//! have to wait for itself. Operators join in the order of evaluation the segments of all that they
//! read, which become one, as far as that is allowed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tract_onnx::prelude::{TractResult, TypedModel};

use super::lower;
use crate::cpu::dense::Dense;

/// Operators of one segment: nodes in the order of evaluation.
pub(super) type Nodes = Vec<usize>;

/// All segments of `model`. What has no dense layer is not worth the way to the card.
pub(super) fn segments(model: &TypedModel) -> TractResult<Vec<Nodes>> {
    let order = model.eval_order()?;
    let mut graph = Vec::with_capacity(order.len());
    for id in order {
        let node = model.node(id);
        let inputs = node.inputs.iter().map(|input| input.node).collect();
        graph.push((id, inputs, lower::is_supported(model, node)?));
    }
    let mut segments = partition(graph.into_iter());
    segments.retain(|nodes| nodes.iter().any(|id| model.node(*id).op_is::<Dense>()));
    Ok(segments)
}

/// A node of the graph: itself, what it reads, and whether the card can do it.
type Vertex = (usize, Vec<usize>, bool);

/// `graph` is in the order of evaluation.
fn partition(graph: impl Iterator<Item = Vertex>) -> Vec<Nodes> {
    let mut cut = Cut::default();
    let (mut nodes, mut places) = (Vec::new(), HashMap::new());
    for (place, (node, inputs, joins)) in graph.enumerate() {
        nodes.push(node);
        places.insert(node, place);
        let inputs = inputs.iter().filter_map(|input| places.get(input).copied());
        cut.inputs.push(inputs.collect());
        cut.segment_of.push(joins.then_some(place));
        if joins {
            cut.segments.insert(place, BTreeSet::from([place]));
            cut.join(place);
        }
    }
    let segments = cut.segments.into_values();
    let in_order = segments.map(|places| places.iter().map(|place| nodes[*place]).collect());
    in_order.collect()
}

/// What has been looked at so far, each node by its place in the order of evaluation.
#[derive(Default)]
struct Cut {
    inputs: Vec<Vec<usize>>,
    /// The number of the segment, which is one of its places.
    segment_of: Vec<Option<usize>>,
    segments: BTreeMap<usize, BTreeSet<usize>>,
}

impl Cut {
    /// The newest node and the segments it reads become one, as far as that is allowed.
    fn join(&mut self, newest: usize) {
        let read = self.inputs[newest].iter();
        let read: BTreeSet<usize> = read.filter_map(|input| self.segment_of[*input]).collect();
        let mut own = newest;
        for other in read {
            if !self.leads_back([own, other]) {
                let moved = self.segments.remove(&own).unwrap_or_default();
                for place in &moved {
                    self.segment_of[*place] = Some(other);
                }
                self.segments.entry(other).or_default().extend(moved);
                own = other;
            }
        }
    }

    /// Would a path lead from one of the two out of both and back?
    ///
    /// Every other segment is one operator too: whoever reaches one of its nodes goes on from all.
    fn leads_back(&self, both: [usize; 2]) -> bool {
        let inside = |place: &usize| self.segment_of[*place].is_some_and(|own| both.contains(&own));
        let members = both.iter().filter_map(|segment| self.segments.get(segment));
        let reads = members.flatten().flat_map(|place| &self.inputs[*place]);
        let mut waiting: Vec<usize> = reads.copied().filter(|place| !inside(place)).collect();
        let mut seen: BTreeSet<usize> = waiting.iter().copied().collect();
        let mut entered = BTreeSet::new();
        while let Some(place) = waiting.pop() {
            // Once for each segment: all of it goes on from there.
            let own = self.segment_of[place].filter(|own| entered.insert(*own));
            let together = own.and_then(|own| self.segments.get(&own));
            let before = self.inputs[place].iter();
            for before in before.chain(together.into_iter().flatten()) {
                if inside(before) {
                    return true;
                }
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
            .map(|(node, (inputs, layer))| (node, inputs.clone(), *layer));
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
        // What is added comes from before the detour, so the last layer cannot join the first.
        let detour = [other(&[]), layer(&[0]), other(&[1]), layer(&[2, 1])];
        assert_eq!(cut(&detour), [vec![1], vec![3]]);
    }

    #[test]
    fn branches_of_one_value_become_one_where_they_meet() {
        let layer = |inputs: &[usize]| (inputs.to_vec(), true);
        let other = |inputs: &[usize]| (inputs.to_vec(), false);
        let heads = [
            other(&[]),
            layer(&[0]),
            layer(&[0]),
            layer(&[0]),
            layer(&[1, 2]),
            layer(&[3, 4]),
        ];
        assert_eq!(cut(&heads), [vec![1, 2, 3, 4, 5]]);
        // One of them takes a detour, on the way to which it needs the other.
        let crossed = [
            other(&[]),
            layer(&[0]),
            other(&[1]),
            layer(&[2]),
            layer(&[1, 3]),
        ];
        assert_eq!(cut(&crossed), [vec![1], vec![3, 4]]);
    }
}
