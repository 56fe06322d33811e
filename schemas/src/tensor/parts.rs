//! A tensor's data in parts: the elements of BYTES, and the rows of axis 0.
//!
//! A tensor's fields are public, so nothing here trusts that they agree: the walks end early
//! where they do not.

use std::ops::Range;

use super::TensorError;

/// The elements of a BYTES tensor.
pub(super) struct Elements<'a> {
    rest: &'a [u8],
    index: usize,
}

impl<'a> Elements<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self {
            rest: data,
            index: 0,
        }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<&'a [u8], TensorError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let index = self.index;
        self.index += 1;
        let element = self.rest.split_first_chunk().and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            rest.split_at_checked(length)
        });
        match element {
            Some((element, rest)) => {
                self.rest = rest;
                Some(Ok(element))
            }
            None => {
                self.rest = &[];
                Some(Err(TensorError::Truncated { index }))
            }
        }
    }
}

/// The byte range of each row.
pub(super) struct RowRanges<'a> {
    data: &'a [u8],
    at: usize,
    rows_left: usize,
    /// Elements of one row.
    elements: usize,
    size: Option<usize>,
}

impl<'a> RowRanges<'a> {
    /// `elements` is the number in one row, `size` that of each in bytes if it is fixed.
    pub(super) fn new(data: &'a [u8], rows: usize, elements: usize, size: Option<usize>) -> Self {
        Self {
            data,
            at: 0,
            rows_left: rows,
            elements,
            size,
        }
    }
}

impl Iterator for RowRanges<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        self.rows_left = self.rows_left.checked_sub(1)?;
        let start = self.at;
        let length = match self.size {
            Some(size) => self.elements.checked_mul(size)?,
            None => {
                let mut elements = Elements::new(&self.data[start..]);
                for _ in 0..self.elements {
                    elements.next()?.ok()?;
                }
                self.data.len() - start - elements.rest.len()
            }
        };
        self.at = start
            .checked_add(length)
            .filter(|end| *end <= self.data.len())?;
        Some(start..self.at)
    }

    fn nth(&mut self, row: usize) -> Option<Range<usize>> {
        if let Some(size) = self.size {
            // Rows of fixed size need no walk.
            self.rows_left = self.rows_left.checked_sub(row)?;
            self.at = self.elements.checked_mul(size)?.checked_mul(row)?;
            return self.next();
        }
        for _ in 0..row {
            self.next()?;
        }
        self.next()
    }
}
