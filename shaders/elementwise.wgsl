// Element by element: result = activated(left with right), where `with` is +, -, * or nothing.
// Dispatch one workgroup per 64 elements: (min(groups, GRID), ceil(groups / GRID), 1).
// In:  left [count] f32; right, which an element finds by its place in the last four axes: index x stride, added up,
// with a stride of 0 along axes it is spread over. Without one anything may be bound in its place.
// Out: result [count]. Within 1 ulp, and what activation.wgsl says.
struct Elementwise {
    count: u32,
    combine: u32,    // ADD, SUBTRACT, SUBTRACT_FROM, MULTIPLY, or 0 for nothing
    activation: u32, // by number, 0 for none
    low: f32,        // for the activation
    high: f32,
    second: u32,     // sizes of the last three axes
    third: u32,
    fourth: u32,
    right_first: u32, // strides of the right one along the last four
    right_second: u32,
    right_third: u32,
    right_fourth: u32,
}
@group(0) @binding(0) var<storage, read> left: array<f32>;
@group(0) @binding(1) var<storage, read> right: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
var<immediate> elementwise: Elementwise;

// Also in the catalogue; tests/validate.rs checks that the two agree.
const GRID: u32 = 32768u;
const LANES: u32 = 64u;
const ADD: u32 = 1u;
const SUBTRACT: u32 = 2u;
const SUBTRACT_FROM: u32 = 3u;
const MULTIPLY: u32 = 4u;

fn partner(element: u32) -> f32 {
    let third = element / elementwise.fourth;
    let second = third / elementwise.third;
    return right[element % elementwise.fourth * elementwise.right_fourth
        + third % elementwise.third * elementwise.right_third
        + second % elementwise.second * elementwise.right_second
        + second / elementwise.second * elementwise.right_first];
}

@compute @workgroup_size(64, 1, 1)
fn each_element(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let element = (group.y * GRID + group.x) * LANES + lane;
    if element >= elementwise.count {
        return;
    }
    var value = left[element];
    switch elementwise.combine {
        case ADD: { value += partner(element); }
        case SUBTRACT: { value -= partner(element); }
        case SUBTRACT_FROM: { value = partner(element) - value; }
        case MULTIPLY: { value *= partner(element); }
        default: {}
    }
    result[element] = activated(value, elementwise.activation, elementwise.low, elementwise.high);
}
