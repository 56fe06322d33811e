//! The engine's words for a tensor, in those of the wire: the one place that knows both.

use inferq_engine::Element;
use inferq_schemas::tensor::{DataType, Dim, TensorSpec};

/// An input or output of the engine, as requests and `model.toml` speak of it.
pub fn wire_spec(spec: &inferq_engine::TensorSpec) -> TensorSpec {
    TensorSpec {
        name: spec.name.clone(),
        datatype: wire_type(spec.element),
        shape: spec
            .shape
            .iter()
            .map(|size| size.map_or(Dim::Any, Dim::Fixed))
            .collect(),
    }
}

/// The name on the wire of an element type.
fn wire_type(element: Element) -> DataType {
    match element {
        Element::Bool => DataType::Bool,
        Element::U8 => DataType::Uint8,
        Element::U16 => DataType::Uint16,
        Element::U32 => DataType::Uint32,
        Element::U64 => DataType::Uint64,
        Element::I8 => DataType::Int8,
        Element::I16 => DataType::Int16,
        Element::I32 => DataType::Int32,
        Element::I64 => DataType::Int64,
        Element::F16 => DataType::Fp16,
        Element::F32 => DataType::Fp32,
        Element::F64 => DataType::Fp64,
        Element::String => DataType::Bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELEMENTS: [Element; 13] = [
        Element::Bool,
        Element::U8,
        Element::U16,
        Element::U32,
        Element::U64,
        Element::I8,
        Element::I16,
        Element::I32,
        Element::I64,
        Element::F16,
        Element::F32,
        Element::F64,
        Element::String,
    ];

    #[test]
    fn every_element_type_has_a_name_of_its_own_on_the_wire_and_the_same_size() {
        let mut names: Vec<_> = ELEMENTS.map(|element| wire_type(element).as_str()).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ELEMENTS.len());
        for element in ELEMENTS {
            assert_eq!(wire_type(element).size(), element.size());
        }
    }

    #[test]
    fn open_sizes_stay_open() {
        let spec = inferq_engine::TensorSpec {
            name: "x".to_owned(),
            element: Element::F32,
            shape: vec![None, Some(64)],
        };
        assert_eq!(wire_spec(&spec).shape, [Dim::Any, Dim::Fixed(64)]);
    }
}
