// Dense layer for few rows, where the tiles alone would leave most of a card idle: each is shared by several
// workgroups, which take a piece of k each. The first of two kernels; joined.wgsl adds the pieces up.
// For the rest see layer.wgsl and few_rows.wgsl.
// Dispatch one workgroup per tile of 16 rows x 32 columns and piece: (ceil(n / 32), ceil(m / 16), pieces).
// Out: result [pieces, m, n padded to a multiple of 4], the bare sums; nothing else is done to them.

// So that a piece begins where a step does.
fn piece_length() -> u32 {
    let steps = (layer.k + STEP - 1u) / STEP;
    return (steps + layer.pieces - 1u) / layer.pieces * STEP;
}

fn keep(sums: vec4<f32>, piece: u32, row: u32, quad: u32) {
    let quads = (layer.n + 3u) / 4u;
    if row >= layer.m || quad >= quads {
        return;
    }
    let place = 4u * ((piece * layer.m + row) * quads + quad);
    result[place] = sums.x;
    result[place + 1u] = sums.y;
    result[place + 2u] = sums.z;
    result[place + 3u] = sums.w;
}

@compute @workgroup_size(8, 8, 1)
fn split(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) lane: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let begin = min(group.z * piece_length(), layer.k);
    let end = min(begin + piece_length(), layer.k);
    let sums = sums_over(begin, end, group, lane, index);
    let row = row_of(group, lane);
    let quad = quad_of(group, lane);
    keep(sums.upper, group.z, row, quad);
    keep(sums.lower, group.z, row + 1u, quad);
}
