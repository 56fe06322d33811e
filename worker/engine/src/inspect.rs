//! What a decoded ONNX file says about itself, before anything is compiled.
//!
//! Everything that can be refused cheaply is refused here: operator sets, operators
//! that do not exist, graphs that are too large, weights kept in other files.

use std::path::{Component, Path};

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, tensor_proto};

use crate::error::LoadError;
use crate::load::LoadLimits;

/// Operators that may draw random numbers. `Dropout` joins them when it can be in training mode.
const RANDOM_OPERATORS: [&str; 6] = [
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
];

/// Nodes and weights of a graph and of all graphs inside it.
pub(crate) struct Contents<'a> {
    nodes: Vec<&'a NodeProto>,
    weights: Vec<&'a TensorProto>,
}

impl<'a> Contents<'a> {
    pub(crate) fn of(graph: &'a GraphProto) -> Self {
        let mut contents = Contents {
            nodes: vec![],
            weights: vec![],
        };
        let mut graphs = vec![graph];
        while let Some(graph) = graphs.pop() {
            contents.weights.extend(&graph.initializer);
            contents.nodes.extend(&graph.node);
            for node in &graph.node {
                for attribute in &node.attribute {
                    graphs.extend(attribute.g.iter().chain(&attribute.graphs));
                    contents
                        .weights
                        .extend(attribute.t.iter().chain(&attribute.tensors));
                }
            }
        }
        contents
    }

    pub(crate) fn check_size(&self, limits: &LoadLimits) -> Result<(), LoadError> {
        let (nodes, limit) = (self.nodes.len(), limits.max_nodes);
        if nodes > limit {
            Err(LoadError::TooManyNodes { nodes, limit })
        } else {
            Ok(())
        }
    }

    /// Refuses the first operator that `known` does not know.
    pub(crate) fn check_operators(&self, known: impl Fn(&str) -> bool) -> Result<(), LoadError> {
        match self.nodes.iter().find(|node| !known(&node.op_type)) {
            Some(node) => Err(LoadError::UnsupportedOperator {
                node: node_name(node),
                operator: node.op_type.clone(),
            }),
            None => Ok(()),
        }
    }

    /// The first operator that may draw random numbers, by its ONNX name.
    pub(crate) fn random_operator(&self) -> Option<&'a str> {
        let random = |node: &&&NodeProto| {
            RANDOM_OPERATORS.contains(&node.op_type.as_str())
                || (node.op_type == "Dropout" && self.may_train(node))
        };
        self.nodes
            .iter()
            .find(random)
            .map(|node| node.op_type.as_str())
    }

    /// A `Dropout` drops only if its third input says so; a constant `false` there, or nothing, never does.
    fn may_train(&self, dropout: &NodeProto) -> bool {
        let Some(name) = dropout.input.get(2).filter(|name| !name.is_empty()) else {
            return false;
        };
        let is_false = |weight: &TensorProto| {
            weight.raw_data.iter().all(|byte| *byte == 0)
                && weight.int32_data.iter().all(|value| *value == 0)
                && weight.external_data.is_empty()
        };
        let initializer = self
            .weights
            .iter()
            .copied()
            .find(|weight| weight.name == *name);
        let constant = || {
            let node = self.nodes.iter().find(|node| node.output.contains(name))?;
            node.attribute
                .iter()
                .find_map(|attribute| attribute.t.as_ref())
        };
        !initializer.or_else(constant).is_some_and(is_false)
    }

    /// Checks each weight that is kept outside the model file, and gives their bytes in all.
    ///
    /// Only plain relative names below `folder` are followed, through no symbolic link.
    pub(crate) fn external_bytes(&self, folder: Option<&Path>) -> Result<u64, LoadError> {
        let mut bytes = 0u64;
        for weight in &self.weights {
            if weight.data_location == Some(tensor_proto::DataLocation::External as i32) {
                bytes = bytes.saturating_add(external_weight(weight, folder)?);
            }
        }
        Ok(bytes)
    }
}

/// The default operator set's version, if it is one the limits allow.
pub(crate) fn check_opset(model: &ModelProto, limits: &LoadLimits) -> Result<(), LoadError> {
    let default = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let Some(set) = model.opset_import.iter().find(|set| default(&set.domain)) else {
        return Err(LoadError::Malformed {
            reason: "it names no operator set".to_owned(),
        });
    };
    if limits.opsets.contains(&set.version) {
        return Ok(());
    }
    Err(LoadError::Opset {
        version: set.version,
        oldest: *limits.opsets.start(),
        newest: *limits.opsets.end(),
    })
}

fn node_name(node: &NodeProto) -> String {
    let names = std::iter::once(&node.name).chain(&node.output);
    names
        .into_iter()
        .find(|name| !name.is_empty())
        .cloned()
        .unwrap_or_default()
}

fn external_weight(weight: &TensorProto, folder: Option<&Path>) -> Result<u64, LoadError> {
    let entry = |key: &str| {
        weight
            .external_data
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| entry.value.as_str())
    };
    let location = entry("location").unwrap_or_default();
    let refuse = |reason: &str| LoadError::ExternalData {
        tensor: weight.name.clone(),
        location: location.to_owned(),
        reason: reason.to_owned(),
    };
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => text
            .parse::<u64>()
            .map(Some)
            .map_err(|_| refuse(&format!("its {key} `{text}` is not a number"))),
    };

    let folder = folder.ok_or_else(|| refuse("a model loaded from bytes has no folder"))?;
    let relative = Path::new(location);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if location.is_empty() || location.contains('\\') || !relative.components().all(plain) {
        return Err(refuse(
            "only plain relative names inside the model's folder are read",
        ));
    }
    let mut path = folder.to_path_buf();
    let mut found = None;
    for part in relative.components() {
        path.push(part);
        let here = path
            .symlink_metadata()
            .map_err(|error| refuse(&format!("the file cannot be read: {error}")))?;
        if here.file_type().is_symlink() {
            return Err(refuse("links are not followed"));
        }
        found = Some(here);
    }
    let file = found
        .filter(std::fs::Metadata::is_file)
        .ok_or_else(|| refuse("it is not a regular file"))?;
    let offset = number("offset")?.unwrap_or(0);
    let length = match number("length")? {
        Some(length) => length,
        None => file.len().saturating_sub(offset),
    };
    if offset
        .checked_add(length)
        .is_none_or(|end| end > file.len())
    {
        return Err(refuse(&format!(
            "{length} bytes from {offset} on are wanted, the file has {}",
            file.len()
        )));
    }
    Ok(length)
}
