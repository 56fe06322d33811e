// What kernels with one workgroup for each row have in common. A part of them: there is nothing to dispatch here.

// Also in the catalogue; tests/validate.rs checks that the two agree.
const GRID: u32 = 32768u;

const LANES: u32 = 64u;

var<workgroup> shares: array<f32, 64>;

// The sum of what the lanes bring, always added up alike.
fn total(value: f32, lane: u32) -> f32 {
    shares[lane] = value;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane < half {
            shares[lane] += shares[lane + half];
        }
        workgroupBarrier();
    }
    let all = shares[0];
    workgroupBarrier();
    return all;
}
