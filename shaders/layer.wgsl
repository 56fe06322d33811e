// What the kernels of a dense layer have in common: result = activated(rows · weights + bias + residual).
// A part of them: there is nothing to dispatch here.
// In:  rows [m, k], residual [m, pitch], f32 row-major without gaps; weights as the part for them says; bias [n].
// Without a residual anything may be bound in its place.
// Out: n columns of result [m, pitch], from the first on: weights too large to be bound at once come in panels. Within sqrt(k) * 2^-24 * sum|row||weight| of the exact sum, plus 4 ulp, what activation.wgsl says,
// and what the part for the weights says.
struct Layer {
    m: u32,          // rows
    k: u32,
    n: u32,          // columns of the weights
    pitch: u32,      // columns of the result
    first: u32,      // where those of the weights begin there
    parts: u32,      // WITH_RESIDUAL or nothing
    activation: u32, // by number, 0 for none
    low: f32,        // for the activation
    high: f32,
    pieces: u32,     // of k, for kernels that split it
}
@group(0) @binding(0) var<storage, read> rows: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read_write> result: array<f32>;
var<immediate> layer: Layer;

// Also in the catalogue; tests/validate.rs checks that the two agree.
const WITH_RESIDUAL: u32 = 1u;

// One number of the rows; nothing beyond them.
fn of_row(row: u32, column: u32) -> f32 {
    if row < layer.m && column < layer.k {
        return rows[row * layer.k + column];
    }
    return 0.0;
}

// Four numbers of a row of the weights; nothing beyond them.
fn of_weights(row: u32, quad: u32) -> vec4<f32> {
    let quads = (layer.n + 3u) / 4u;
    if row < layer.k && quad < quads {
        return weight(row * quads + quad);
    }
    return vec4<f32>();
}

// Finishes four sums of a row; what lies beyond the result is left out.
fn store(sums: vec4<f32>, row: u32, quad: u32) {
    if row >= layer.m {
        return;
    }
    for (var at = 0u; at < 4u && 4u * quad + at < layer.n; at++) {
        let column = 4u * quad + at;
        var value = scaled(sums[at], column) + bias[column];
        let place = row * layer.pitch + layer.first + column;
        if (layer.parts & WITH_RESIDUAL) != 0u {
            value += residual[place];
        }
        result[place] = activated(value, layer.activation, layer.low, layer.high);
    }
}
