//! Compute shaders, and the catalogue of what a caller has to know about each.
//!
//! A shader is a `.wgsl` file beside `src/`, one per family of kernels, whose header says
//! what it computes; what several have in common is a file of its own, put in front of them.
//! Its entry here repeats, for the code that launches it, the numbers that both sides must
//! agree on; `tests/validate.rs` compares them without a GPU.
//!
//! What holds everywhere in this crate: it imports nothing, does no I/O and knows no GPU API.

use Binding::{Read, ReadWrite};

/// How a kernel uses the storage buffer bound at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// It only reads.
    Read,
    /// It reads and writes.
    ReadWrite,
}

/// One entry point of one shader.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// The shader's file name without its ending.
    pub name: &'static str,
    /// Text of the shader, WGSL, with the parts it shares with others.
    pub source: &'static str,
    /// Function to launch.
    pub entry_point: &'static str,
    /// Threads of a workgroup in x, y and z.
    pub workgroup_size: [u32; 3],
    /// Bytes of workgroup memory. WebGPU guarantees 16 384.
    pub workgroup_bytes: u32,
    /// Storage buffers of group 0, in the order of their binding numbers from 0 on.
    pub bindings: &'static [Binding],
    /// Bytes of the `var<immediate>` block, 0 if there is none. It needs the feature `IMMEDIATES`.
    pub immediate_bytes: u32,
    /// Constants of the shader that its caller relies on, by name.
    pub constants: &'static [(&'static str, u32)],
}

/// Dense layer: rows times weights, plus bias and residual, through an activation. One tile of the result per workgroup.
pub const LINEAR: Kernel = Kernel {
    name: "linear",
    source: concat!(
        include_str!("../activation.wgsl"),
        include_str!("../linear.wgsl")
    ),
    entry_point: "linear",
    workgroup_size: [8, 8, 1],
    workgroup_bytes: 256 * 4 + 128 * 16,
    bindings: &[Read, Read, Read, Read, ReadWrite],
    immediate_bytes: 28,
    constants: &[
        ("TILE_ROWS", linear::TILE_ROWS),
        ("TILE_COLUMNS", linear::TILE_COLUMNS),
        ("WITH_RESIDUAL", linear::WITH_RESIDUAL),
        ("CLIP", activation::CLIP),
        ("GELU", activation::GELU),
        ("GELU_TANH", activation::GELU_TANH),
        ("SIGMOID", activation::SIGMOID),
        ("TANH", activation::TANH),
        ("SILU", activation::SILU),
        ("HARD_SWISH", activation::HARD_SWISH),
        ("LEAKY_RELU", activation::LEAKY_RELU),
    ],
};

/// Constants of [`LINEAR`].
pub mod linear {
    /// Rows of the result that one workgroup computes.
    pub const TILE_ROWS: u32 = 16;
    /// Columns of the result that one workgroup computes.
    pub const TILE_COLUMNS: u32 = 32;
    /// There is a residual to add.
    pub const WITH_RESIDUAL: u32 = 1;
}

/// Numbers of the activations, which [`LINEAR`] and [`ELEMENTWISE`] have in common; 0 is none.
pub mod activation {
    /// Within two bounds; a NaN stays one, as with all of them.
    pub const CLIP: u32 = 1;
    /// `x / 2 * (1 + erf(x / sqrt(2)))`.
    pub const GELU: u32 = 2;
    /// The same with the hyperbolic tangent in place of the error function.
    pub const GELU_TANH: u32 = 3;
    /// `1 / (1 + exp(-x))`.
    pub const SIGMOID: u32 = 4;
    /// The hyperbolic tangent.
    pub const TANH: u32 = 5;
    /// `x * sigmoid(x)`.
    pub const SILU: u32 = 6;
    /// `x * clip(x / 6 + 1 / 2, 0, 1)`.
    pub const HARD_SWISH: u32 = 7;
    /// Negative numbers times a factor.
    pub const LEAKY_RELU: u32 = 8;
}

/// Products of matrices that are both computed, with a stride for each axis. One tile of a result per workgroup.
pub const PRODUCT: Kernel = Kernel {
    name: "product",
    source: include_str!("../product.wgsl"),
    entry_point: "product_of_pairs",
    workgroup_size: [8, 8, 1],
    workgroup_bytes: 2 * 64 * 16,
    bindings: &[Read, Read, ReadWrite],
    immediate_bytes: 64,
    constants: &[
        ("TILE_ROWS", product::TILE_ROWS),
        ("TILE_COLUMNS", product::TILE_COLUMNS),
    ],
};

/// Constants of [`PRODUCT`].
pub mod product {
    /// Rows of a result that one workgroup computes.
    pub const TILE_ROWS: u32 = 32;
    /// Columns of a result that one workgroup computes.
    pub const TILE_COLUMNS: u32 = 32;
}

/// Most workgroups along x for kernels with one workgroup per row, or per 64 elements; more go along y.
pub const GRID: u32 = 32_768;

/// Softmax of each row, scaled and masked. One row per workgroup.
pub const SOFTMAX: Kernel = Kernel {
    name: "softmax",
    source: include_str!("../softmax.wgsl"),
    entry_point: "softmax_rows",
    workgroup_size: [64, 1, 1],
    workgroup_bytes: 64 * 4,
    bindings: &[Read, Read, ReadWrite],
    immediate_bytes: 40,
    constants: &[("GRID", GRID)],
};

/// Layer norm or RMS norm of each row. One row per workgroup.
pub const NORM: Kernel = Kernel {
    name: "norm",
    source: include_str!("../norm.wgsl"),
    entry_point: "norm_rows",
    workgroup_size: [64, 1, 1],
    workgroup_bytes: 64 * 4,
    bindings: &[Read, Read, Read, ReadWrite],
    immediate_bytes: 16,
    constants: &[
        ("GRID", GRID),
        ("CENTERED", norm::CENTERED),
        ("WITH_SCALE", norm::WITH_SCALE),
        ("WITH_SHIFT", norm::WITH_SHIFT),
    ],
};

/// Constants of [`NORM`].
pub mod norm {
    /// The mean of the row is subtracted first.
    pub const CENTERED: u32 = 1;
    /// There is a factor for each column.
    pub const WITH_SCALE: u32 = 2;
    /// There is a number to add for each column.
    pub const WITH_SHIFT: u32 = 4;
}

/// Sums, differences, products and activations, element by element.
pub const ELEMENTWISE: Kernel = Kernel {
    name: "elementwise",
    source: concat!(
        include_str!("../activation.wgsl"),
        include_str!("../elementwise.wgsl")
    ),
    entry_point: "each_element",
    workgroup_size: [64, 1, 1],
    workgroup_bytes: 0,
    bindings: &[Read, Read, ReadWrite],
    immediate_bytes: 48,
    constants: &[
        ("GRID", GRID),
        ("LANES", elementwise::LANES),
        ("ADD", elementwise::ADD),
        ("SUBTRACT", elementwise::SUBTRACT),
        ("SUBTRACT_FROM", elementwise::SUBTRACT_FROM),
        ("MULTIPLY", elementwise::MULTIPLY),
    ],
};

/// Constants of [`ELEMENTWISE`].
pub mod elementwise {
    /// Elements of a workgroup.
    pub const LANES: u32 = 64;
    /// `left + right`.
    pub const ADD: u32 = 1;
    /// `left - right`.
    pub const SUBTRACT: u32 = 2;
    /// `right - left`.
    pub const SUBTRACT_FROM: u32 = 3;
    /// `left * right`.
    pub const MULTIPLY: u32 = 4;
}

/// Every kernel there is.
pub const KERNELS: [Kernel; 5] = [LINEAR, PRODUCT, SOFTMAX, NORM, ELEMENTWISE];

/// Files that are no kernels, but part of some.
pub const PARTS: [&str; 1] = ["activation"];
