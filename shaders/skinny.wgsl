// Dense layer for few rows or columns, by small tiles. For the rest see layer.wgsl and few_rows.wgsl.
// Dispatch one workgroup per tile of 16 rows x 32 columns: (ceil(n / 32), ceil(m / 16), 1). Any m, k, n.
// A row's sum runs over k in order, so its bits do not depend on the other rows, and are those of the other tiles.

@compute @workgroup_size(8, 8, 1)
fn skinny(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) lane: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let sums = sums_over(0u, layer.k, group, lane, index);
    let row = row_of(group, lane);
    let quad = quad_of(group, lane);
    store(sums.upper, row, quad);
    store(sums.lower, row + 1u, quad);
}
