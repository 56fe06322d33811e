// Adds up the pieces of sums that split.wgsl made, in order, and finishes them. For the rest see layer.wgsl.
// Dispatch one workgroup per 64 quads of the result: (ceil(m * ceil(n / 4) / 64), 1, 1).
// In: rows [pieces, m, n padded to a multiple of 4], the sums; the weights are not read.
// The pieces depend on m, and so do the last bits.

@compute @workgroup_size(64, 1, 1)
fn joined(@builtin(global_invocation_id) lane: vec3<u32>) {
    let quads = (layer.n + 3u) / 4u;
    let row = lane.x / quads;
    let quad = lane.x % quads;
    if row >= layer.m {
        return;
    }
    var sums = vec4<f32>();
    for (var piece = 0u; piece < layer.pieces; piece++) {
        let place = 4u * ((piece * layer.m + row) * quads + quad);
        sums += vec4<f32>(rows[place], rows[place + 1u], rows[place + 2u], rows[place + 3u]);
    }
    store(sums, row, quad);
}
