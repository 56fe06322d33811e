//! What a model takes and gives: names, datatypes and shapes with free axes.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::datatype::DataType;

/// The size of one axis in a model's signature; `-1` in JSON means [`Self::Any`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dim {
    /// This size only.
    Fixed(usize),
    /// Any positive size.
    Any,
}

impl Dim {
    /// Whether an axis of `size` fits.
    pub fn takes(self, size: usize) -> bool {
        match self {
            Self::Fixed(fixed) => fixed == size,
            Self::Any => size > 0,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => size.fmt(f),
            Self::Any => f.write_str("?"),
        }
    }
}

impl Serialize for Dim {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(size) => serializer.serialize_u64(*size as u64),
            Self::Any => serializer.serialize_i64(-1),
        }
    }
}

impl<'de> Deserialize<'de> for Dim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            -1 => Ok(Self::Any),
            size => usize::try_from(size)
                .map(Self::Fixed)
                .map_err(|_| serde::de::Error::custom("a dimension is -1 or not negative")),
        }
    }
}

/// One input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// What its elements are.
    pub datatype: DataType,
    /// Size of each axis.
    pub shape: Vec<Dim>,
}

impl TensorSpec {
    /// Whether a tensor of `shape` fits: equal rank, and each axis taken.
    pub fn takes_shape(&self, shape: &[usize]) -> bool {
        self.shape.len() == shape.len()
            && self
                .shape
                .iter()
                .zip(shape)
                .all(|(dim, size)| dim.takes(*size))
    }

    /// The shape as people write it: `[?,64]`.
    pub fn shape_text(&self) -> String {
        show_dims(&self.shape)
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{}", self.name, self.datatype, self.shape_text())
    }
}

/// Dimensions as people write them: `[?,64]`.
pub(crate) fn show_dims(dims: &[Dim]) -> String {
    let dims: Vec<String> = dims.iter().map(Dim::to_string).collect();
    format!("[{}]", dims.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_takes_positive_sizes_on_free_axes_only() {
        let spec = TensorSpec {
            name: "x".into(),
            datatype: DataType::Fp32,
            shape: vec![Dim::Any, Dim::Fixed(64)],
        };
        assert!(spec.takes_shape(&[7, 64]));
        for bad in [&[0, 64][..], &[7, 63], &[64], &[1, 7, 64]] {
            assert!(!spec.takes_shape(bad), "{bad:?}");
        }
        assert_eq!(spec.to_string(), "x: FP32[?,64]");
    }

    #[test]
    fn a_free_axis_is_minus_one_in_json() {
        let text = r#"{"name":"x","datatype":"INT64","shape":[-1,2]}"#;
        let spec: TensorSpec = serde_json::from_str(text).expect("a spec");
        assert_eq!(spec.shape, [Dim::Any, Dim::Fixed(2)]);
        assert_eq!(serde_json::to_string(&spec).expect("serializable"), text);
        assert!(serde_json::from_str::<Dim>("-2").is_err());
    }
}
