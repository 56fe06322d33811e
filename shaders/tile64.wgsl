// Dense layer for many rows, by tiles of 64 x 64. For the rest see layer.wgsl.
// Dispatch one workgroup per tile: (ceil(n / 64), ceil(m / 64), 1). Any m, k, n.
// A row's sum runs over k in order, so its bits do not depend on the other rows, and are those of the other tiles.

// Also in the catalogue; tests/validate.rs checks that the two agree.
const TILE_ROWS: u32 = 64u;
const TILE_COLUMNS: u32 = 64u;

const STEP: u32 = 16u;    // values of k in workgroup memory at a time
const QUADS: u32 = 16u;   // of rows, and of columns, in a tile
const PITCH: u32 = 17u;   // one more, so that lanes that write do not meet in a bank of memory

var<workgroup> row_tile: array<vec4<f32>, 272>;    // STEP x PITCH: four rows in a register
var<workgroup> weight_tile: array<vec4<f32>, 256>; // STEP x QUADS

// Each lane computes four rows of four columns.
@compute @workgroup_size(16, 16, 1)
fn tile64(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) lane: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first_row = group.y * TILE_ROWS;
    let first_quad = group.x * QUADS;
    var sums_0 = vec4<f32>();
    var sums_1 = vec4<f32>();
    var sums_2 = vec4<f32>();
    var sums_3 = vec4<f32>();

    for (var k = 0u; k < layer.k; k += STEP) {
        // Neighbours read neighbouring steps of the same rows.
        let step = index % STEP;
        let row = first_row + 4u * (index / STEP);
        row_tile[step * PITCH + index / STEP] = vec4<f32>(
            of_row(row, k + step),
            of_row(row + 1u, k + step),
            of_row(row + 2u, k + step),
            of_row(row + 3u, k + step),
        );
        weight_tile[index] = of_weights(k + index / QUADS, first_quad + index % QUADS);
        workgroupBarrier();

        for (var at = 0u; at < STEP; at++) {
            let rows_of_step = row_tile[at * PITCH + lane.y];
            let four = weight_tile[at * QUADS + lane.x];
            sums_0 = fma(vec4<f32>(rows_of_step.x), four, sums_0);
            sums_1 = fma(vec4<f32>(rows_of_step.y), four, sums_1);
            sums_2 = fma(vec4<f32>(rows_of_step.z), four, sums_2);
            sums_3 = fma(vec4<f32>(rows_of_step.w), four, sums_3);
        }
        workgroupBarrier();
    }

    let row = first_row + 4u * lane.y;
    let quad = first_quad + lane.x;
    store(sums_0, row, quad);
    store(sums_1, row + 1u, quad);
    store(sums_2, row + 2u, quad);
    store(sums_3, row + 3u, quad);
}
