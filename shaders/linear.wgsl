// Dense layer: result = activated(rows · weights + bias + residual).
// Dispatch one workgroup per tile of 16 rows x 32 columns: (ceil(n / 32), ceil(m / 16), 1). Any m, k, n up to the
// limits of the bindings.
// In:  rows [m, k], residual [m, n], f32 row-major without gaps; weights [k, n] and bias [n], n padded with zeros
// to a multiple of 4. Without a residual anything may be bound in its place.
// Out: result [m, n]. A row's sum runs over k in order, so its bits do not depend on the other rows.
// Within sqrt(k) * 2^-24 * sum|row||weight| of the exact sum, plus 4 ulp and what activation.wgsl says.
struct Layer {
    m: u32,          // rows
    k: u32,
    n: u32,          // columns
    parts: u32,      // WITH_RESIDUAL or nothing
    activation: u32, // by number, 0 for none
    low: f32,        // for the activation
    high: f32,
}
@group(0) @binding(0) var<storage, read> rows: array<f32>;
@group(0) @binding(1) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read_write> result: array<f32>;
var<immediate> layer: Layer;

// Also in the catalogue; tests/validate.rs checks that the two agree.
const TILE_ROWS: u32 = 16u;
const TILE_COLUMNS: u32 = 32u;
const WITH_RESIDUAL: u32 = 1u;

const STEP: u32 = 16u;        // values of k in workgroup memory at a time
const COLUMN_QUADS: u32 = 8u; // TILE_COLUMNS / 4
const LANES: u32 = 64u;

var<workgroup> row_tile: array<f32, 256>;          // TILE_ROWS x STEP
var<workgroup> weight_tile: array<vec4<f32>, 128>; // STEP x COLUMN_QUADS

fn store(sums: vec4<f32>, row: u32, first_column: u32) {
    if row >= layer.m {
        return;
    }
    for (var at = 0u; at < 4u && first_column + at < layer.n; at++) {
        let column = first_column + at;
        var value = sums[at] + bias[column];
        if (layer.parts & WITH_RESIDUAL) != 0u {
            value += residual[row * layer.n + column];
        }
        result[row * layer.n + column] = activated(value, layer.activation, layer.low, layer.high);
    }
}

// Each lane computes two rows of four columns.
@compute @workgroup_size(8, 8, 1)
fn linear(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) lane: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first_row = group.y * TILE_ROWS;
    let first_quad = group.x * COLUMN_QUADS;
    let quads = (layer.n + 3u) / 4u;
    var upper = vec4<f32>();
    var lower = vec4<f32>();

    for (var k = 0u; k < layer.k; k += STEP) {
        for (var at = index; at < TILE_ROWS * STEP; at += LANES) {
            let row = first_row + at / STEP;
            let column = k + at % STEP;
            var value = 0.0;
            if row < layer.m && column < layer.k {
                value = rows[row * layer.k + column];
            }
            row_tile[at] = value;
        }
        for (var at = index; at < STEP * COLUMN_QUADS; at += LANES) {
            let weight_row = k + at / COLUMN_QUADS;
            let quad = first_quad + at % COLUMN_QUADS;
            var weight = vec4<f32>();
            if weight_row < layer.k && quad < quads {
                weight = weights[weight_row * quads + quad];
            }
            weight_tile[at] = weight;
        }
        workgroupBarrier();

        for (var step = 0u; step < STEP; step++) {
            let weight = weight_tile[step * COLUMN_QUADS + lane.x];
            upper = fma(vec4<f32>(row_tile[(2u * lane.y) * STEP + step]), weight, upper);
            lower = fma(vec4<f32>(row_tile[(2u * lane.y + 1u) * STEP + step]), weight, lower);
        }
        workgroupBarrier();
    }

    let row = first_row + 2u * lane.y;
    let column = 4u * (first_quad + lane.x);
    store(upper, row, column);
    store(lower, row + 1u, column);
}
