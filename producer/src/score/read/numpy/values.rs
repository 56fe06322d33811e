//! The elements of a NumPy array as an Arrow array.

use std::sync::Arc;

use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, ArrowPrimitiveType, BooleanArray, FixedSizeListArray, PrimitiveArray};
use arrow_buffer::{Buffer, ScalarBuffer};
use arrow_schema::{DataType, Field};

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
pub(super) fn array(header: &Header, bytes: Vec<u8>) -> ArrayRef {
    let elements: ArrayRef = match element(header) {
        DataType::Boolean => {
            let values = bytes.iter().map(|byte| Some(*byte != 0));
            Arc::new(values.collect::<BooleanArray>())
        }
        DataType::Int8 => numbers::<Int8Type>(header, bytes),
        DataType::Int16 => numbers::<Int16Type>(header, bytes),
        DataType::Int32 => numbers::<Int32Type>(header, bytes),
        DataType::Int64 => numbers::<Int64Type>(header, bytes),
        DataType::UInt8 => numbers::<UInt8Type>(header, bytes),
        DataType::UInt16 => numbers::<UInt16Type>(header, bytes),
        DataType::UInt32 => numbers::<UInt32Type>(header, bytes),
        DataType::UInt64 => numbers::<UInt64Type>(header, bytes),
        DataType::Float16 => numbers::<Float16Type>(header, bytes),
        DataType::Float32 => numbers::<Float32Type>(header, bytes),
        _ => numbers::<Float64Type>(header, bytes),
    };
    match datatype(header) {
        DataType::FixedSizeList(item, size) => Arc::new(
            FixedSizeListArray::try_new(item, size, elements, None)
                .expect("whole rows were read, of the type of the item"),
        ),
        _ => elements,
    }
}

fn numbers<T: ArrowPrimitiveType>(header: &Header, mut bytes: Vec<u8>) -> ArrayRef {
    if header.big_endian != cfg!(target_endian = "big") {
        for element in bytes.chunks_exact_mut(size_of::<T::Native>()) {
            element.reverse();
        }
    }
    let elements = bytes.len() / size_of::<T::Native>();
    let mut buffer = Buffer::from_vec(bytes);
    if !buffer.as_ptr().cast::<T::Native>().is_aligned() {
        // Bytes may lie anywhere; the allocator gives them a place that suits all numbers.
        buffer = Buffer::from_slice_ref(buffer.as_slice());
    }
    let values = ScalarBuffer::new(buffer, 0, elements);
    Arc::new(PrimitiveArray::<T>::new(values, None))
}
