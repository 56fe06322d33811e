// Weights of a dense layer as f32. A part of its kernels: there is nothing to dispatch here.
// [k, n] row-major, n padded with zeros to a multiple of 4; a quad is four of a row.
@group(0) @binding(1) var<storage, read> weights: array<vec4<f32>>;

fn weight(quad: u32) -> vec4<f32> {
    return weights[quad];
}

fn scaled(sum: f32, column: u32) -> f32 {
    return sum;
}
