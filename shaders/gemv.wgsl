// Dense layer for up to four rows: every weight is read once, by many lanes at a time. For the rest see layer.wgsl.
// Dispatch one workgroup per 32 columns: (ceil(n / 32), 1, 1). m at most 4.
// A sum runs over every 32nd k in order, and then over the 32 sums of a column in order: other last bits than the tiles.

// Also in the catalogue; tests/validate.rs checks that the two agree.
const TILE_ROWS: u32 = 4u;
const TILE_COLUMNS: u32 = 32u;

const COLUMN_QUADS: u32 = 8u; // TILE_COLUMNS / 4
const SLICES: u32 = 32u;      // lanes that share a column

var<workgroup> parts: array<vec4<f32>, 256>;

// The sum of what the slices bring for this lane's columns, in order.
fn total(sum: vec4<f32>, quad: u32, slice: u32) -> vec4<f32> {
    parts[slice * COLUMN_QUADS + quad] = sum;
    workgroupBarrier();
    var all = vec4<f32>();
    if slice == 0u {
        for (var other = 0u; other < SLICES; other++) {
            all += parts[other * COLUMN_QUADS + quad];
        }
    }
    workgroupBarrier();
    return all;
}

@compute @workgroup_size(8, 32, 1)
fn gemv(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
    let quad = group.x * COLUMN_QUADS + lane.x;
    var sum_0 = vec4<f32>();
    var sum_1 = vec4<f32>();
    var sum_2 = vec4<f32>();
    var sum_3 = vec4<f32>();
    for (var k = lane.y; k < layer.k; k += SLICES) {
        let four = of_weights(k, quad);
        sum_0 = fma(vec4<f32>(of_row(0u, k)), four, sum_0);
        if layer.m > 1u {
            sum_1 = fma(vec4<f32>(of_row(1u, k)), four, sum_1);
            sum_2 = fma(vec4<f32>(of_row(2u, k)), four, sum_2);
            sum_3 = fma(vec4<f32>(of_row(3u, k)), four, sum_3);
        }
    }
    let all_0 = total(sum_0, lane.x, lane.y);
    let all_1 = total(sum_1, lane.x, lane.y);
    let all_2 = total(sum_2, lane.x, lane.y);
    let all_3 = total(sum_3, lane.x, lane.y);
    if lane.y == 0u {
        store(all_0, 0u, quad);
        store(all_1, 1u, quad);
        store(all_2, 2u, quad);
        store(all_3, 3u, quad);
    }
}
