//! The elements of a NumPy array as an Arrow array.

use std::sync::Arc;

use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, ArrowPrimitiveType, BooleanArray, FixedSizeListArray, PrimitiveArray};
use arrow_schema::{DataType, Field};
use half::f16;

use super::header::{Header, Kind};

/// The type of the column.
pub(super) fn datatype(header: &Header) -> DataType {
    let element = element(header);
    match header.list {
        None => element,
        Some(size) => {
            // A row has at most 2^30 bytes.
            let item = Arc::new(Field::new_list_field(element, true));
            DataType::FixedSizeList(item, size as i32)
        }
    }
}

fn element(header: &Header) -> DataType {
    match (header.kind, header.size) {
        (Kind::Bool, _) => DataType::Boolean,
        (Kind::Signed, 1) => DataType::Int8,
        (Kind::Signed, 2) => DataType::Int16,
        (Kind::Signed, 4) => DataType::Int32,
        (Kind::Signed, _) => DataType::Int64,
        (Kind::Unsigned, 1) => DataType::UInt8,
        (Kind::Unsigned, 2) => DataType::UInt16,
        (Kind::Unsigned, 4) => DataType::UInt32,
        (Kind::Unsigned, _) => DataType::UInt64,
        (Kind::Float, 2) => DataType::Float16,
        (Kind::Float, 4) => DataType::Float32,
        (Kind::Float, _) => DataType::Float64,
    }
}

/// The column of whole rows in `bytes`.
pub(super) fn array(header: &Header, bytes: &[u8]) -> ArrayRef {
    let elements: ArrayRef = match element(header) {
        DataType::Boolean => {
            let values = bytes.iter().map(|byte| Some(*byte != 0));
            Arc::new(values.collect::<BooleanArray>())
        }
        DataType::Int8 => numbers::<Int8Type, 1>(header, bytes, i8::from_le_bytes),
        DataType::Int16 => numbers::<Int16Type, 2>(header, bytes, i16::from_le_bytes),
        DataType::Int32 => numbers::<Int32Type, 4>(header, bytes, i32::from_le_bytes),
        DataType::Int64 => numbers::<Int64Type, 8>(header, bytes, i64::from_le_bytes),
        DataType::UInt8 => numbers::<UInt8Type, 1>(header, bytes, u8::from_le_bytes),
        DataType::UInt16 => numbers::<UInt16Type, 2>(header, bytes, u16::from_le_bytes),
        DataType::UInt32 => numbers::<UInt32Type, 4>(header, bytes, u32::from_le_bytes),
        DataType::UInt64 => numbers::<UInt64Type, 8>(header, bytes, u64::from_le_bytes),
        DataType::Float16 => numbers::<Float16Type, 2>(header, bytes, f16::from_le_bytes),
        DataType::Float32 => numbers::<Float32Type, 4>(header, bytes, f32::from_le_bytes),
        _ => numbers::<Float64Type, 8>(header, bytes, f64::from_le_bytes),
    };
    match datatype(header) {
        DataType::FixedSizeList(item, size) => Arc::new(
            FixedSizeListArray::try_new(item, size, elements, None)
                .expect("whole rows were read, of the type of the item"),
        ),
        _ => elements,
    }
}

fn numbers<T: ArrowPrimitiveType, const SIZE: usize>(
    header: &Header,
    bytes: &[u8],
    from_le_bytes: fn([u8; SIZE]) -> T::Native,
) -> ArrayRef {
    let (elements, _) = bytes.as_chunks::<SIZE>();
    let value = |element: &[u8; SIZE]| {
        let mut element = *element;
        if header.big_endian {
            element.reverse();
        }
        from_le_bytes(element)
    };
    let values = elements.iter().map(value);
    Arc::new(PrimitiveArray::<T>::from_iter_values(values))
}
