// Sums of a dense layer for few rows or columns, by small tiles. A part of its kernels: there is nothing to dispatch
// here. One workgroup of 8 x 8 lanes per tile of 16 rows x 32 columns. Any m, k, n.
// A sum runs over k in order, so its bits do not depend on the other rows.

// Also in the catalogue; tests/validate.rs checks that the two agree.
const TILE_ROWS: u32 = 16u;
const TILE_COLUMNS: u32 = 32u;

const STEP: u32 = 16u;        // values of k in workgroup memory at a time
const COLUMN_QUADS: u32 = 8u; // TILE_COLUMNS / 4
const LANES: u32 = 64u;

var<workgroup> row_tile: array<f32, 256>;          // TILE_ROWS x STEP
var<workgroup> weight_tile: array<vec4<f32>, 128>; // STEP x COLUMN_QUADS

// Four columns of two rows, as each lane computes them.
struct Sums {
    upper: vec4<f32>,
    lower: vec4<f32>,
}

// Where those of a lane belong; `lower` is the row after.
fn row_of(group: vec3<u32>, lane: vec3<u32>) -> u32 {
    return group.y * TILE_ROWS + 2u * lane.y;
}

fn quad_of(group: vec3<u32>, lane: vec3<u32>) -> u32 {
    return group.x * COLUMN_QUADS + lane.x;
}

// Over the values of k from `begin` on, which is a multiple of STEP, to before `end`, which is one too or k.
fn sums_over(begin: u32, end: u32, group: vec3<u32>, lane: vec3<u32>, index: u32) -> Sums {
    let first_row = group.y * TILE_ROWS;
    let first_quad = group.x * COLUMN_QUADS;
    var sums = Sums();
    for (var k = begin; k < end; k += STEP) {
        for (var at = index; at < TILE_ROWS * STEP; at += LANES) {
            row_tile[at] = of_row(first_row + at / STEP, k + at % STEP);
        }
        for (var at = index; at < STEP * COLUMN_QUADS; at += LANES) {
            weight_tile[at] = of_weights(k + at / COLUMN_QUADS, first_quad + at % COLUMN_QUADS);
        }
        workgroupBarrier();

        for (var step = 0u; step < STEP; step++) {
            let four = weight_tile[step * COLUMN_QUADS + lane.x];
            sums.upper = fma(vec4<f32>(row_tile[(2u * lane.y) * STEP + step]), four, sums.upper);
            sums.lower = fma(vec4<f32>(row_tile[(2u * lane.y + 1u) * STEP + step]), four, sums.lower);
        }
        workgroupBarrier();
    }
    return sums;
}
