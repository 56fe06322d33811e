// Dense layer for many rows by the card's own products of small matrices: f16 by f16, summed up in f32.
// For the rest see layer.wgsl; the size of the matrices is in a part before this one.
// Dispatch one workgroup per tile of 64 x 64: (ceil(n / 64), ceil(m / 64), 1). Any m, k, n.
// Rows are rounded to f16 and bounded by 65 504, which adds to the bound of a sum 2^-11 * sum|row||weight|,
// 2^-25 * sum|weight|, and what lies beyond the bound. The card chooses the order of a sum.

// Also in the catalogue; tests/validate.rs checks that the two agree.
const TILE_ROWS: u32 = 64u;
const TILE_COLUMNS: u32 = 64u;

const STEP: u32 = 16u;       // values of k in workgroup memory at a time
const PARTS: u32 = 4u;       // matrices of sums that a subgroup has beside each other
const LARGEST: f32 = 65504.0;
const LARGEST_F32: f32 = 3.4028234e38;

var<workgroup> row_tile: array<f16, 1024>;    // TILE_ROWS x STEP
var<workgroup> weight_tile: array<f16, 1024>; // STEP x PARTS * SIZE
var<workgroup> sums_tile: array<f32, 1024>;   // TILE_ROWS x SIZE

// As f16 has it; what is infinite or a NaN stays so.
fn half(value: f32) -> f16 {
    let bounded = clip(value, -LARGEST, LARGEST);
    return f16(select(bounded, value, abs(value) > LARGEST_F32));
}

// Finishes the sums in workgroup memory: TILE_ROWS rows of SIZE columns.
fn finish(first_row: u32, first_quad: u32, index: u32) {
    workgroupBarrier();
    let quads = SIZE / 4u;
    for (var at = index; at < TILE_ROWS * quads; at += LANES) {
        let place = 4u * at;
        let four = vec4<f32>(sums_tile[place], sums_tile[place + 1u], sums_tile[place + 2u], sums_tile[place + 3u]);
        store(four, first_row + at / quads, first_quad + at % quads);
    }
    workgroupBarrier();
}

// Each subgroup computes SIZE rows.
@compute @workgroup_size(LANES, 1, 1)
fn cooperative(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let first_row = group.y * TILE_ROWS;
    let columns = PARTS * SIZE;
    for (var start = 0u; start < TILE_COLUMNS; start += columns) {
        let first_quad = (group.x * TILE_COLUMNS + start) / 4u;
        var sums_0 = Sums();
        var sums_1 = Sums();
        var sums_2 = Sums();
        var sums_3 = Sums();

        for (var k = 0u; k < layer.k; k += STEP) {
            for (var at = index; at < TILE_ROWS * STEP; at += LANES) {
                row_tile[at] = half(of_row(first_row + at / STEP, k + at % STEP));
            }
            for (var at = index; at < STEP * SIZE; at += LANES) {
                let four = of_weights(k + at / SIZE, first_quad + at % SIZE);
                weight_tile[4u * at] = f16(four.x);
                weight_tile[4u * at + 1u] = f16(four.y);
                weight_tile[4u * at + 2u] = f16(four.z);
                weight_tile[4u * at + 3u] = f16(four.w);
            }
            workgroupBarrier();

            for (var inner = 0u; inner < STEP; inner += SIZE) {
                let left = coopLoadT<Left>(&row_tile[subgroup * SIZE * STEP + inner], STEP);
                let first = inner * columns;
                sums_0 = coopMultiplyAdd(left, coopLoadT<Right>(&weight_tile[first], columns), sums_0);
                sums_1 = coopMultiplyAdd(left, coopLoadT<Right>(&weight_tile[first + SIZE], columns), sums_1);
                sums_2 = coopMultiplyAdd(left, coopLoadT<Right>(&weight_tile[first + 2u * SIZE], columns), sums_2);
                sums_3 = coopMultiplyAdd(left, coopLoadT<Right>(&weight_tile[first + 3u * SIZE], columns), sums_3);
            }
            workgroupBarrier();
        }

        let own = subgroup * SIZE * SIZE;
        coopStoreT(sums_0, &sums_tile[own], SIZE);
        finish(first_row, first_quad, index);
        coopStoreT(sums_1, &sums_tile[own], SIZE);
        finish(first_row, first_quad + SIZE / 4u, index);
        coopStoreT(sums_2, &sums_tile[own], SIZE);
        finish(first_row, first_quad + SIZE / 2u, index);
        coopStoreT(sums_3, &sums_tile[own], SIZE);
        finish(first_row, first_quad + 3u * SIZE / 4u, index);
    }
}
