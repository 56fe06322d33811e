// Weights of a dense layer as signed bytes, four in a word, the first in its lowest byte; 127 stands for the largest of
// the column, which comes after the bias. A part of its kernels: there is nothing to dispatch here.
// [k, n] row-major, n padded with zeros to a multiple of 4; a quad is four of a row.
// Each weight is within half a step, largest / 254, of itself, which adds that times sum|row| to the bound of a sum.
@group(0) @binding(1) var<storage, read> weights: array<u32>;

fn weight(quad: u32) -> vec4<f32> {
    return unpack4x8snorm(weights[quad]);
}

fn scaled(sum: f32, column: u32) -> f32 {
    return sum * bias[layer.n + column];
}
