//! Tensors as they cross the wire: name, datatype, shape, and little-endian row-major bytes.
//!
//! An element of [`DataType::Bytes`] is its length as a little-endian `u32` and then its bytes.

mod parts;

use std::fmt;

use bytes::Bytes;

use self::parts::{Elements, RowRanges};

pub use crate::datatype::DataType;
pub use crate::spec::{Dim, TensorSpec};

/// A named tensor. Cloning it shares the data.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in the model.
    pub name: String,
    /// What its elements are.
    pub datatype: DataType,
    /// Size of each axis; empty for a single element.
    pub shape: Vec<usize>,
    /// The elements, little-endian and row-major.
    pub data: Bytes,
}

/// Data that does not make a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// More elements than a machine can address.
    #[error("shape {} has too many elements", show_shape(shape))]
    TooManyElements {
        /// The shape.
        shape: Vec<usize>,
    },
    /// The number of bytes does not follow from the shape.
    #[error(
        "{bytes} bytes for shape {}, {datatype} takes {expected}",
        show_shape(shape)
    )]
    Size {
        /// Bytes given.
        bytes: usize,
        /// Bytes needed.
        expected: usize,
        /// The shape.
        shape: Vec<usize>,
        /// The datatype.
        datatype: DataType,
    },
    /// The number of values does not follow from the shape.
    #[error("{values} values for shape {}", show_shape(shape))]
    Count {
        /// Values given.
        values: usize,
        /// The shape.
        shape: Vec<usize>,
    },
    /// A length prefix of [`DataType::Bytes`] points past the end.
    #[error(
        "element {index} of a BYTES tensor ends past the data; each is a u32 length and its bytes"
    )]
    Truncated {
        /// The element.
        index: usize,
    },
    /// A byte of [`DataType::Bool`] is neither 0 nor 1.
    #[error("element {index} of a BOOL tensor is {value}, not 0 or 1")]
    NotBool {
        /// The element.
        index: usize,
        /// The byte found.
        value: u8,
    },
    /// An element of [`DataType::Bytes`] is no text, or too long for its length prefix.
    #[error("element {index} is not UTF-8 text below 4 GiB")]
    NotText {
        /// The element.
        index: usize,
    },
    /// The tensor holds something else than was asked for.
    #[error("tensor `{name}` is {datatype}, not {wanted}")]
    Datatype {
        /// Its name.
        name: String,
        /// What it holds.
        datatype: DataType,
        /// What was asked for.
        wanted: DataType,
    },
}

impl Tensor {
    /// Takes `data` as it is, after checking that it has as many elements as `shape` says.
    ///
    /// # Errors
    /// [`TensorError`] if it has not, or if a BOOL byte is neither 0 nor 1.
    pub fn new(
        name: impl Into<String>,
        datatype: DataType,
        shape: Vec<usize>,
        data: Bytes,
    ) -> Result<Self, TensorError> {
        let tensor = Self {
            name: name.into(),
            datatype,
            shape,
            data,
        };
        tensor.check()?;
        Ok(tensor)
    }

    /// Whether the public fields agree, as [`Self::new`] checks them.
    ///
    /// # Errors
    /// [`TensorError`] if they do not.
    pub fn check(&self) -> Result<(), TensorError> {
        let elements = count(&self.shape)?;
        match self.datatype.size() {
            Some(size) => self.check_size(elements.checked_mul(size))?,
            None => {
                let mut values = 0;
                for element in Elements::new(&self.data) {
                    element?;
                    values += 1;
                }
                check_count(&self.shape, values)?;
            }
        }
        if self.datatype == DataType::Bool
            && let Some(index) = self.data.iter().position(|value| *value > 1)
        {
            let value = self.data[index];
            return Err(TensorError::NotBool { index, value });
        }
        Ok(())
    }

    fn check_size(&self, expected: Option<usize>) -> Result<(), TensorError> {
        let shape = || self.shape.clone();
        let expected = expected.ok_or_else(|| TensorError::TooManyElements { shape: shape() })?;
        if self.data.len() == expected {
            return Ok(());
        }
        Err(TensorError::Size {
            bytes: self.data.len(),
            expected,
            shape: shape(),
            datatype: self.datatype,
        })
    }

    /// An FP32 tensor.
    ///
    /// # Errors
    /// [`TensorError::Count`] if there are not as many values as `shape` says.
    pub fn from_f32(
        name: impl Into<String>,
        shape: Vec<usize>,
        values: &[f32],
    ) -> Result<Self, TensorError> {
        check_count(&shape, values.len())?;
        let data: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        Self::new(name, DataType::Fp32, shape, data.into())
    }

    /// The values of an FP32 tensor.
    ///
    /// # Errors
    /// [`TensorError::Datatype`] for any other tensor.
    pub fn to_f32(&self) -> Result<Vec<f32>, TensorError> {
        self.expect_datatype(DataType::Fp32)?;
        let (values, _) = self.data.as_chunks::<4>();
        Ok(values
            .iter()
            .map(|value| f32::from_le_bytes(*value))
            .collect())
    }

    /// A BYTES tensor of text.
    ///
    /// # Errors
    /// [`TensorError::Count`] if there are not as many values as `shape` says,
    /// [`TensorError::NotText`] if one has 4 GiB or more.
    pub fn from_strings<S: AsRef<[u8]>>(
        name: impl Into<String>,
        shape: Vec<usize>,
        values: &[S],
    ) -> Result<Self, TensorError> {
        check_count(&shape, values.len())?;
        let mut data = Vec::new();
        for (index, value) in values.iter().enumerate() {
            if !push_element(&mut data, value.as_ref()) {
                return Err(TensorError::NotText { index });
            }
        }
        Self::new(name, DataType::Bytes, shape, data.into())
    }

    /// The elements of a BYTES tensor as text.
    ///
    /// # Errors
    /// [`TensorError::Datatype`] for any other tensor, [`TensorError::NotText`] for bytes that are
    /// not UTF-8.
    pub fn to_strings(&self) -> Result<Vec<String>, TensorError> {
        self.byte_elements()?
            .enumerate()
            .map(|(index, element)| {
                std::str::from_utf8(element?)
                    .map(str::to_owned)
                    .map_err(|_| TensorError::NotText { index })
            })
            .collect()
    }

    /// The elements of a BYTES tensor, in order.
    ///
    /// # Errors
    /// [`TensorError::Datatype`] for any other tensor.
    pub fn byte_elements(
        &self,
    ) -> Result<impl Iterator<Item = Result<&[u8], TensorError>>, TensorError> {
        self.expect_datatype(DataType::Bytes)?;
        Ok(Elements::new(&self.data))
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Size of axis 0; a tensor without axes is one row.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// The bytes of row `row` on axis 0, or `None` if there is no such row.
    ///
    /// For BYTES this walks all elements before it; [`Self::split_rows`] walks once for all rows.
    pub fn row_bytes(&self, row: usize) -> Option<&[u8]> {
        self.row_ranges().nth(row).map(|range| &self.data[range])
    }

    /// All rows of axis 0 in order, sharing this tensor's data.
    pub fn split_rows(&self) -> Vec<Bytes> {
        self.row_ranges()
            .map(|range| self.data.slice(range))
            .collect()
    }

    /// Where each row lies in the data. Ends early if the public fields contradict each other.
    fn row_ranges(&self) -> RowRanges<'_> {
        let rest: usize = self.shape.iter().skip(1).product();
        RowRanges::new(&self.data, self.rows(), rest, self.datatype.size())
    }

    fn expect_datatype(&self, wanted: DataType) -> Result<(), TensorError> {
        if self.datatype == wanted {
            return Ok(());
        }
        Err(TensorError::Datatype {
            name: self.name.clone(),
            datatype: self.datatype,
            wanted,
        })
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = show_shape(&self.shape);
        let (name, datatype, bytes) = (&self.name, self.datatype, self.data.len());
        write!(f, "Tensor({name}: {datatype}{shape}, {bytes} bytes)")
    }
}

/// Appends one element of a BYTES tensor; `false` if it has 4 GiB or more.
pub(crate) fn push_element(data: &mut Vec<u8>, element: &[u8]) -> bool {
    let Ok(length) = u32::try_from(element.len()) else {
        return false;
    };
    data.extend_from_slice(&length.to_le_bytes());
    data.extend_from_slice(element);
    true
}

/// Number of elements of a shape.
pub(crate) fn count(shape: &[usize]) -> Result<usize, TensorError> {
    // A zero makes the product zero, but only a product that fits without it is a real shape.
    let full = shape
        .iter()
        .try_fold(1_usize, |all, dim| all.checked_mul((*dim).max(1)));
    match full {
        Some(_) if shape.contains(&0) => Ok(0),
        Some(full) => Ok(full),
        None => Err(TensorError::TooManyElements {
            shape: shape.to_vec(),
        }),
    }
}

fn check_count(shape: &[usize], values: usize) -> Result<(), TensorError> {
    if count(shape)? == values {
        return Ok(());
    }
    Err(TensorError::Count {
        values,
        shape: shape.to_vec(),
    })
}

/// A shape as people write it: `[1,64]`.
pub(crate) fn show_shape(shape: &[usize]) -> String {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("[{}]", dims.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_must_have_the_size_of_the_shape() {
        let data = Bytes::from_static(&[0; 8]);
        assert!(Tensor::new("x", DataType::Fp32, vec![1, 2], data.clone()).is_ok());
        assert!(Tensor::new("x", DataType::Fp64, vec![], data.clone()).is_ok());
        let error = Tensor::new("x", DataType::Fp32, vec![3], data).expect_err("too short");
        assert_eq!(error.to_string(), "8 bytes for shape [3], FP32 takes 12");
    }

    #[test]
    fn shapes_that_overflow_are_refused_even_with_a_zero() {
        for shape in [
            vec![usize::MAX, 2],
            vec![1 << 40, 1 << 40, 0],
            vec![usize::MAX],
        ] {
            let tensor = Tensor::new("x", DataType::Fp32, shape.clone(), Bytes::new());
            assert!(tensor.is_err(), "{shape:?}");
        }
        assert!(Tensor::new("x", DataType::Fp32, vec![5, 0], Bytes::new()).is_ok());
    }

    #[test]
    fn text_goes_in_and_comes_out() {
        let tensor = Tensor::from_strings("s", vec![2, 2], &["a", "", "ä\0", "dd"]).expect("fits");
        assert_eq!(tensor.data.len(), 4 * 4 + 6);
        assert_eq!(tensor.to_strings().expect("text"), ["a", "", "ä\0", "dd"]);
        assert_eq!(
            tensor.row_bytes(1),
            Some(&b"\x03\0\0\0\xc3\xa4\0\x02\0\0\0dd"[..])
        );
        assert_eq!(tensor.row_bytes(2), None);
        assert_eq!(tensor.split_rows().concat(), tensor.data);
        assert!(Tensor::from_strings("s", vec![2], &["a"]).is_err());
    }

    #[test]
    fn broken_length_prefixes_are_named_by_their_element() {
        let data = Bytes::from_static(b"\x01\0\0\0a\xff\xff\xff\xffb");
        let error = Tensor::new("s", DataType::Bytes, vec![2], data).expect_err("past the end");
        assert_eq!(error, TensorError::Truncated { index: 1 });
        let data = Bytes::from_static(b"\x01\0\0\0a");
        let error = Tensor::new("s", DataType::Bytes, vec![2], data).expect_err("one element");
        assert_eq!(error.to_string(), "1 values for shape [2]");
    }

    #[test]
    fn booleans_are_zero_or_one() {
        let data = Bytes::from_static(&[1, 0, 2]);
        let error = Tensor::new("b", DataType::Bool, vec![3], data).expect_err("a two");
        assert_eq!(error, TensorError::NotBool { index: 2, value: 2 });
    }

    #[test]
    fn rows_of_fixed_size_are_slices_of_the_data() {
        let tensor = Tensor::from_f32("x", vec![2, 2], &[1.0, 2.0, 3.0, 4.0]).expect("fits");
        assert_eq!(tensor.rows(), 2);
        assert_eq!(tensor.row_bytes(1), Some(&tensor.data[8..]));
        assert_eq!(tensor.row_bytes(2), None);
        assert_eq!(tensor.split_rows().len(), 2);
        assert_eq!(tensor.to_f32().expect("FP32"), [1.0, 2.0, 3.0, 4.0]);
        let scalar = Tensor::from_f32("x", vec![], &[1.0]).expect("fits");
        assert_eq!(scalar.row_bytes(0), Some(&scalar.data[..]));
    }

    #[test]
    fn rows_end_where_the_fields_contradict_each_other() {
        let mut tensor = Tensor::from_f32("x", vec![2], &[1.0, 2.0]).expect("fits");
        tensor.shape = vec![usize::MAX, usize::MAX];
        assert_eq!(tensor.split_rows().len(), 0);
        tensor.shape = vec![5];
        assert_eq!(tensor.split_rows().len(), 2);
    }
}
