// Dense layer for few rows or columns, by small tiles. For the rest see layer.wgsl.
// Dispatch one workgroup per tile of 16 rows x 32 columns: (ceil(n / 32), ceil(m / 16), 1). Any m, k, n.
// A row's sum runs over k in order, so its bits do not depend on the other rows, and are those of the other tiles.

// Also in the catalogue; tests/validate.rs checks that the two agree.
const TILE_ROWS: u32 = 16u;
const TILE_COLUMNS: u32 = 32u;

const STEP: u32 = 16u;        // values of k in workgroup memory at a time
const COLUMN_QUADS: u32 = 8u; // TILE_COLUMNS / 4
const LANES: u32 = 64u;

var<workgroup> row_tile: array<f32, 256>;          // TILE_ROWS x STEP
var<workgroup> weight_tile: array<vec4<f32>, 128>; // STEP x COLUMN_QUADS

// Each lane computes two rows of four columns.
@compute @workgroup_size(8, 8, 1)
fn skinny(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) lane: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first_row = group.y * TILE_ROWS;
    let first_quad = group.x * COLUMN_QUADS;
    var upper = vec4<f32>();
    var lower = vec4<f32>();

    for (var k = 0u; k < layer.k; k += STEP) {
        for (var at = index; at < TILE_ROWS * STEP; at += LANES) {
            row_tile[at] = of_row(first_row + at / STEP, k + at % STEP);
        }
        for (var at = index; at < STEP * COLUMN_QUADS; at += LANES) {
            weight_tile[at] = of_weights(k + at / COLUMN_QUADS, first_quad + at % COLUMN_QUADS);
        }
        workgroupBarrier();

        for (var step = 0u; step < STEP; step++) {
            let four = weight_tile[step * COLUMN_QUADS + lane.x];
            upper = fma(vec4<f32>(row_tile[(2u * lane.y) * STEP + step]), four, upper);
            lower = fma(vec4<f32>(row_tile[(2u * lane.y + 1u) * STEP + step]), four, lower);
        }
        workgroupBarrier();
    }

    let row = first_row + 2u * lane.y;
    store(upper, row, first_quad + lane.x);
    store(lower, row + 1u, first_quad + lane.x);
}
