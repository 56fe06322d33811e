//! Element types, and the specs of a model's inputs and outputs.

use std::fmt;

use tract_onnx::prelude::DatumType;

/// Type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, one byte.
    U8,
    /// Unsigned, two bytes.
    U16,
    /// Unsigned, four bytes.
    U32,
    /// Unsigned, eight bytes.
    U64,
    /// Signed, one byte.
    I8,
    /// Signed, two bytes.
    I16,
    /// Signed, four bytes.
    I32,
    /// Signed, eight bytes.
    I64,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// UTF-8 text of any length.
    String,
}

impl Element {
    /// Bytes of one element, or `None` where elements differ in length.
    #[must_use]
    pub fn size(self) -> Option<usize> {
        match self {
            Element::Bool | Element::U8 | Element::I8 => Some(1),
            Element::U16 | Element::I16 | Element::F16 => Some(2),
            Element::U32 | Element::I32 | Element::F32 => Some(4),
            Element::U64 | Element::I64 | Element::F64 => Some(8),
            Element::String => None,
        }
    }

    /// Whether the type has NaN and infinities.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Element::F16 | Element::F32 | Element::F64)
    }

    pub(crate) fn datum_type(self) -> DatumType {
        match self {
            Element::Bool => DatumType::Bool,
            Element::U8 => DatumType::U8,
            Element::U16 => DatumType::U16,
            Element::U32 => DatumType::U32,
            Element::U64 => DatumType::U64,
            Element::I8 => DatumType::I8,
            Element::I16 => DatumType::I16,
            Element::I32 => DatumType::I32,
            Element::I64 => DatumType::I64,
            Element::F16 => DatumType::F16,
            Element::F32 => DatumType::F32,
            Element::F64 => DatumType::F64,
            Element::String => DatumType::String,
        }
    }

    /// The element a tract type is handed out as: a quantized integer as its plain one, a dimension as `i64`.
    pub(crate) fn of(datum_type: DatumType) -> Option<Element> {
        Some(match datum_type {
            DatumType::Bool => Element::Bool,
            DatumType::U8 | DatumType::QU8(_) => Element::U8,
            DatumType::U16 => Element::U16,
            DatumType::U32 => Element::U32,
            DatumType::U64 => Element::U64,
            DatumType::I8 | DatumType::QI8(_) => Element::I8,
            DatumType::I16 => Element::I16,
            DatumType::I32 | DatumType::QI32(_) => Element::I32,
            DatumType::I64 | DatumType::TDim => Element::I64,
            DatumType::F16 => Element::F16,
            DatumType::F32 => Element::F32,
            DatumType::F64 => Element::F64,
            DatumType::String => Element::String,
            DatumType::Blob => return None,
        })
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Element::Bool => "bool",
            Element::U8 => "u8",
            Element::U16 => "u16",
            Element::U32 => "u32",
            Element::U64 => "u64",
            Element::I8 => "i8",
            Element::I16 => "i16",
            Element::I32 => "i32",
            Element::I64 => "i64",
            Element::F16 => "f16",
            Element::F32 => "f32",
            Element::F64 => "f64",
            Element::String => "string",
        })
    }
}

/// Name, element type and shape of a model's input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name the model gives it.
    pub name: String,
    /// Type of the elements.
    pub element: Element,
    /// Sizes, `None` where any size of at least one goes.
    pub shape: Vec<Option<usize>>,
}
