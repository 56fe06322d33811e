//! How a step is launched for values of given shapes: workgroups, and the numbers its shader is told.

use std::ops::Range;

use inferq_shaders::{GRID, JOINED_LANES, Tile, WITH_RESIDUAL, elementwise, norm, product};

use super::device::Opened;
use super::error::GpuError;
use super::layout::{check_groups, check_size, padded_size};
use super::operation::{Activation, Axes, Choice, Layer, Norm, Operation, Pairs, Weights, pieces};
use super::part::Part;

/// One launch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dispatch {
    /// The kernel, for operations that have several.
    pub(super) tile: Option<Tile>,
    pub(super) groups: [u32; 3],
    /// What follows, if this one leaves sums in pieces.
    pub(super) join: Option<Join>,
    immediates: Vec<u32>,
}

/// The launch that adds up what a split one left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Join {
    pub(super) groups: [u32; 3],
    /// Numbers that lie in between.
    pub(super) sums: usize,
}

impl Dispatch {
    /// As the shader's immediate block takes them.
    pub(super) fn immediates(&self) -> &[u8] {
        bytemuck::cast_slice(&self.immediates)
    }
}

/// A value that a step works on.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) shape: &'a [usize],
    /// What it is a part of, if it is one.
    pub(super) part: Option<Part>,
}

/// How to launch `operation` on values of these shapes; `None` if there is nothing to do. Of a dense layer only
/// these columns are computed.
///
/// All sizes fit in 32 bits: the caller has seen that every value is one the device can bind.
pub(super) fn dispatch(
    operation: &Operation,
    columns: &Range<usize>,
    inputs: &[Given<'_>],
    result: &[usize],
    choice: Choice,
    gpu: &Opened,
) -> Result<Option<Dispatch>, GpuError> {
    let given = |place: usize| inputs.get(place).map(|given| given.shape);
    let first = given(0).ok_or(GpuError::Empty("a step"))?;
    let launch = match operation {
        Operation::View => {
            check_size("a view", count(result), count(first))?;
            let part = inputs.first().and_then(|given| given.part);
            return match part {
                Some(part) if !part.keeps_rows_apart(result) => Err(GpuError::Unfit(
                    "a view of a part goes across its rows".to_owned(),
                )),
                _ => Ok(None),
            };
        }
        Operation::Part(part) => {
            check_size("a part", part.whole(count(result)), count(first))?;
            return Ok(None);
        }
        Operation::Linear(layer) => {
            check_linear(layer, first, given(1), result)?;
            let m = count(first) / layer.inputs;
            let parts = given(1).map_or(0, |_| WITH_RESIDUAL);
            of_linear(layer, columns, [m as u32, parts], choice, gpu)?
        }
        Operation::Product(pairs) => {
            let [left, right] = inputs else {
                return Err(GpuError::Empty("a side of a product"));
            };
            of_product(pairs, [*left, *right], result, gpu)?
        }
        Operation::Softmax { scale } => of_softmax(*scale, first, given(1), result)?,
        Operation::Norm(norm) => of_norm(norm, first, result)?,
        Operation::Elementwise {
            combine,
            activation,
        } => {
            let combine = combine.map_or(0, super::operation::Combine::number);
            of_elements(combine, *activation, first, given(1), result)?
        }
    };
    Ok((count(result) > 0).then_some(launch))
}

pub(super) fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

fn check_linear(
    layer: &Layer,
    rows: &[usize],
    residual: Option<&[usize]>,
    result: &[usize],
) -> Result<(), GpuError> {
    let m = count(rows) / layer.inputs;
    check_size("the rows of a layer", count(rows), m * layer.inputs)?;
    check_size("the result of a layer", count(result), m * layer.outputs)?;
    match residual {
        Some(residual) => check_size("the residual of a layer", count(residual), count(result)),
        None => Ok(()),
    }
}

fn of_linear(
    layer: &Layer,
    columns: &Range<usize>,
    [m, parts]: [u32; 2],
    choice: Choice,
    gpu: &Opened,
) -> Result<Dispatch, GpuError> {
    let cooperative = layer.kept_as == Weights::Half && gpu.cooperative().is_some();
    let sizes = [m as usize, layer.inputs, columns.len()];
    let tile = choice.tile(sizes, cooperative);
    let [rows_of_tile, columns_of_tile] = tile.size();
    let row_groups = m.div_ceil(rows_of_tile);
    check_groups(
        "the number of rows",
        row_groups as usize,
        m as usize,
        rows_of_tile,
        gpu,
    )?;
    let pieces = match tile {
        Tile::Split => pieces(m as usize, layer.inputs, columns.len()),
        Tile::Gemv | Tile::Skinny | Tile::Tile64 | Tile::Tile128 | Tile::Cooperative => 1,
    };
    let join = (tile == Tile::Split).then(|| join(m as usize, columns.len(), pieces));
    let (activation, [low, high]) = numbers(layer.activation);
    Ok(Dispatch {
        tile: Some(tile),
        groups: [
            (columns.len() as u32).div_ceil(columns_of_tile),
            row_groups,
            pieces as u32,
        ],
        join,
        immediates: vec![
            m,
            layer.inputs as u32,
            columns.len() as u32,
            layer.outputs as u32,
            columns.start as u32,
            parts,
            activation,
            low.to_bits(),
            high.to_bits(),
            pieces as u32,
        ],
    })
}

/// How to add up `pieces` of sums for `m` rows of `n` columns. What is split is small.
fn join(m: usize, n: usize, pieces: usize) -> Join {
    let padded = m * padded_size(n);
    let groups = (padded / 4).div_ceil(JOINED_LANES as usize);
    Join {
        groups: [groups as u32, 1, 1],
        sums: pieces * padded,
    }
}

fn of_product(
    pairs: &Pairs,
    given: [Given<'_>; 2],
    result: &[usize],
    gpu: &Opened,
) -> Result<Dispatch, GpuError> {
    let [left, right] = given.map(|given| given.shape);
    let size = |shape: &[usize], axis: Option<usize>| {
        axis.map_or(1, |axis| shape.get(axis).copied().unwrap_or(0))
    };
    let (m, n) = (
        size(result, pairs.result.row),
        size(result, pairs.result.column),
    );
    let k = size(left, pairs.left.column);
    let (outer, inner) = (
        size(result, pairs.result.outer),
        size(result, pairs.result.inner),
    );
    check_size("the left side of a product", size(left, pairs.left.row), m)?;
    check_size("the sums of a product", size(right, pairs.right.row), k)?;
    let columns = size(right, pairs.right.column);
    check_size("the right side of a product", columns, n)?;
    for (shape, axes) in [(left, &pairs.left), (right, &pairs.right)] {
        for (axis, wanted) in [(axes.outer, outer), (axes.inner, inner)] {
            if axis.is_some() {
                check_size("the pairs of a product", size(shape, axis), wanted)?;
            }
        }
    }
    let all = outer * inner;
    check_size("the result of a product", count(result), all * m * n)?;
    let (row_groups, column_groups) = (
        m.div_ceil(product::TILE_ROWS as usize),
        n.div_ceil(product::TILE_COLUMNS as usize),
    );
    check_groups(
        "the rows of a product",
        row_groups,
        m,
        product::TILE_ROWS,
        gpu,
    )?;
    check_groups(
        "the columns of a product",
        column_groups,
        n,
        product::TILE_COLUMNS,
        gpu,
    )?;
    check_groups("the number of products", all, all, 1, gpu)?;
    let mut immediates = vec![m as u32, k as u32, n as u32, inner as u32];
    let parts = given.map(|given| given.part);
    immediates.extend(strides(left, &pairs.left, parts[0]));
    immediates.extend(strides(right, &pairs.right, parts[1]));
    immediates.extend(strides(result, &pairs.result, None));
    immediates.extend(parts.map(|part| part.map_or(0, |part| part.first as u32)));
    Ok(Dispatch {
        tile: None,
        join: None,
        groups: [column_groups as u32, row_groups as u32, all as u32],
        immediates,
    })
}

/// How far apart neighbours along each of the axes lie; 0 along one that is not there.
fn strides(shape: &[usize], axes: &Axes, part: Option<Part>) -> [u32; 4] {
    let apart = |axis: usize| {
        let own = count(&shape[axis + 1..]);
        part.map_or(own, |part| part.stride(own)) as u32
    };
    let stride = |axis: Option<usize>| axis.map_or(0, apart);
    [
        stride(axes.outer),
        stride(axes.inner),
        stride(axes.row),
        stride(axes.column),
    ]
}

fn of_softmax(
    scale: f32,
    scores: &[usize],
    mask: Option<&[usize]>,
    result: &[usize],
) -> Result<Dispatch, GpuError> {
    check_size("the result of a softmax", count(result), count(scores))?;
    let columns = scores.last().copied().unwrap_or(1);
    let rows = count(scores) / columns.max(1);
    let (sizes, strides) = match mask {
        Some(mask) => spread(mask, scores)?,
        None => ([1; 4], [0; 4]),
    };
    let [outer, middle, last, column] = strides;
    Ok(Dispatch {
        tile: None,
        join: None,
        groups: grid(rows)?,
        immediates: vec![
            rows as u32,
            columns as u32,
            scale.to_bits(),
            u32::from(mask.is_some()),
            sizes[1],
            sizes[2],
            outer,
            middle,
            last,
            column,
        ],
    })
}

fn of_norm(layer: &Norm, rows: &[usize], result: &[usize]) -> Result<Dispatch, GpuError> {
    let row_count = count(rows) / layer.columns.max(1);
    let expected = row_count * layer.columns;
    check_size("the rows of a norm", count(rows), expected)?;
    check_size("the result of a norm", count(result), expected)?;
    let part = |there: bool, part: u32| if there { part } else { 0 };
    let parts = part(layer.centered, norm::CENTERED)
        | part(layer.scale.is_some(), norm::WITH_SCALE)
        | part(layer.shift.is_some(), norm::WITH_SHIFT);
    Ok(Dispatch {
        tile: None,
        join: None,
        groups: grid(row_count)?,
        immediates: vec![
            row_count as u32,
            layer.columns as u32,
            layer.epsilon.to_bits(),
            parts,
        ],
    })
}

fn of_elements(
    combine: u32,
    activation: Option<Activation>,
    left: &[usize],
    right: Option<&[usize]>,
    result: &[usize],
) -> Result<Dispatch, GpuError> {
    check_size("the result of a step", count(result), count(left))?;
    let (sizes, strides) = match right {
        Some(right) => spread(right, left)?,
        None => ([1; 4], [0; 4]),
    };
    let (activation, [low, high]) = numbers(activation);
    let mut immediates = vec![
        count(left) as u32,
        combine,
        activation,
        low.to_bits(),
        high.to_bits(),
    ];
    immediates.extend(&sizes[1..]);
    immediates.extend(strides);
    Ok(Dispatch {
        tile: None,
        join: None,
        groups: grid(count(left).div_ceil(elementwise::LANES as usize))?,
        immediates,
    })
}

fn numbers(activation: Option<Activation>) -> (u32, [f32; 2]) {
    activation.map_or((0, [0.0; 2]), |activation| {
        (activation.number(), activation.parameters())
    })
}

/// So many workgroups in two dimensions, of which the first is at most [`GRID`] long.
fn grid(groups: usize) -> Result<[u32; 3], GpuError> {
    let limit = u64::from(GRID) * u64::from(GRID);
    if groups as u64 > limit {
        return Err(GpuError::Limit {
            what: "the number of rows",
            got: groups as u64,
            limit,
        });
    }
    let groups = groups as u32;
    Ok([groups.min(GRID), groups.div_ceil(GRID), 1])
}

/// The sizes of the last four axes of `all`, and how far `own`, which broadcasts to it, moves along each.
fn spread(own: &[usize], all: &[usize]) -> Result<([u32; 4], [u32; 4]), GpuError> {
    let (mut sizes, mut strides) = ([1; 4], [0; 4]);
    let missing = all.len().saturating_sub(own.len());
    let fits = all.len() <= 4 && own.len() <= all.len();
    let expected = |at: usize| {
        at.checked_sub(missing)
            .and_then(|at| own.get(at))
            .copied()
            .unwrap_or(1)
    };
    let spreads = (0..all.len()).all(|at| expected(at) == all[at] || expected(at) == 1);
    if !fits || !spreads {
        return Err(GpuError::Shape {
            what: "what is spread over a value",
            got: count(own),
            expected: count(all),
        });
    }
    let shift = 4 - all.len();
    let mut stride = 1;
    for at in (0..all.len()).rev() {
        sizes[shift + at] = all[at] as u32;
        if expected(at) > 1 {
            strides[shift + at] = stride;
        }
        stride *= expected(at) as u32;
    }
    Ok((sizes, strides))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_broadcasts_stands_still_along_the_axes_it_is_spread_over() {
        let both = |own: &[usize], all: &[usize]| spread(own, all).expect("it broadcasts");
        assert_eq!(
            both(&[2, 1, 1, 5], &[2, 3, 4, 5]),
            ([2, 3, 4, 5], [5, 0, 0, 1])
        );
        assert_eq!(both(&[7], &[3, 7]), ([1, 1, 3, 7], [0, 0, 0, 1]));
        assert_eq!(both(&[1, 1], &[3, 7]), ([1, 1, 3, 7], [0, 0, 0, 0]));
        assert_eq!(both(&[], &[3]), ([1, 1, 1, 3], [0; 4]));
        assert!(spread(&[2], &[3]).is_err());
        assert!(spread(&[1; 5], &[1; 5]).is_err());
    }

    #[test]
    fn many_rows_go_on_along_y() {
        assert_eq!(grid(5), Ok([5, 1, 1]));
        assert_eq!(grid(GRID as usize + 1), Ok([GRID, 2, 1]));
        assert!(grid(1 << 31).is_err());
    }

    #[test]
    fn strides_follow_the_axes_wherever_they_are() {
        let axes = Axes {
            outer: Some(0),
            inner: Some(2),
            row: Some(1),
            column: Some(3),
        };
        assert_eq!(strides(&[2, 3, 4, 5], &axes, None), [60, 5, 20, 1]);
        assert_eq!(strides(&[2], &Axes::default(), None), [0; 4]);
        // 20 of 50 columns, in two axes.
        let part = Part {
            first: 10,
            columns: 20,
            of: 50,
        };
        assert_eq!(strides(&[2, 3, 4, 5], &axes, Some(part)), [150, 5, 50, 1]);
    }
}
