//! One cell as elements of an input, appended as bytes.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, FixedSizeListArray, ListArray,
    PrimitiveArray, StringArray,
};
use arrow_schema::DataType as ArrowType;
use inferq_schemas::{DataType, Number};

use super::element::{append_bytes, append_json, append_number, append_text};
use super::json_list::{self, Nesting};

/// A column in the form its cells are read in.
pub(super) enum Cells<'a> {
    Text(&'a StringArray),
    Json(&'a StringArray),
    Binary(&'a BinaryArray),
    Bool(&'a BooleanArray),
    Int8(&'a PrimitiveArray<Int8Type>),
    Int16(&'a PrimitiveArray<Int16Type>),
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a PrimitiveArray<Int64Type>),
    Uint8(&'a PrimitiveArray<UInt8Type>),
    Uint16(&'a PrimitiveArray<UInt16Type>),
    Uint32(&'a PrimitiveArray<UInt32Type>),
    Uint64(&'a PrimitiveArray<UInt64Type>),
    Fp16(&'a PrimitiveArray<Float16Type>),
    Fp32(&'a PrimitiveArray<Float32Type>),
    Fp64(&'a PrimitiveArray<Float64Type>),
    Decimal(&'a PrimitiveArray<Decimal128Type>, i8),
    List(&'a ListArray, Box<Cells<'a>>),
    FixedList(&'a FixedSizeListArray, Box<Cells<'a>>),
}

/// Whether [`Cells`] reads columns of this type, and elements of `datatype` can come from them.
pub(super) fn readable(column: &ArrowType, datatype: DataType) -> bool {
    match column {
        ArrowType::Utf8 => true,
        ArrowType::Binary => datatype == DataType::Bytes,
        ArrowType::List(item) | ArrowType::FixedSizeList(item, _) => {
            readable(item.data_type(), datatype)
        }
        other => datatype != DataType::Bytes && is_number(other),
    }
}

/// Whether the cells of this type are numbers or booleans.
pub(super) fn is_number(column: &ArrowType) -> bool {
    match column {
        ArrowType::Boolean | ArrowType::Decimal128(..) => true,
        other => other.is_integer() || other.is_floating(),
    }
}

impl<'a> Cells<'a> {
    /// Reads `column`, whose type is [`readable`].
    pub(super) fn of(column: &'a ArrayRef, json: bool) -> Option<Self> {
        Some(match column.data_type() {
            ArrowType::Utf8 if json => Self::Json(column.as_string()),
            ArrowType::Utf8 => Self::Text(column.as_string()),
            ArrowType::Binary => Self::Binary(column.as_binary()),
            ArrowType::Boolean => Self::Bool(column.as_boolean()),
            ArrowType::Int8 => Self::Int8(column.as_primitive()),
            ArrowType::Int16 => Self::Int16(column.as_primitive()),
            ArrowType::Int32 => Self::Int32(column.as_primitive()),
            ArrowType::Int64 => Self::Int64(column.as_primitive()),
            ArrowType::UInt8 => Self::Uint8(column.as_primitive()),
            ArrowType::UInt16 => Self::Uint16(column.as_primitive()),
            ArrowType::UInt32 => Self::Uint32(column.as_primitive()),
            ArrowType::UInt64 => Self::Uint64(column.as_primitive()),
            ArrowType::Float16 => Self::Fp16(column.as_primitive()),
            ArrowType::Float32 => Self::Fp32(column.as_primitive()),
            ArrowType::Float64 => Self::Fp64(column.as_primitive()),
            ArrowType::Decimal128(_, scale) => Self::Decimal(column.as_primitive(), *scale),
            ArrowType::List(_) => {
                let list = column.as_list::<i32>();
                Self::List(list, Box::new(Self::of(list.values(), false)?))
            }
            ArrowType::FixedSizeList(..) => {
                let list = column.as_fixed_size_list();
                Self::FixedList(list, Box::new(Self::of(list.values(), false)?))
            }
            _ => return None,
        })
    }

    /// Whether the type says that cells are lists; text may hold lists, too.
    pub(super) fn are_lists(&self) -> bool {
        matches!(self, Self::List(..) | Self::FixedList(..))
    }

    fn array(&self) -> &dyn Array {
        match self {
            Self::Text(array) | Self::Json(array) => *array,
            Self::Binary(array) => *array,
            Self::Bool(array) => *array,
            Self::Int8(array) => *array,
            Self::Int16(array) => *array,
            Self::Int32(array) => *array,
            Self::Int64(array) => *array,
            Self::Uint8(array) => *array,
            Self::Uint16(array) => *array,
            Self::Uint32(array) => *array,
            Self::Uint64(array) => *array,
            Self::Fp16(array) => *array,
            Self::Fp32(array) => *array,
            Self::Fp64(array) => *array,
            Self::Decimal(array, _) => *array,
            Self::List(array, _) => *array,
            Self::FixedList(array, _) => *array,
        }
    }

    /// Appends the elements of cell `row`, one or a whole list; notes the lengths of lists.
    ///
    /// # Errors
    /// The value and what was expected; what was appended by then is to be cut off.
    pub(super) fn append(
        &self,
        row: usize,
        datatype: DataType,
        nesting: &mut Nesting,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        self.append_at(row, datatype, 0, nesting, out)
    }

    fn append_at(
        &self,
        row: usize,
        datatype: DataType,
        depth: usize,
        nesting: &mut Nesting,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if self.array().is_null(row) {
            return Err(format!("null where {datatype} is expected"));
        }
        match self {
            Self::Text(array) => {
                let text = array.value(row);
                if depth == 0 && datatype != DataType::Bytes && text.trim_start().starts_with('[') {
                    let json = &mut |leaf: &str| append_json(leaf, datatype, out);
                    return json_list::elements(text, nesting, json);
                }
                append_text(text, datatype, out)
            }
            Self::Json(array) => {
                let text = array.value(row);
                if text.starts_with('[') {
                    let json = &mut |leaf: &str| append_json(leaf, datatype, out);
                    return json_list::elements(text, nesting, json);
                }
                append_json(text, datatype, out)
            }
            Self::Binary(array) => append_bytes(array.value(row), out),
            Self::List(array, items) => {
                let offsets = array.value_offsets();
                let range = offsets[row] as usize..offsets[row + 1] as usize;
                items.append_list(range, datatype, depth, nesting, out)
            }
            Self::FixedList(array, items) => {
                let start = row * array.value_length() as usize;
                let range = start..start + array.value_length() as usize;
                items.append_list(range, datatype, depth, nesting, out)
            }
            _ => append_number(self.number(row), datatype, out),
        }
    }

    /// Appends the cells `range` as one list.
    fn append_list(
        &self,
        range: std::ops::Range<usize>,
        datatype: DataType,
        depth: usize,
        nesting: &mut Nesting,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if !nesting.note(depth, range.len()) {
            return Err("lists of different lengths side by side".to_owned());
        }
        if let (Some(bytes), Some(size)) = (self.elements(datatype), datatype.size()) {
            out.extend_from_slice(&bytes[range.start * size..range.end * size]);
            return Ok(());
        }
        for item in range {
            self.append_at(item, datatype, depth + 1, nesting, out)?;
        }
        Ok(())
    }

    /// All cells as elements of `datatype`, if that is how they lie in memory and none is null.
    fn elements(&self, datatype: DataType) -> Option<&[u8]> {
        fn bytes<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>) -> &[u8] {
            array.values().inner().as_slice()
        }
        if cfg!(target_endian = "big") || self.array().null_count() > 0 {
            return None;
        }
        match (self, datatype) {
            (Self::Int8(array), DataType::Int8) => Some(bytes(array)),
            (Self::Int16(array), DataType::Int16) => Some(bytes(array)),
            (Self::Int32(array), DataType::Int32) => Some(bytes(array)),
            (Self::Int64(array), DataType::Int64) => Some(bytes(array)),
            (Self::Uint8(array), DataType::Uint8) => Some(bytes(array)),
            (Self::Uint16(array), DataType::Uint16) => Some(bytes(array)),
            (Self::Uint32(array), DataType::Uint32) => Some(bytes(array)),
            (Self::Uint64(array), DataType::Uint64) => Some(bytes(array)),
            (Self::Fp16(array), DataType::Fp16) => Some(bytes(array)),
            (Self::Fp32(array), DataType::Fp32) => Some(bytes(array)),
            (Self::Fp64(array), DataType::Fp64) => Some(bytes(array)),
            _ => None,
        }
    }

    /// The number in a cell of a number column.
    fn number(&self, row: usize) -> Number {
        fn int<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, row: usize) -> Number
        where
            T::Native: Into<i128>,
        {
            Number::Int(array.value(row).into())
        }
        match self {
            Self::Bool(array) => Number::Int(array.value(row).into()),
            Self::Int8(array) => int(array, row),
            Self::Int16(array) => int(array, row),
            Self::Int32(array) => int(array, row),
            Self::Int64(array) => int(array, row),
            Self::Uint8(array) => int(array, row),
            Self::Uint16(array) => int(array, row),
            Self::Uint32(array) => int(array, row),
            Self::Uint64(array) => int(array, row),
            Self::Fp16(array) => Number::Float(array.value(row).into()),
            Self::Fp32(array) => Number::Float(array.value(row).into()),
            Self::Fp64(array) => Number::Float(array.value(row)),
            Self::Decimal(array, 0) => Number::Int(array.value(row)),
            Self::Decimal(array, scale) => {
                // Through text, as the nearest to a decimal is not the quotient of two floats.
                let text = format!("{}e{}", array.value(row), -i32::from(*scale));
                Number::Float(text.parse().unwrap_or(f64::NAN))
            }
            Self::Text(_)
            | Self::Json(_)
            | Self::Binary(_)
            | Self::List(..)
            | Self::FixedList(..) => Number::Float(f64::NAN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_cells_keep_their_value_or_are_refused() {
        let array: ArrayRef = std::sync::Arc::new(
            PrimitiveArray::<Decimal128Type>::from(vec![12345_i128])
                .with_data_type(ArrowType::Decimal128(10, 3)),
        );
        let cells = Cells::of(&array, false).expect("numbers");
        let mut out = Vec::new();
        cells
            .append(0, DataType::Fp64, &mut Nesting::default(), &mut out)
            .expect("a float");
        assert_eq!(out, 12.345_f64.to_le_bytes());
        let array: ArrayRef =
            std::sync::Arc::new(PrimitiveArray::<Float64Type>::from(vec![0.1, 1e300, 2.0]));
        let cells = Cells::of(&array, false).expect("numbers");
        let append = |row, datatype| {
            let mut out = Vec::new();
            cells
                .append(row, datatype, &mut Nesting::default(), &mut out)
                .map(|()| out)
        };
        assert_eq!(
            append(0, DataType::Fp32),
            Ok(0.1_f32.to_le_bytes().to_vec())
        );
        assert!(append(1, DataType::Fp32).is_err());
        assert_eq!(append(2, DataType::Int8), Ok(vec![2]));
        assert!(append(0, DataType::Int8).is_err());
    }

    #[test]
    fn lists_of_numbers_are_copied_as_they_lie_from_their_place_on() {
        let rows = [1.5_f32, 2.5, 3.5].map(|first| Some([Some(first), Some(-first)]));
        let lists = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(rows, 2);
        // A slice: its first cell is not the first one in memory.
        let lists: ArrayRef = std::sync::Arc::new(lists.slice(1, 2));
        let cells = Cells::of(&lists, false).expect("numbers");
        for (row, expected) in [[2.5_f32, -2.5], [3.5, -3.5]].into_iter().enumerate() {
            for datatype in [DataType::Fp32, DataType::Fp64] {
                let mut out = Vec::new();
                let done = cells.append(row, datatype, &mut Nesting::default(), &mut out);
                done.expect("numbers");
                let wanted: Vec<u8> = match datatype {
                    DataType::Fp32 => expected
                        .iter()
                        .flat_map(|value| value.to_le_bytes())
                        .collect(),
                    _ => expected
                        .iter()
                        .flat_map(|value| f64::from(*value).to_le_bytes())
                        .collect(),
                };
                assert_eq!(out, wanted, "row {row} as {datatype}");
            }
        }
    }
}
