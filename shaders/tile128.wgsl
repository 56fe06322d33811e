// Dense layer for many rows and columns, by tiles of 128 x 128. For the rest see layer.wgsl.
// Dispatch one workgroup per tile: (ceil(n / 128), ceil(m / 128), 1). Any m, k, n.
// A row's sum runs over k in order, so its bits do not depend on the other rows, and are those of the other tiles.

// Also in the catalogue; tests/validate.rs checks that the two agree.
const TILE_ROWS: u32 = 128u;
const TILE_COLUMNS: u32 = 128u;

const STEP: u32 = 8u;   // values of k in workgroup memory at a time
const QUADS: u32 = 32u; // of rows, and of columns, in a tile
const PITCH: u32 = 33u; // one more, so that lanes that write do not meet in a bank of memory
const HALF: u32 = 16u;  // a lane's second quads lie so much further

var<workgroup> row_tile: array<vec4<f32>, 264>;    // STEP x PITCH: four rows in a register
var<workgroup> weight_tile: array<vec4<f32>, 256>; // STEP x QUADS

// Each lane computes eight rows of eight columns: two quads of each, half a tile apart. `a` is the first quad of
// columns, `b` the second; each sum has a name, since arrays would leave the registers.
@compute @workgroup_size(16, 16, 1)
fn tile128(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) lane: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first_row = group.y * TILE_ROWS;
    let first_quad = group.x * QUADS;
    var a_0 = vec4<f32>();
    var b_0 = vec4<f32>();
    var a_1 = vec4<f32>();
    var b_1 = vec4<f32>();
    var a_2 = vec4<f32>();
    var b_2 = vec4<f32>();
    var a_3 = vec4<f32>();
    var b_3 = vec4<f32>();
    var a_4 = vec4<f32>();
    var b_4 = vec4<f32>();
    var a_5 = vec4<f32>();
    var b_5 = vec4<f32>();
    var a_6 = vec4<f32>();
    var b_6 = vec4<f32>();
    var a_7 = vec4<f32>();
    var b_7 = vec4<f32>();

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
            let upper = row_tile[at * PITCH + lane.y];
            let lower = row_tile[at * PITCH + HALF + lane.y];
            let a = weight_tile[at * QUADS + lane.x];
            let b = weight_tile[at * QUADS + HALF + lane.x];
            a_0 = fma(vec4<f32>(upper.x), a, a_0);
            b_0 = fma(vec4<f32>(upper.x), b, b_0);
            a_1 = fma(vec4<f32>(upper.y), a, a_1);
            b_1 = fma(vec4<f32>(upper.y), b, b_1);
            a_2 = fma(vec4<f32>(upper.z), a, a_2);
            b_2 = fma(vec4<f32>(upper.z), b, b_2);
            a_3 = fma(vec4<f32>(upper.w), a, a_3);
            b_3 = fma(vec4<f32>(upper.w), b, b_3);
            a_4 = fma(vec4<f32>(lower.x), a, a_4);
            b_4 = fma(vec4<f32>(lower.x), b, b_4);
            a_5 = fma(vec4<f32>(lower.y), a, a_5);
            b_5 = fma(vec4<f32>(lower.y), b, b_5);
            a_6 = fma(vec4<f32>(lower.z), a, a_6);
            b_6 = fma(vec4<f32>(lower.z), b, b_6);
            a_7 = fma(vec4<f32>(lower.w), a, a_7);
            b_7 = fma(vec4<f32>(lower.w), b, b_7);
        }
        workgroupBarrier();
    }

    let row = first_row + 4u * lane.y;
    let lower_row = row + 4u * HALF;
    let quad = first_quad + lane.x;
    store(a_0, row, quad);
    store(b_0, row, quad + HALF);
    store(a_1, row + 1u, quad);
    store(b_1, row + 1u, quad + HALF);
    store(a_2, row + 2u, quad);
    store(b_2, row + 2u, quad + HALF);
    store(a_3, row + 3u, quad);
    store(b_3, row + 3u, quad + HALF);
    store(a_4, lower_row, quad);
    store(b_4, lower_row, quad + HALF);
    store(a_5, lower_row + 1u, quad);
    store(b_5, lower_row + 1u, quad + HALF);
    store(a_6, lower_row + 2u, quad);
    store(b_6, lower_row + 2u, quad + HALF);
    store(a_7, lower_row + 3u, quad);
    store(b_7, lower_row + 3u, quad + HALF);
}
