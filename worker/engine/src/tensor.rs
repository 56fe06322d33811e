//! Tensors as they enter and leave the engine.
//!
//! Bytes are row-major and little-endian; a string is a `u32` length and its UTF-8
//! bytes. [`Tensor::stack`] copies the parts of a batch once, straight into the
//! memory the kernels read.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use tract_onnx::prelude::DatumType;
use tract_onnx::tract_core::internal::TDim;

use crate::element::Element;

// tract keeps tensors in the machine's own byte order and we hand its memory out as it is.
const _: () = assert!(
    cfg!(target_endian = "little"),
    "the engine moves tensor bytes without swapping them, so it needs a little-endian machine"
);

/// Why bytes are not a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The shape's size in bytes does not fit the address space.
    #[error("shape {shape:?} of {element} is too large")]
    TooLarge {
        /// The shape.
        shape: Vec<usize>,
        /// The element type.
        element: Element,
    },
    /// More or fewer bytes than the shape needs.
    #[error("{got} bytes for shape {shape:?} of {element}, which takes {expected}")]
    Length {
        /// Bytes given.
        got: usize,
        /// Bytes needed.
        expected: usize,
        /// The shape.
        shape: Vec<usize>,
        /// The element type.
        element: Element,
    },
    /// A `bool` that is neither 0 nor 1.
    #[error("element {index} of a bool tensor is {value}, neither 0 nor 1")]
    NotBool {
        /// Position in row-major order.
        index: usize,
        /// The byte found there.
        value: u8,
    },
    /// A string's length points past the end, or bytes are left over.
    #[error(
        "the strings do not add up: {found} whole strings in the given bytes, the shape takes {expected}"
    )]
    Strings {
        /// Strings read before the bytes ended or ran over.
        found: usize,
        /// Elements of the shape.
        expected: usize,
    },
    /// A string is not UTF-8, which is all ONNX models take.
    #[error("string {index} is not UTF-8")]
    NotUtf8 {
        /// Position in row-major order.
        index: usize,
    },
    /// Rows that the tensor does not have.
    #[error("rows {start} to {end} of a tensor with shape {shape:?}")]
    Rows {
        /// First row asked for.
        start: usize,
        /// One past the last.
        end: usize,
        /// The tensor's shape.
        shape: Vec<usize>,
    },
    /// A model gave an element type that has no counterpart outside.
    #[error("the model gives elements of type {0}, which cannot leave the engine")]
    Foreign(String),
}

/// A dense tensor in host memory, owned by one batch.
#[derive(Clone)]
pub struct Tensor {
    element: Element,
    inner: tract_onnx::prelude::Tensor,
}

impl Tensor {
    /// One tensor from the bytes of its parts, laid one after the other: the rows of many requests, or the whole in one.
    ///
    /// Every byte is copied once, into memory aligned for the kernels.
    ///
    /// # Errors
    /// [`TensorError`] if the parts together are not exactly a tensor of this shape.
    pub fn stack(element: Element, shape: &[usize], parts: &[&[u8]]) -> Result<Self, TensorError> {
        let too_large = || TensorError::TooLarge {
            shape: shape.to_vec(),
            element,
        };
        let elements = shape
            .iter()
            .try_fold(1usize, |all, &size| all.checked_mul(size))
            .ok_or_else(too_large)?;
        let inner = match element.size() {
            Some(size) => {
                let expected = elements
                    .checked_mul(size)
                    .filter(|&bytes| isize::try_from(bytes).is_ok())
                    .ok_or_else(too_large)?;
                let got = parts.iter().map(|part| part.len()).sum();
                if got != expected {
                    return Err(TensorError::Length {
                        got,
                        expected,
                        shape: shape.to_vec(),
                        element,
                    });
                }
                if element == Element::Bool {
                    check_bools(parts)?;
                }
                let mut inner = tract_onnx::prelude::Tensor::zero_dt(element.datum_type(), shape)
                    .map_err(|_| too_large())?;
                let mut rest = inner.as_bytes_mut();
                for part in parts {
                    let (here, after) = rest.split_at_mut(part.len());
                    here.copy_from_slice(part);
                    rest = after;
                }
                inner
            }
            None => strings(shape, elements, parts)?,
        };
        Ok(Tensor { element, inner })
    }

    /// The element type.
    #[must_use]
    pub fn element(&self) -> Element {
        self.element
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.inner.shape()
    }

    /// All elements as bytes; borrowed, except for strings.
    #[must_use]
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match self.element {
            Element::String => Cow::Owned(prefixed(self.strings())),
            _ => Cow::Borrowed(self.inner.as_bytes()),
        }
    }

    /// The bytes of some rows, that is of some positions on axis 0; borrowed, except for strings.
    ///
    /// # Errors
    /// [`TensorError::Rows`] if the tensor has no axis 0 or not that many rows.
    pub fn rows(&self, rows: Range<usize>) -> Result<Cow<'_, [u8]>, TensorError> {
        let available = self.shape().first().copied().unwrap_or(0);
        if self.shape().is_empty() || rows.start > rows.end || rows.end > available {
            let shape = self.shape().to_vec();
            return Err(TensorError::Rows {
                start: rows.start,
                end: rows.end,
                shape,
            });
        }
        let per_row: usize = self.shape()[1..].iter().product();
        let elements = rows.start * per_row..rows.end * per_row;
        Ok(match self.element.size() {
            Some(size) => {
                Cow::Borrowed(&self.inner.as_bytes()[elements.start * size..elements.end * size])
            }
            None => Cow::Owned(prefixed(&self.strings()[elements])),
        })
    }

    fn strings(&self) -> &[String] {
        self.inner
            .as_plain_ram()
            .and_then(|plain| plain.as_slice::<String>().ok())
            .expect("a tensor of element String is only ever made from plain tract strings")
    }

    pub(crate) fn into_inner(self) -> tract_onnx::prelude::Tensor {
        self.inner
    }

    /// Takes what a model gave: dimensions become `i64`, lazily held bytes are fetched.
    pub(crate) fn from_inner(inner: tract_onnx::prelude::Tensor) -> Result<Self, TensorError> {
        let foreign = |inner: &tract_onnx::prelude::Tensor| {
            TensorError::Foreign(format!("{:?}", inner.datum_type()))
        };
        let element = Element::of(inner.datum_type()).ok_or_else(|| foreign(&inner))?;
        let inner = if inner.datum_type() == DatumType::TDim {
            dimensions(&inner).ok_or_else(|| foreign(&inner))?
        } else if inner.is_plain_ram() {
            inner
        } else {
            let described = foreign(&inner);
            inner.into_plain_ram().map_err(|_| described)?
        };
        Ok(Tensor { element, inner })
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {:?})", self.element, self.shape())
    }
}

fn dimensions(inner: &tract_onnx::prelude::Tensor) -> Option<tract_onnx::prelude::Tensor> {
    let plain = inner.try_as_plain_ram().ok()?;
    let values: Option<Vec<i64>> = plain
        .as_slice::<TDim>()
        .ok()?
        .iter()
        .map(TDim::as_i64)
        .collect();
    tract_onnx::prelude::Tensor::from_shape(inner.shape(), &values?).ok()
}

fn check_bools(parts: &[&[u8]]) -> Result<(), TensorError> {
    let mut bytes = parts
        .iter()
        .flat_map(|part| part.iter().copied())
        .enumerate();
    match bytes.find(|(_, value)| *value > 1) {
        Some((index, value)) => Err(TensorError::NotBool { index, value }),
        None => Ok(()),
    }
}

fn strings(
    shape: &[usize],
    expected: usize,
    parts: &[&[u8]],
) -> Result<tract_onnx::prelude::Tensor, TensorError> {
    // Each string takes at least its length prefix, so this also bounds the allocation below by the bytes at hand.
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    if expected.checked_mul(4).is_none_or(|least| least > bytes) {
        return Err(TensorError::Strings {
            found: bytes / 4,
            expected,
        });
    }
    let mut texts = Vec::with_capacity(expected);
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let found = texts.len();
            let text = rest
                .split_first_chunk::<4>()
                .and_then(|(length, after)| {
                    after.split_at_checked(u32::from_le_bytes(*length) as usize)
                })
                .filter(|_| found < expected);
            let Some((text, after)) = text else {
                return Err(TensorError::Strings { found, expected });
            };
            let text =
                std::str::from_utf8(text).map_err(|_| TensorError::NotUtf8 { index: found })?;
            texts.push(text.to_owned());
            rest = after;
        }
    }
    if texts.len() != expected {
        return Err(TensorError::Strings {
            found: texts.len(),
            expected,
        });
    }
    let array = tract_onnx::prelude::tract_ndarray::ArrayD::from_shape_vec(shape, texts)
        .expect("the number of strings was just compared with the shape");
    Ok(array.into())
}

fn prefixed(texts: &[String]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(texts.iter().map(|text| 4 + text.len()).sum());
    for text in texts {
        // Every string came from outside behind a u32 length or is a label in a model file below 4 GiB.
        let length = u32::try_from(text.len()).expect("no string reaches 4 GiB");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}
