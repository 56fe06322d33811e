// Norm of each row: result = (row - mean) / sqrt(mean of squares + epsilon) * scale + shift, the layer norm; without
// CENTERED the mean is not subtracted, the RMS norm.
// Dispatch one workgroup per row: (min(rows, GRID), ceil(rows / GRID), 1). Any columns.
// In:  rows [rows, columns] f32 row-major; scale, shift [columns]. Without them anything may be bound in their place.
// Out: result [rows, columns]. Within 2^-24 * (8 + sqrt(columns)) * (|result| + |scale| * (1 + largest of the row /
// root)) of the exact value. A row's bits do not depend on the other rows.
struct Norm {
    rows: u32,
    columns: u32,
    epsilon: f32,
    parts: u32, // CENTERED, WITH_SCALE, WITH_SHIFT, added
}
@group(0) @binding(0) var<storage, read> rows: array<f32>;
@group(0) @binding(1) var<storage, read> scale: array<f32>;
@group(0) @binding(2) var<storage, read> shift: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;
var<immediate> norm: Norm;

// Also in the catalogue; tests/validate.rs checks that the two agree.
const CENTERED: u32 = 1u;
const WITH_SCALE: u32 = 2u;
const WITH_SHIFT: u32 = 4u;

@compute @workgroup_size(64, 1, 1)
fn norm_rows(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * GRID + group.x;
    if row >= norm.rows {
        return;
    }
    let start = row * norm.columns;
    var mean = 0.0;
    if (norm.parts & CENTERED) != 0u {
        var own_sum = 0.0;
        for (var column = lane; column < norm.columns; column += LANES) {
            own_sum += rows[start + column];
        }
        mean = total(own_sum, lane) / f32(norm.columns);
    }
    var own_squares = 0.0;
    for (var column = lane; column < norm.columns; column += LANES) {
        let value = rows[start + column] - mean;
        own_squares = fma(value, value, own_squares);
    }
    let factor = 1.0 / sqrt(total(own_squares, lane) / f32(norm.columns) + norm.epsilon);
    for (var column = lane; column < norm.columns; column += LANES) {
        var value = (rows[start + column] - mean) * factor;
        if (norm.parts & WITH_SCALE) != 0u {
            value *= scale[column];
        }
        if (norm.parts & WITH_SHIFT) != 0u {
            value += shift[column];
        }
        result[start + column] = value;
    }
}
