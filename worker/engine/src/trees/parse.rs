//! The attributes of an ONNX node to a [`Forest`]. Every index is checked here, once.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::*;

use super::forest::{Aggregate, Comparison, Forest, Mode, Node};

/// The attributes that name the nodes, in the order of [`Columns`].
struct Columns<'a> {
    trees: &'a [i64],
    nodes: &'a [i64],
    features: &'a [i64],
    values: &'a [f32],
    modes: Vec<Mode>,
    when_true: &'a [i64],
    when_false: &'a [i64],
    missing: Option<&'a [i64]>,
}

/// Reads the trees of `node`. `leaves` is how the attributes of its leaves begin: `class` or `target`.
pub(super) fn forest(
    node: &NodeProto,
    leaves: &str,
    targets: usize,
    aggregate: Aggregate,
) -> TractResult<Forest> {
    let columns = Columns::of(node)?;
    let mut values = leaf_values(node, leaves, targets)?;
    let mut at = HashMap::new();
    let mut trees = Vec::new();
    for index in 0..columns.trees.len() {
        let (tree, id) = (columns.trees[index], columns.nodes[index]);
        // The first node that is named of a tree is its root.
        if trees.last().is_none_or(|(last, _)| *last != tree) {
            trees.push((tree, index));
        }
        ensure!(
            at.insert((tree, id), index).is_none(),
            "tree {tree} has two nodes {id}"
        );
    }
    let count = columns.trees.len();
    let mut forest = Forest {
        roots: Vec::with_capacity(trees.len()),
        nodes: Vec::with_capacity(count),
        comparisons: Vec::new(),
        spans: Vec::with_capacity(count + 1),
        values: Vec::new(),
        targets,
        // A leaf looks at feature 0, whatever it is.
        features: 1,
        aggregate,
    };
    let mut comparisons = Vec::with_capacity(count);
    let mut reached = HashSet::new();
    let mut seen = HashSet::new();
    for (tree, root) in trees {
        ensure!(
            seen.insert(tree),
            "the nodes of tree {tree} do not stand together"
        );
        forest.roots.push(index_u32(forest.nodes.len())?);
        reached.insert(root);
        // Nodes in the order they are laid down; both children of a node go to the end together.
        let mut order = vec![root];
        let base = forest.nodes.len();
        let mut next = 0;
        while let Some(&index) = order.get(next) {
            let own = base + next;
            next += 1;
            let mode = columns.modes[index];
            comparisons.push(Comparison {
                mode,
                // A leaf asks nothing, whatever its column says.
                missing_is_true: mode != Mode::Leaf
                    && columns.missing.is_some_and(|missing| missing[index] != 0),
            });
            forest.spans.push(index_u32(forest.values.len())?);
            if mode == Mode::Leaf {
                let own_values = values.remove(&(tree, columns.nodes[index]));
                forest.values.extend(own_values.unwrap_or_default());
                forest.nodes.push(Node {
                    threshold: f32::NAN,
                    feature: 0,
                    child: index_u32(own)?.wrapping_sub(1),
                });
                continue;
            }
            let feature = columns.features[index];
            let feature = u32::try_from(feature).with_context(|| {
                format!("tree {tree} asks for feature {feature}; features count from 0")
            })?;
            forest.features = forest.features.max(feature as usize + 1);
            forest.nodes.push(Node {
                threshold: columns.values[index],
                feature,
                child: index_u32(base + order.len())?,
            });
            for child in [columns.when_true[index], columns.when_false[index]] {
                let child = at.get(&(tree, child)).with_context(|| {
                    let id = columns.nodes[index];
                    format!("node {id} of tree {tree} leads to node {child}, which is not there")
                })?;
                ensure!(
                    reached.insert(*child),
                    "tree {tree} leads to one of its nodes twice"
                );
                order.push(*child);
            }
        }
    }
    forest.spans.push(index_u32(forest.values.len())?);
    if let Some((tree, id)) = values.into_keys().min() {
        bail!("{leaves}_nodeids names node {id} of tree {tree}, which is no leaf of that tree");
    }
    let simple = comparisons.iter().all(|comparison| {
        matches!(comparison.mode, Mode::LessOrEqual | Mode::Leaf) && !comparison.missing_is_true
    });
    if !simple {
        forest.comparisons = comparisons;
    }
    Ok(forest)
}

/// `aggregate_function` of a regressor.
pub(super) fn aggregate(node: &NodeProto) -> TractResult<Aggregate> {
    Ok(match node.get_attr_opt("aggregate_function")? {
        None | Some("SUM") => Aggregate::Sum,
        Some("AVERAGE") => Aggregate::Average,
        Some("MIN") => Aggregate::Min,
        Some("MAX") => Aggregate::Max,
        Some(other) => {
            bail!("no aggregate_function `{other}`; there are SUM, AVERAGE, MIN and MAX")
        }
    })
}

impl<'a> Columns<'a> {
    fn of(node: &'a NodeProto) -> TractResult<Self> {
        // Models for doubles keep their numbers there.
        for name in ["nodes_values_as_tensor", "base_values_as_tensor"] {
            ensure!(
                node.attribute
                    .iter()
                    .all(|attribute| attribute.name != name),
                "attribute {name} is not supported; export the model with float inputs"
            );
        }
        let modes: Vec<&str> = node.get_attr_vec("nodes_modes")?;
        let columns = Columns {
            trees: node.get_attr_slice("nodes_treeids")?,
            nodes: node.get_attr_slice("nodes_nodeids")?,
            features: node.get_attr_slice("nodes_featureids")?,
            values: node.get_attr_slice("nodes_values")?,
            modes: modes.into_iter().map(mode).collect::<TractResult<_>>()?,
            when_true: node.get_attr_slice("nodes_truenodeids")?,
            when_false: node.get_attr_slice("nodes_falsenodeids")?,
            missing: node.get_attr_opt_slice("nodes_missing_value_tracks_true")?,
        };
        let count = columns.trees.len();
        ensure!(count > 0, "the ensemble has no node");
        let lengths = [
            ("nodes_nodeids", columns.nodes.len()),
            ("nodes_featureids", columns.features.len()),
            ("nodes_values", columns.values.len()),
            ("nodes_modes", columns.modes.len()),
            ("nodes_truenodeids", columns.when_true.len()),
            ("nodes_falsenodeids", columns.when_false.len()),
            (
                "nodes_missing_value_tracks_true",
                columns.missing.map_or(count, <[i64]>::len),
            ),
        ];
        for (name, length) in lengths {
            ensure!(
                length == count,
                "{name} has {length} entries, nodes_treeids has {count}"
            );
        }
        Ok(columns)
    }
}

fn mode(name: &str) -> TractResult<Mode> {
    Ok(match name {
        "BRANCH_LEQ" => Mode::LessOrEqual,
        "BRANCH_LT" => Mode::Less,
        "BRANCH_GTE" => Mode::GreaterOrEqual,
        "BRANCH_GT" => Mode::Greater,
        "BRANCH_EQ" => Mode::Equal,
        "BRANCH_NEQ" => Mode::NotEqual,
        "LEAF" => Mode::Leaf,
        other => bail!("no node mode `{other}`"),
    })
}

/// What each leaf gives, by tree and node.
type LeafValues = HashMap<(i64, i64), Vec<(u32, f32)>>;

fn leaf_values(node: &NodeProto, leaves: &str, targets: usize) -> TractResult<LeafValues> {
    let column = |name| node.get_attr_slice::<i64>(&format!("{leaves}_{name}"));
    let (trees, nodes, ids) = (column("treeids")?, column("nodeids")?, column("ids")?);
    let weights: &[f32] = node.get_attr_slice(&format!("{leaves}_weights"))?;
    ensure!(
        trees.len() == nodes.len() && trees.len() == ids.len() && trees.len() == weights.len(),
        "{leaves}_treeids, {leaves}_nodeids, {leaves}_ids and {leaves}_weights have different lengths"
    );
    let mut values = LeafValues::new();
    for index in 0..trees.len() {
        let target = u32::try_from(ids[index])
            .ok()
            .filter(|target| (*target as usize) < targets)
            .with_context(|| format!("{leaves}_ids has {}, of {targets}", ids[index]))?;
        let leaf = values.entry((trees[index], nodes[index])).or_default();
        leaf.push((target, weights[index]));
    }
    Ok(values)
}

fn index_u32(index: usize) -> TractResult<u32> {
    u32::try_from(index).context("the ensemble is too large")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::pb::{AttributeProto, attribute_proto::AttributeType};

    fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
        AttributeProto {
            name: name.to_owned(),
            r#type: kind as i32,
            ..AttributeProto::default()
        }
    }

    fn integers(name: &str, ints: &[i64]) -> AttributeProto {
        AttributeProto {
            ints: ints.to_vec(),
            ..attribute(name, AttributeType::Ints)
        }
    }

    fn floats(name: &str, floats: &[f32]) -> AttributeProto {
        AttributeProto {
            floats: floats.to_vec(),
            ..attribute(name, AttributeType::Floats)
        }
    }

    /// One tree: `feature 1 <= 0.5` leads to a leaf of 1, else to one of 2.
    fn stump() -> Vec<AttributeProto> {
        let modes = ["BRANCH_LEQ", "LEAF", "LEAF"].map(|mode| mode.as_bytes().to_vec());
        vec![
            integers("nodes_treeids", &[0, 0, 0]),
            integers("nodes_nodeids", &[0, 1, 2]),
            integers("nodes_featureids", &[1, 0, 0]),
            floats("nodes_values", &[0.5, 0.0, 0.0]),
            AttributeProto {
                strings: modes.to_vec(),
                ..attribute("nodes_modes", AttributeType::Strings)
            },
            integers("nodes_truenodeids", &[1, 0, 0]),
            integers("nodes_falsenodeids", &[2, 0, 0]),
            integers("target_treeids", &[0, 0]),
            integers("target_nodeids", &[1, 2]),
            integers("target_ids", &[0, 0]),
            floats("target_weights", &[1.0, 2.0]),
        ]
    }

    fn read(attributes: Vec<AttributeProto>) -> TractResult<Forest> {
        let node = NodeProto {
            attribute: attributes,
            ..NodeProto::default()
        };
        forest(&node, "target", 1, Aggregate::Sum)
    }

    fn read_with(changed: AttributeProto) -> TractResult<Forest> {
        let mut attributes = stump();
        attributes.retain(|attribute| attribute.name != changed.name);
        attributes.push(changed);
        read(attributes)
    }

    #[test]
    fn a_missing_feature_goes_where_the_node_says() {
        let rows = [0.0f32, 0.5, 0.0, f32::NAN, 0.0, 0.6];
        let plain = read(stump()).expect("it is well formed");
        assert_eq!(plain.scores(&rows, 2), [1.0, 2.0, 2.0]);
        let tracked = integers("nodes_missing_value_tracks_true", &[1, 0, 0]);
        let tracked = read_with(tracked).expect("it is well formed");
        assert_eq!(tracked.scores(&rows, 2), [1.0, 1.0, 2.0]);
    }

    #[test]
    fn a_leaf_asks_nothing_even_where_missing_features_are_tracked() {
        let tracked = integers("nodes_missing_value_tracks_true", &[1, 1, 1]);
        let forest = read_with(tracked).expect("it is well formed");
        // Leaves would look at feature 0.
        assert_eq!(
            forest.scores(&[f32::NAN, 0.0, f32::NAN, 1.0], 2),
            [1.0, 2.0]
        );
    }

    #[test]
    fn a_tree_whose_nodes_do_not_stand_together_is_refused() {
        let mut attributes = stump();
        for attribute in &mut attributes {
            match &attribute.name[..] {
                "nodes_treeids" => attribute.ints = vec![0, 0, 0, 1, 0],
                "nodes_nodeids" => attribute.ints = vec![0, 1, 2, 0, 3],
                name if name.starts_with("nodes_") => {
                    attribute
                        .ints
                        .extend(vec![0; 2 * attribute.ints.len().min(1)]);
                    attribute
                        .floats
                        .extend(vec![0.0; 2 * attribute.floats.len().min(1)]);
                    let leaf = attribute.strings.last().cloned();
                    attribute
                        .strings
                        .extend(leaf.iter().chain(&leaf).cloned().collect::<Vec<_>>());
                }
                _ => {}
            }
        }
        let error = format!("{:#}", read(attributes).expect_err("tree 0 comes twice"));
        assert!(error.contains("tree 0 do not stand together"), "{error}");
    }

    #[test]
    fn doubles_are_compared_as_doubles() {
        let forest = read(stump()).expect("it is well formed");
        // As `f32` this is 0.5, and would go the other way.
        assert_eq!(forest.scores(&[0.0, 0.5 + 1e-12], 2), [2.0]);
    }

    #[test]
    fn trees_that_make_no_sense_are_refused_with_the_place() {
        let cases = [
            (
                integers("nodes_truenodeids", &[7, 0, 0]),
                "node 0 of tree 0 leads to node 7",
            ),
            (
                integers("nodes_truenodeids", &[0, 0, 0]),
                "leads to one of its nodes twice",
            ),
            (
                integers("nodes_nodeids", &[0, 1, 1]),
                "tree 0 has two nodes 1",
            ),
            (integers("nodes_featureids", &[-1, 0, 0]), "feature -1"),
            (
                integers("nodes_nodeids", &[0, 1]),
                "nodes_nodeids has 2 entries",
            ),
            (
                integers("nodes_falsenodeids", &[1, 0, 0]),
                "leads to one of its nodes twice",
            ),
            (
                integers("target_nodeids", &[1, 9]),
                "names node 9 of tree 0",
            ),
            (integers("target_ids", &[0, 1]), "target_ids has 1, of 1"),
            (floats("target_weights", &[1.0]), "different lengths"),
        ];
        for (changed, reason) in cases {
            let error = format!("{:#}", read_with(changed).expect_err(reason));
            assert!(error.contains(reason), "{error}");
        }
    }
}
