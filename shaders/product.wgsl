// Products of matrices that are both computed, as attention needs them: result = left · right, one for each of
// outer x inner pairs. Every axis has a stride of its own, so transposed and interleaved matrices need no copy.
// Dispatch one workgroup per tile of 32 rows x 32 columns and pair: (ceil(n / 32), ceil(m / 32), outer * inner).
// In:  left, right, f32; element (outer, inner, row, step) of the left one lies at its first place + the sum of
// index x stride: each may be some columns of a wider matrix.
// Out: result, alike. An element's sum runs over k in order, whatever stands beside it.
// Within sqrt(k) * 2^-24 * sum|left||right| of the exact sum, plus 1 ulp.
struct Product {
    m: u32,
    k: u32,
    n: u32,
    inner: u32, // pairs that share an outer index
    left_outer: u32,
    left_inner: u32,
    left_row: u32,
    left_step: u32,
    right_outer: u32,
    right_inner: u32,
    right_step: u32,
    right_column: u32,
    result_outer: u32,
    result_inner: u32,
    result_row: u32,
    result_column: u32,
    left_first: u32, // where the first element lies
    right_first: u32,
}
@group(0) @binding(0) var<storage, read> left: array<f32>;
@group(0) @binding(1) var<storage, read> right: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
var<immediate> product: Product;

// Also in the catalogue; tests/validate.rs checks that the two agree.
const TILE_ROWS: u32 = 32u;
const TILE_COLUMNS: u32 = 32u;

const STEP: u32 = 8u; // values of k in workgroup memory at a time
const LANES: u32 = 64u;

var<workgroup> left_tile: array<vec4<f32>, 64>;  // STEP x (TILE_ROWS / 4): four rows in a register
var<workgroup> right_tile: array<vec4<f32>, 64>; // STEP x (TILE_COLUMNS / 4)

fn store(values: vec4<f32>, start: u32, row: u32, first_column: u32) {
    if row >= product.m {
        return;
    }
    for (var at = 0u; at < 4u && first_column + at < product.n; at++) {
        result[start + row * product.result_row + (first_column + at) * product.result_column] = values[at];
    }
}

// Each lane computes four rows of four columns.
@compute @workgroup_size(8, 8, 1)
fn product_of_pairs(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) lane: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let outer = group.z / product.inner;
    let inner = group.z % product.inner;
    let left_start = product.left_first + outer * product.left_outer + inner * product.left_inner;
    let right_start = product.right_first + outer * product.right_outer + inner * product.right_inner;
    let first_row = group.y * TILE_ROWS;
    let first_column = group.x * TILE_COLUMNS;
    var sums_0 = vec4<f32>();
    var sums_1 = vec4<f32>();
    var sums_2 = vec4<f32>();
    var sums_3 = vec4<f32>();

    for (var k = 0u; k < product.k; k += STEP) {
        // A lane brings four rows, and four columns, of one step.
        let step = index / 8u;
        let place = 4u * (index % 8u);
        var rows = vec4<f32>();
        var columns = vec4<f32>();
        for (var at = 0u; at < 4u; at++) {
            let row = first_row + place + at;
            if row < product.m && k + step < product.k {
                rows[at] = left[left_start + row * product.left_row + (k + step) * product.left_step];
            }
            let column = first_column + place + at;
            if column < product.n && k + step < product.k {
                columns[at] = right[right_start + (k + step) * product.right_step + column * product.right_column];
            }
        }
        left_tile[index] = rows;
        right_tile[index] = columns;
        workgroupBarrier();

        for (var at = 0u; at < STEP; at++) {
            let four = left_tile[at * 8u + lane.y];
            let columns_of_step = right_tile[at * 8u + lane.x];
            sums_0 = fma(vec4<f32>(four.x), columns_of_step, sums_0);
            sums_1 = fma(vec4<f32>(four.y), columns_of_step, sums_1);
            sums_2 = fma(vec4<f32>(four.z), columns_of_step, sums_2);
            sums_3 = fma(vec4<f32>(four.w), columns_of_step, sums_3);
        }
        workgroupBarrier();
    }

    let start = outer * product.result_outer + inner * product.result_inner;
    let row = first_row + 4u * lane.y;
    let column = first_column + 4u * lane.x;
    store(sums_0, start, row, column);
    store(sums_1, start, row + 1u, column);
    store(sums_2, start, row + 2u, column);
    store(sums_3, start, row + 3u, column);
}
