// Weights of a dense layer as f16, two in a word, the first in its low half. A part of its kernels: there is nothing
// to dispatch here. [k, n] row-major, n padded with zeros to a multiple of 4; a quad is four of a row.
// Each weight is within 2^-11 of itself, which adds 2^-11 * sum|row||weight| to the bound of a sum.
@group(0) @binding(1) var<storage, read> weights: array<vec2<u32>>;

fn weight(quad: u32) -> vec4<f32> {
    let pairs = weights[quad];
    return vec4<f32>(unpack2x16float(pairs.x), unpack2x16float(pairs.y));
}

fn scaled(sum: f32, column: u32) -> f32 {
    return sum;
}
