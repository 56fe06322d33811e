//! Values that are some columns of a wider one, and stay where they lie.
//!
//! Layers of the same rows are one product with the columns of all of them; what each would have given is a part of
//! its result.

use super::error::GpuError;
use super::operation::Operation;
use super::program::Step;

/// Some columns of a value's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The first of them.
    pub first: usize,
    /// How many there are.
    pub columns: usize,
    /// Columns of the value they are of.
    pub of: usize,
}

impl Part {
    /// What the result of `step` is a part of; `parts` has the same for each value before.
    pub(super) fn made_by(step: &Step, parts: &[Option<Part>]) -> Result<Option<Part>, GpuError> {
        let mut given = step.inputs.iter().map(|input| parts[*input]);
        match &step.operation {
            Operation::Product(_) => Ok(None),
            Operation::View => Ok(given.next().flatten()),
            Operation::Part(part) if part.first + part.columns > part.of => Err(GpuError::Shape {
                what: "the last column of a part",
                got: part.first + part.columns,
                expected: part.of,
            }),
            _ if given.any(|part| part.is_some()) => Err(GpuError::Unfit(
                "only products read a part of a value".to_owned(),
            )),
            Operation::Part(part) => Ok(Some(*part)),
            Operation::Linear(_)
            | Operation::Softmax { .. }
            | Operation::Norm(_)
            | Operation::Elementwise { .. } => Ok(None),
        }
    }

    /// How far apart neighbours lie that are `own` numbers apart in the part by itself. What is less than a row apart
    /// is in one row.
    pub(super) fn stride(&self, own: usize) -> usize {
        match own.checked_div(self.columns) {
            None | Some(0) => own,
            Some(rows) => rows * self.of,
        }
    }

    /// Numbers of all rows that a part of `own` numbers is of.
    pub(super) fn whole(&self, own: usize) -> usize {
        own.checked_div(self.columns)
            .map_or(0, |rows| rows * self.of)
    }

    /// Whether a value of this shape, which has the elements of the part, keeps its rows apart.
    pub(super) fn keeps_rows_apart(&self, shape: &[usize]) -> bool {
        let mut inner = (0..=shape.len()).map(|axis| shape[axis..].iter().product::<usize>());
        shape.contains(&0) || inner.any(|columns| columns == self.columns)
    }

    /// The part by itself, of all rows.
    pub(super) fn taken(&self, whole: &[f32]) -> Vec<f32> {
        let rows = whole.chunks_exact(self.of.max(1));
        let own = rows.flat_map(|row| &row[self.first..][..self.columns]);
        own.copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: Part = Part {
        first: 1,
        columns: 4,
        of: 7,
    };

    #[test]
    fn neighbours_in_a_row_stay_so_and_rows_are_as_far_apart_as_the_wider_ones() {
        // Of [3, 5, 2, 2], the columns in two axes.
        assert_eq!([20, 4, 2, 1].map(|own| MIDDLE.stride(own)), [35, 7, 2, 1]);
        assert_eq!(MIDDLE.whole(60), 105);
    }

    #[test]
    fn a_view_keeps_rows_apart_if_no_axis_goes_across_them() {
        let keeps: [&[usize]; 5] = [&[3, 5, 4], &[15, 1, 2, 2], &[1, 15, 4, 1], &[4], &[0, 4]];
        assert!(
            keeps
                .into_iter()
                .all(|shape| MIDDLE.keeps_rows_apart(shape))
        );
        let loses: [&[usize]; 3] = [&[3, 10, 2], &[60], &[5, 12]];
        assert!(
            !loses
                .into_iter()
                .any(|shape| MIDDLE.keeps_rows_apart(shape))
        );
    }

    #[test]
    fn a_part_is_its_columns_of_every_row() {
        let whole: Vec<f32> = (0..14u8).map(f32::from).collect();
        let own = [1.0, 2.0, 3.0, 4.0, 8.0, 9.0, 10.0, 11.0];
        assert_eq!(MIDDLE.taken(&whole), own);
    }

    #[test]
    fn nothing_but_a_product_reads_a_part() {
        let parts = [None, Some(MIDDLE)];
        let made_by = |operation, input| {
            let inputs = vec![input];
            Part::made_by(&Step { operation, inputs }, &parts)
        };
        assert_eq!(made_by(Operation::View, 1), Ok(Some(MIDDLE)));
        assert_eq!(made_by(Operation::Product(Default::default()), 1), Ok(None));
        assert_eq!(made_by(Operation::Part(MIDDLE), 0), Ok(Some(MIDDLE)));
        let softmax = || Operation::Softmax { scale: 1.0 };
        assert_eq!(made_by(softmax(), 0), Ok(None));
        for refused in [softmax(), Operation::Part(MIDDLE)] {
            assert!(matches!(made_by(refused, 1), Err(GpuError::Unfit(_))));
        }
        let beyond = Part { first: 4, ..MIDDLE };
        assert!(matches!(
            made_by(Operation::Part(beyond), 0),
            Err(GpuError::Shape {
                got: 8,
                expected: 7,
                ..
            })
        ));
    }
}
