// Dense layer: result = bounded(rows · weights + bias + residual).
// Dispatch one workgroup per tile of 16 rows x 32 columns: (ceil(n / 32), ceil(m / 16), 1). Any m, k, n up to the
// limits of the bindings.
// In:  rows [m, k], weights [k, n], bias [n], residual [m, n], f32 row-major; k and n are padded with zeros to
// multiples of 4. Without a residual anything may be bound in its place.
// Out: result [m, n], same padding. A row's sum runs over k in order, so its bits do not depend on the other rows.
// Within sqrt(k) * 2^-24 * sum|row||weight| of the exact sum, plus 4 ulp for what comes after it.
struct Layer {
    m: u32,       // rows
    k_quads: u32, // k / 4
    n_quads: u32, // n / 4
    parts: u32,   // which of residual and bounds there are: the constants below, added
    low: f32,     // bounds
    high: f32,
}
@group(0) @binding(0) var<storage, read> rows: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> residual: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> result: array<vec4<f32>>;
var<immediate> layer: Layer;

// Also in the catalogue; tests/validate.rs checks that the two agree.
const TILE_ROWS: u32 = 16u;
const TILE_COLUMNS: u32 = 32u;
const WITH_RESIDUAL: u32 = 1u;
const WITH_LOW: u32 = 2u;
const WITH_HIGH: u32 = 4u;

const K_QUADS: u32 = 4u;      // four times four values of k are in workgroup memory at a time
const COLUMN_QUADS: u32 = 8u; // TILE_COLUMNS / 4
const LANES: u32 = 64u;

var<workgroup> row_tile: array<vec4<f32>, 64>;     // TILE_ROWS x K_QUADS
var<workgroup> weight_tile: array<vec4<f32>, 128>; // (4 * K_QUADS) x COLUMN_QUADS

// Not max() and min(): WGSL lets them turn a NaN into a number, which would hide that the row is spoiled.
fn bounded(sum: vec4<f32>) -> vec4<f32> {
    var value = sum;
    if (layer.parts & WITH_LOW) != 0u {
        value = select(value, vec4<f32>(layer.low), value < vec4<f32>(layer.low));
    }
    if (layer.parts & WITH_HIGH) != 0u {
        value = select(value, vec4<f32>(layer.high), value > vec4<f32>(layer.high));
    }
    return value;
}

fn finished(sum: vec4<f32>, row: u32, quad: u32) -> vec4<f32> {
    var value = sum + bias[quad];
    if (layer.parts & WITH_RESIDUAL) != 0u {
        value += residual[row * layer.n_quads + quad];
    }
    return bounded(value);
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
    var upper = vec4<f32>();
    var lower = vec4<f32>();

    for (var k = 0u; k < layer.k_quads; k += K_QUADS) {
        let row = first_row + index / K_QUADS;
        let row_quad = k + index % K_QUADS;
        var row_value = vec4<f32>();
        if row < layer.m && row_quad < layer.k_quads {
            row_value = rows[row * layer.k_quads + row_quad];
        }
        row_tile[index] = row_value;

        for (var at = index; at < 4u * K_QUADS * COLUMN_QUADS; at += LANES) {
            let weight_row = 4u * k + at / COLUMN_QUADS;
            let quad = first_quad + at % COLUMN_QUADS;
            var weight = vec4<f32>();
            if weight_row < 4u * layer.k_quads && quad < layer.n_quads {
                weight = weights[weight_row * layer.n_quads + quad];
            }
            weight_tile[at] = weight;
        }
        workgroupBarrier();

        for (var step = 0u; step < K_QUADS; step++) {
            let a = row_tile[(2u * lane.y) * K_QUADS + step];
            let b = row_tile[(2u * lane.y + 1u) * K_QUADS + step];
            let w0 = weight_tile[(4u * step) * COLUMN_QUADS + lane.x];
            let w1 = weight_tile[(4u * step + 1u) * COLUMN_QUADS + lane.x];
            let w2 = weight_tile[(4u * step + 2u) * COLUMN_QUADS + lane.x];
            let w3 = weight_tile[(4u * step + 3u) * COLUMN_QUADS + lane.x];
            upper = fma(vec4<f32>(a.x), w0, upper);
            upper = fma(vec4<f32>(a.y), w1, upper);
            upper = fma(vec4<f32>(a.z), w2, upper);
            upper = fma(vec4<f32>(a.w), w3, upper);
            lower = fma(vec4<f32>(b.x), w0, lower);
            lower = fma(vec4<f32>(b.y), w1, lower);
            lower = fma(vec4<f32>(b.z), w2, lower);
            lower = fma(vec4<f32>(b.w), w3, lower);
        }
        workgroupBarrier();
    }

    let quad = first_quad + lane.x;
    if quad < layer.n_quads {
        let row = first_row + 2u * lane.y;
        if row < layer.m {
            result[row * layer.n_quads + quad] = finished(upper, row, quad);
        }
        if row + 1u < layer.m {
            result[(row + 1u) * layer.n_quads + quad] = finished(lower, row + 1u, quad);
        }
    }
}
