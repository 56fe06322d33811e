// Activations, by number, for shaders that store results. A part of them: there is nothing to dispatch here.
// `low` and `high` are bounds for CLIP; LEAKY_RELU multiplies what is negative by `low`.
// A NaN stays one. Within 4e-7 * max(1, |argument|) and 4 ulp of the result; CLIP is exact.

// Also in the catalogue; tests/validate.rs checks that the two agree.
const CLIP: u32 = 1u;
const GELU: u32 = 2u;
const GELU_TANH: u32 = 3u;
const SIGMOID: u32 = 4u;
const TANH: u32 = 5u;
const SILU: u32 = 6u;
const HARD_SWISH: u32 = 7u;
const LEAKY_RELU: u32 = 8u;

// Not max() and min(): WGSL lets them turn a NaN into a number, which would hide that the row is spoiled.
fn clip(value: f32, low: f32, high: f32) -> f32 {
    let raised = select(value, low, value < low);
    return select(raised, high, raised > high);
}

// Abramowitz and Stegun, 7.1.26: within 1.5e-7.
fn erf(value: f32) -> f32 {
    let size = abs(value);
    let t = 1.0 / fma(0.3275911, size, 1.0);
    let sum = fma(fma(fma(fma(1.061405429, t, -1.453152027), t, 1.421413741), t, -0.284496736), t, 0.254829592);
    let positive = 1.0 - sum * t * exp(-size * size);
    return select(positive, -positive, value < 0.0);
}

// Drivers may divide infinity by infinity; beyond 9 the result is 1 to the last bit.
fn bounded_tanh(value: f32) -> f32 {
    return tanh(clip(value, -9.5, 9.5));
}

fn sigmoid(value: f32) -> f32 {
    return 1.0 / (1.0 + exp(-value));
}

fn activated(value: f32, activation: u32, low: f32, high: f32) -> f32 {
    switch activation {
        case CLIP: { return clip(value, low, high); }
        case GELU: { return 0.5 * value * (1.0 + erf(value * 0.70710678)); }
        case GELU_TANH: {
            let inner = 0.79788456 * fma(0.044715 * value * value, value, value);
            return 0.5 * value * (1.0 + bounded_tanh(inner));
        }
        case SIGMOID: { return sigmoid(value); }
        case TANH: { return bounded_tanh(value); }
        case SILU: { return value * sigmoid(value); }
        case HARD_SWISH: { return value * clip(fma(value, 0.16666667, 0.5), 0.0, 1.0); }
        case LEAKY_RELU: { return select(value, low * value, value < 0.0); }
        default: { return value; }
    }
}
