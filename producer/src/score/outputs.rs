//! What came back from the model, as columns.

use std::sync::Arc;

use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, FixedSizeListArray, PrimitiveArray,
    StringArray,
};
use arrow_schema::{DataType as ArrowType, Field, FieldRef};
use half::{bf16, f16};
use inferq_schemas::{DataType, Tensor, TensorError};

use super::input::Format;

/// Why outputs do not become columns, or columns no file.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The outputs of a model do not have a row each for the rows that went in.
    #[error(
        "output `{output}` has {found} rows and `{first}` has {rows}; only models whose outputs have one row per row of input can be scored"
    )]
    Rows {
        /// An output.
        output: String,
        /// Its rows.
        found: usize,
        /// The first output.
        first: String,
        /// Its rows.
        rows: usize,
    },
    /// A chunk has other outputs than the first one.
    #[error("output `{output}` is {found} here and {wanted} in the rows before; {hint}")]
    Changed {
        /// The output.
        output: String,
        /// What it is.
        found: String,
        /// What it was in the first chunk.
        wanted: String,
        /// What to do.
        hint: &'static str,
    },
    /// The bytes of an output contradict its shape.
    #[error("output `{output}` is damaged: {source}")]
    Damaged {
        /// The output.
        output: String,
        /// What is wrong.
        #[source]
        source: TensorError,
    },
    /// The format has no way to write the column.
    #[error("column `{column}` is {found}, which {format} does not hold; {hint}")]
    Unwritable {
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// The format.
        format: Format,
        /// What to do.
        hint: &'static str,
    },
    /// The format cannot be wrapped in a compression.
    #[error(
        "{format} is not wrapped in gzip or zstd; it has a compression of its own or is read out of order"
    )]
    Wrapped {
        /// The format.
        format: Format,
    },
    /// A batch does not have the columns that the file was created with.
    #[error("the columns are not those that `{name}` was created with")]
    Columns {
        /// The file, or `standard output`.
        name: String,
    },
    /// The file system says no.
    #[error("`{name}` cannot be written: {source}")]
    Io {
        /// The file, or `standard output`.
        name: String,
        /// What it says.
        #[source]
        source: std::io::Error,
    },
    /// The format's own library says no.
    #[error("`{name}` cannot be written as {format}: {reason}")]
    Format {
        /// The file, or `standard output`.
        name: String,
        /// The format.
        format: Format,
        /// What it says.
        reason: String,
    },
}

/// One column per output, of as many rows: plain values if a row has one element, else lists of the
/// flattened row. BYTES are text if all of them are, BF16 becomes the same number in 32 bits.
///
/// `wanted` are the columns that the first chunk of a run became; later ones are held against them.
///
/// # Errors
/// [`OutputError::Rows`] if the outputs differ in rows, [`OutputError::Changed`] if one is not what
/// `wanted` says, [`OutputError::Damaged`] if its bytes contradict its shape.
pub fn columns_of(
    tensors: &[Tensor],
    wanted: Option<&[FieldRef]>,
) -> Result<Vec<(FieldRef, ArrayRef)>, OutputError> {
    if let Some(first) = tensors.first()
        && let Some(other) = tensors.iter().find(|tensor| tensor.rows() != first.rows())
    {
        return Err(OutputError::Rows {
            output: other.name.clone(),
            found: other.rows(),
            first: first.name.clone(),
            rows: first.rows(),
        });
    }
    let Some(wanted) = wanted else {
        return tensors.iter().map(|tensor| column(tensor, false)).collect();
    };
    if let Some(new) = tensors
        .iter()
        .find(|t| !wanted.iter().any(|field| *field.name() == t.name))
    {
        return Err(OutputError::Changed {
            output: new.name.clone(),
            found: "there".to_owned(),
            wanted: "missing".to_owned(),
            hint: "the model has changed during the run",
        });
    }
    let held = |field: &FieldRef| {
        let Some(tensor) = tensors.iter().find(|tensor| tensor.name == *field.name()) else {
            return Err(OutputError::Changed {
                output: field.name().clone(),
                found: "missing".to_owned(),
                wanted: field.data_type().to_string(),
                hint: "the model has changed during the run",
            });
        };
        let (found, array) = column(tensor, is_binary(field.data_type()))?;
        if found.data_type() != field.data_type() {
            return Err(OutputError::Changed {
                output: field.name().clone(),
                found: found.data_type().to_string(),
                wanted: field.data_type().to_string(),
                hint: "a table has one type per column; give rows of one length, and bytes that are all text or none",
            });
        }
        Ok((field.clone(), array))
    };
    wanted.iter().map(held).collect()
}

fn is_binary(datatype: &ArrowType) -> bool {
    match datatype {
        ArrowType::FixedSizeList(item, _) => is_binary(item.data_type()),
        other => *other == ArrowType::Binary,
    }
}

/// One output as a column; BYTES as bytes even if they are text, if `binary`.
fn column(tensor: &Tensor, binary: bool) -> Result<(FieldRef, ArrayRef), OutputError> {
    let damaged = |source| OutputError::Damaged {
        output: tensor.name.clone(),
        source,
    };
    tensor.check().map_err(damaged)?;
    let bytes = &tensor.data[..];
    let elements: ArrayRef = match tensor.datatype {
        DataType::Bool => {
            let values = bytes.iter().map(|byte| Some(*byte == 1));
            Arc::new(values.collect::<BooleanArray>())
        }
        DataType::Uint8 => numbers::<UInt8Type, 1>(bytes, u8::from_le_bytes),
        DataType::Uint16 => numbers::<UInt16Type, 2>(bytes, u16::from_le_bytes),
        DataType::Uint32 => numbers::<UInt32Type, 4>(bytes, u32::from_le_bytes),
        DataType::Uint64 => numbers::<UInt64Type, 8>(bytes, u64::from_le_bytes),
        DataType::Int8 => numbers::<Int8Type, 1>(bytes, i8::from_le_bytes),
        DataType::Int16 => numbers::<Int16Type, 2>(bytes, i16::from_le_bytes),
        DataType::Int32 => numbers::<Int32Type, 4>(bytes, i32::from_le_bytes),
        DataType::Int64 => numbers::<Int64Type, 8>(bytes, i64::from_le_bytes),
        DataType::Fp16 => numbers::<Float16Type, 2>(bytes, f16::from_le_bytes),
        DataType::Bf16 => {
            numbers::<Float32Type, 2>(bytes, |pair| bf16::from_le_bytes(pair).to_f32())
        }
        DataType::Fp32 => numbers::<Float32Type, 4>(bytes, f32::from_le_bytes),
        DataType::Fp64 => numbers::<Float64Type, 8>(bytes, f64::from_le_bytes),
        DataType::Bytes => {
            let values = tensor.byte_elements().map_err(damaged)?;
            let values: Result<Vec<&[u8]>, _> = values.collect();
            text_or_bytes(&values.map_err(damaged)?, binary)
        }
    };
    let size: usize = tensor.shape.iter().skip(1).product();
    let array = if size == 1 {
        elements
    } else {
        lists(tensor, elements, size)?
    };
    let field = Field::new(&tensor.name, array.data_type().clone(), true);
    Ok((Arc::new(field), array))
}

fn lists(tensor: &Tensor, elements: ArrayRef, size: usize) -> Result<ArrayRef, OutputError> {
    let unwritable = || OutputError::Damaged {
        output: tensor.name.clone(),
        source: TensorError::TooManyElements {
            shape: tensor.shape.clone(),
        },
    };
    let length = i32::try_from(size).map_err(|_| unwritable())?;
    let item = Arc::new(Field::new_list_field(elements.data_type().clone(), true));
    // Rows without elements have no values to count them by.
    let list = FixedSizeListArray::try_new_with_length(item, length, elements, None, tensor.rows());
    Ok(Arc::new(list.map_err(|_| unwritable())?))
}

fn numbers<T: ArrowPrimitiveType, const SIZE: usize>(
    bytes: &[u8],
    from_le_bytes: fn([u8; SIZE]) -> T::Native,
) -> ArrayRef {
    let (elements, _) = bytes.as_chunks::<SIZE>();
    let values = elements.iter().map(|element| from_le_bytes(*element));
    Arc::new(PrimitiveArray::<T>::from_iter_values(values))
}

fn text_or_bytes(values: &[&[u8]], binary: bool) -> ArrayRef {
    let texts: Result<Vec<&str>, _> = values
        .iter()
        .map(|value| std::str::from_utf8(value))
        .collect();
    match texts {
        Ok(texts) if !binary => Arc::new(StringArray::from(texts)),
        _ => Arc::new(BinaryArray::from_iter_values(values)),
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::{Array, RecordBatch};

    use super::*;

    fn tensor(name: &str, datatype: DataType, shape: &[usize], data: &[u8]) -> Tensor {
        Tensor::new(name, datatype, shape.to_vec(), data.to_vec().into()).expect("fits")
    }

    #[test]
    fn rows_of_one_are_plain_and_longer_ones_lists() {
        let label = tensor(
            "label",
            DataType::Int64,
            &[2],
            &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        );
        let column = tensor("column", DataType::Uint8, &[2, 1, 1], &[7, 8]);
        let scores =
            Tensor::from_f32("scores", vec![2, 2, 1], &[0.1, 0.9, 0.8, 0.2]).expect("fits");
        let half = tensor("half", DataType::Bf16, &[2], &[0x80, 0x3f, 0x00, 0x40]);
        let columns = columns_of(&[label, column, scores, half], None).expect("columns");
        let types: Vec<String> = columns
            .iter()
            .map(|(field, _)| field.data_type().to_string())
            .collect();
        assert_eq!(types[..2], ["Int64", "UInt8"]);
        assert!(
            types[2].starts_with("FixedSizeList(2 x Float32"),
            "{}",
            types[2]
        );
        assert_eq!(
            columns[3].1.as_primitive::<Float32Type>().values(),
            &[1.0, 2.0]
        );
        let row = columns[2].1.as_fixed_size_list().value(1);
        assert_eq!(row.as_primitive::<Float32Type>().values(), &[0.8, 0.2]);
        assert!(
            RecordBatch::try_from_iter(columns.iter().map(|(f, a)| (f.name(), a.clone()))).is_ok()
        );
    }

    #[test]
    fn bytes_are_text_if_all_of_them_are() {
        let text = Tensor::from_strings("t", vec![2], &["a", "ä"]).expect("fits");
        let columns = columns_of(std::slice::from_ref(&text), None).expect("columns");
        assert_eq!(columns[0].1.as_string::<i32>().value(1), "ä");
        let raw = Tensor::from_strings("t", vec![2], &[&b"a"[..], b"\xff"]).expect("fits");
        let columns = columns_of(std::slice::from_ref(&raw), None).expect("columns");
        assert_eq!(columns[0].1.as_binary::<i32>().value(1), b"\xff");
        let fields: Vec<FieldRef> = columns.into_iter().map(|(field, _)| field).collect();
        let held = columns_of(&[text], Some(&fields)).expect("text is bytes, too");
        assert_eq!(held[0].1.as_binary::<i32>().value(0), b"a");
    }

    #[test]
    fn later_chunks_are_held_against_the_first() {
        let of = |name: &str, shape: &[usize]| {
            let values = vec![0.0; shape.iter().product()];
            Tensor::from_f32(name, shape.to_vec(), &values).expect("fits")
        };
        let first = columns_of(&[of("a", &[1, 2]), of("b", &[1])], None).expect("columns");
        let fields: Vec<FieldRef> = first.into_iter().map(|(field, _)| field).collect();
        let columns = columns_of(&[of("b", &[3]), of("a", &[3, 2])], Some(&fields)).expect("alike");
        assert_eq!(columns[0].0.name(), "a");
        assert_eq!(columns[0].1.len(), 3);
        for (other, what) in [
            (vec![of("a", &[3, 3]), of("b", &[3])], "rows of one length"),
            (vec![of("b", &[3])], "`a` is missing here"),
            (
                vec![of("a", &[3, 2]), of("b", &[3]), of("c", &[3])],
                "`c` is there here",
            ),
            (vec![of("a", &[3, 2]), of("b", &[2])], "`b` has 2 rows"),
        ] {
            let error = columns_of(&other, Some(&fields))
                .expect_err("changed")
                .to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn rows_without_elements_are_empty_lists() {
        let empty = Tensor::from_f32("e", vec![3, 0], &[]).expect("fits");
        let columns = columns_of(&[empty], None).expect("a column");
        assert_eq!(columns[0].1.len(), 3);
    }
}
