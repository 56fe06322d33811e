//! Compute shaders, and the catalogue of what a caller has to know about each.
//!
//! A shader is a `.wgsl` file beside `src/`, one per family of kernels, whose header says
//! what it computes. Its entry here repeats, for the code that launches it, the numbers
//! that both sides must agree on; `tests/validate.rs` compares them without a GPU.
//!
//! What holds everywhere in this crate: it imports nothing, does no I/O and knows no GPU API.

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
    /// Text of the shader, WGSL.
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

/// Dense layer, `f32`: rows times weights, plus bias and residual, within bounds. One tile of the result per workgroup.
pub const LINEAR: Kernel = Kernel {
    name: "linear",
    source: include_str!("../linear.wgsl"),
    entry_point: "linear",
    workgroup_size: [8, 8, 1],
    workgroup_bytes: (64 + 128) * 16,
    bindings: &[
        Binding::Read,
        Binding::Read,
        Binding::Read,
        Binding::Read,
        Binding::ReadWrite,
    ],
    immediate_bytes: 24,
    constants: &[
        ("TILE_ROWS", linear::TILE_ROWS),
        ("TILE_COLUMNS", linear::TILE_COLUMNS),
        ("WITH_RESIDUAL", linear::WITH_RESIDUAL),
        ("WITH_LOW", linear::WITH_LOW),
        ("WITH_HIGH", linear::WITH_HIGH),
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
    /// There is a lower bound; a NaN stays one.
    pub const WITH_LOW: u32 = 2;
    /// There is an upper bound; a NaN stays one.
    pub const WITH_HIGH: u32 = 4;
}

/// Every kernel there is.
pub const KERNELS: [Kernel; 1] = [LINEAR];
