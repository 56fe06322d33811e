// Softmax of each row: result = softmax(scores * scale + mask) along the last axis.
// Dispatch one workgroup per row: (min(rows, GRID), ceil(rows / GRID), 1). Any columns.
// In:  scores [rows, columns] f32 row-major; mask, which a row finds by its place in the last three of the axes
// that are rows: index x stride, added up. Without a mask anything may be bound in its place.
// Out: result [rows, columns]. The maximum is subtracted first, so nothing overflows; a row with a NaN is NaN
// throughout. Within (32 + columns / 8 + 8 |largest score|) * 2^-24 of the exact value, relatively, and 1e-35 absolutely;
// that leaves room for exponentials of 3 + 2 |x| ulp, as WGSL allows them. A row's bits do not depend on the other rows.
// Source: the three passes of Milakov and Gimelshein, arXiv:1805.02867.
struct Softmax {
    rows: u32,
    columns: u32,
    scale: f32,
    masked: u32,    // 1 if there is a mask
    middle: u32,    // sizes of the last two axes that are rows
    last: u32,
    mask_outer: u32, // strides of the mask along the axes that are rows, and along a row
    mask_middle: u32,
    mask_last: u32,
    mask_column: u32,
}
@group(0) @binding(0) var<storage, read> scores: array<f32>;
@group(0) @binding(1) var<storage, read> mask: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
var<immediate> softmax: Softmax;

fn score(start: u32, mask_start: u32, column: u32) -> f32 {
    let value = scores[start + column] * softmax.scale;
    if softmax.masked == 0u {
        return value;
    }
    return value + mask[mask_start + column * softmax.mask_column];
}

fn largest(value: f32, lane: u32) -> f32 {
    shares[lane] = value;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane < half {
            shares[lane] = max(shares[lane], shares[lane + half]);
        }
        workgroupBarrier();
    }
    let all = shares[0];
    workgroupBarrier();
    return all;
}

@compute @workgroup_size(64, 1, 1)
fn softmax_rows(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * GRID + group.x;
    if row >= softmax.rows {
        return;
    }
    let start = row * softmax.columns;
    let mask_start = row % softmax.last * softmax.mask_last
        + row / softmax.last % softmax.middle * softmax.mask_middle
        + row / softmax.last / softmax.middle * softmax.mask_outer;
    var own_largest = -3.4028235e38;
    for (var column = lane; column < softmax.columns; column += LANES) {
        own_largest = max(own_largest, score(start, mask_start, column));
    }
    let row_largest = largest(own_largest, lane);
    var own_sum = 0.0;
    for (var column = lane; column < softmax.columns; column += LANES) {
        let value = exp(score(start, mask_start, column) - row_largest);
        own_sum += value;
        result[start + column] = value;
    }
    let factor = 1.0 / total(own_sum, lane);
    for (var column = lane; column < softmax.columns; column += LANES) {
        result[start + column] *= factor;
    }
}
