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
    /// Names it among all kernels.
    pub name: &'static str,
    /// The files its text is made of, without their ending; the last is its own.
    pub files: &'static [&'static str],
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

/// Kernels of a dense layer, `activated(rows · weights + bias + residual)`: each for a number of rows it is best at,
/// and each for weights of three kinds. All tiles add up alike, bit by bit; [`Tile::Gemv`] and [`Tile::Split`] do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tile {
    /// Up to four rows.
    Gemv,
    /// Few rows, or few columns.
    Skinny,
    /// Up to 64 rows, and so few tiles that several workgroups share each; [`joined`] follows it.
    Split,
    /// Tiles of 64 x 64.
    Tile64,
    /// Tiles of 128 x 128.
    Tile128,
    /// Tiles of 64 x 64, where the card multiplies matrices of f16 by itself; see [`COOPERATIVE`].
    Cooperative,
}

/// How the weights of a dense layer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weights {
    /// As they are.
    #[default]
    F32,
    /// Half of the bytes, each within 2^-11 of itself.
    F16,
    /// The same, and [`Tile::Cooperative`] may take the rows as f16 too: each number within 2^-11 of itself and
    /// of at most 65 504.
    Half,
    /// A quarter of the bytes, each within half a step of 1 / 127 of the largest of its column.
    Int8,
}

impl Tile {
    /// Those that every card has.
    pub const ALL: [Tile; 5] = [
        Tile::Gemv,
        Tile::Skinny,
        Tile::Split,
        Tile::Tile64,
        Tile::Tile128,
    ];

    /// As reports and files have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Tile::Gemv => "gemv",
            Tile::Skinny => "skinny",
            Tile::Split => "split",
            Tile::Tile64 => "tile64",
            Tile::Tile128 => "tile128",
            Tile::Cooperative => "cooperative",
        }
    }

    /// Most rows that it can do.
    #[must_use]
    pub const fn most_rows(self) -> usize {
        match self {
            Tile::Gemv => self.size()[0] as usize,
            Tile::Split => 4 * self.size()[0] as usize,
            Tile::Skinny | Tile::Tile64 | Tile::Tile128 | Tile::Cooperative => usize::MAX,
        }
    }

    /// Whether so many rows may be worth a try on it: it can, and a quarter of its rows have something to do.
    #[must_use]
    pub const fn suits(self, rows: usize) -> bool {
        let filled = match self {
            Tile::Gemv | Tile::Skinny | Tile::Split => true,
            Tile::Tile64 | Tile::Tile128 | Tile::Cooperative => 4 * rows >= self.size()[0] as usize,
        };
        filled && rows <= self.most_rows()
    }

    /// Rows and columns of the result that one workgroup computes.
    #[must_use]
    pub const fn size(self) -> [u32; 2] {
        match self {
            Tile::Gemv => [4, 32],
            Tile::Skinny | Tile::Split => [16, 32],
            Tile::Tile64 | Tile::Cooperative => [64, 64],
            Tile::Tile128 => [128, 128],
        }
    }
}

impl Weights {
    /// All of them.
    pub const ALL: [Weights; 4] = [Weights::F32, Weights::F16, Weights::Half, Weights::Int8];
}

/// The kernel of a dense layer; none for [`Tile::Cooperative`], which depends on the card.
#[must_use]
pub fn linear(tile: Tile, weights: Weights) -> Option<&'static Kernel> {
    let of_tile = match tile {
        Tile::Gemv => &GEMV,
        Tile::Skinny => &SKINNY,
        Tile::Split => &SPLIT,
        Tile::Tile64 => &TILE64,
        Tile::Tile128 => &TILE128,
        Tile::Cooperative => return None,
    };
    Some(for_weights(of_tile, weights))
}

/// What follows [`Tile::Split`]: adds its pieces up and finishes the layer.
#[must_use]
pub fn joined(weights: Weights) -> &'static Kernel {
    for_weights(&JOINED, weights)
}

fn for_weights(kernels: &'static [Kernel; 3], weights: Weights) -> &'static Kernel {
    match weights {
        Weights::F32 => &kernels[0],
        Weights::F16 | Weights::Half => &kernels[1],
        Weights::Int8 => &kernels[2],
    }
}

/// A kernel of a dense layer: its name, entry point, files, constants beside those of all of them, lanes and bytes
/// of a workgroup.
macro_rules! layer {
    ($name:expr, $entry:literal, [$($file:literal),*], [$($constant:expr),*], $lanes:expr, $bytes:expr) => {
        Kernel {
            name: $name,
            files: &[$($file),*],
            source: concat!($(include_str!(concat!("../", $file, ".wgsl"))),*),
            entry_point: $entry,
            workgroup_size: $lanes,
            workgroup_bytes: $bytes,
            bindings: &[Read, Read, Read, Read, ReadWrite],
            immediate_bytes: 40,
            constants: &[
                $($constant,)*
                ("WITH_RESIDUAL", WITH_RESIDUAL),
                ("CLIP", activation::CLIP),
                ("GELU", activation::GELU),
                ("GELU_TANH", activation::GELU_TANH),
                ("SIGMOID", activation::SIGMOID),
                ("TANH", activation::TANH),
                ("SILU", activation::SILU),
                ("HARD_SWISH", activation::HARD_SWISH),
                ("LEAKY_RELU", activation::LEAKY_RELU),
            ],
        }
    };
}

/// The same for weights of each kind, with parts of its own.
macro_rules! dense {
    ($name:literal, $parts:tt, $constants:tt, $lanes:expr, $bytes:expr) => {
        [
            dense!($name, "f32", "weights_f32", $parts, $constants, $lanes, $bytes),
            dense!($name, "f16", "weights_f16", $parts, $constants, $lanes, $bytes),
            dense!($name, "int8", "weights_int8", $parts, $constants, $lanes, $bytes),
        ]
    };
    ($name:literal, $kind:literal, $weights:literal, [$($part:literal),*], $constants:tt, $lanes:expr, $bytes:expr) => {
        layer!(
            concat!($name, " ", $kind),
            $name,
            ["activation", $weights, "layer" $(, $part)*, $name],
            $constants,
            $lanes,
            $bytes
        )
    };
}

/// The same for one that computes tiles.
macro_rules! tiles {
    ($name:literal, $parts:tt, $tile:expr, $lanes:expr, $bytes:expr) => {
        dense!(
            $name,
            $parts,
            [
                ("TILE_ROWS", $tile.size()[0]),
                ("TILE_COLUMNS", $tile.size()[1])
            ],
            $lanes,
            $bytes
        )
    };
}

const GEMV: [Kernel; 3] = tiles!("gemv", [], Tile::Gemv, [8, 32, 1], 256 * 16);
/// Bytes of few_rows.wgsl.
const FEW_ROWS_BYTES: u32 = 256 * 4 + 128 * 16;
const SKINNY: [Kernel; 3] = tiles!(
    "skinny",
    ["few_rows"],
    Tile::Skinny,
    [8, 8, 1],
    FEW_ROWS_BYTES
);
const SPLIT: [Kernel; 3] = tiles!(
    "split",
    ["few_rows"],
    Tile::Split,
    [8, 8, 1],
    FEW_ROWS_BYTES
);
const JOINED: [Kernel; 3] = dense!("joined", [], [], [JOINED_LANES, 1, 1], 0);
const TILE64: [Kernel; 3] = tiles!("tile64", [], Tile::Tile64, [16, 16, 1], (272 + 256) * 16);
const TILE128: [Kernel; 3] = tiles!("tile128", [], Tile::Tile128, [16, 16, 1], (264 + 256) * 16);

/// Quads of the result that a workgroup of [`joined`] finishes.
pub const JOINED_LANES: u32 = 64;

/// Products of matrices by a whole subgroup.
#[derive(Debug, Clone, Copy)]
pub struct Cooperative {
    /// Rows and columns of the matrices: f16 by f16, sums in f32.
    pub size: u32,
    /// Lanes of the subgroup, neither more nor fewer.
    pub subgroup: u32,
    /// Of a dense layer with [`Weights::Half`].
    pub kernel: Kernel,
}

/// Those that there are kernels for, the larger ones first. They need shaders with f16, subgroups and wgpu's
/// cooperative matrices.
pub const COOPERATIVE: [Cooperative; 2] = [
    Cooperative {
        size: 16,
        subgroup: 32,
        kernel: layer!(
            "cooperative 16",
            "cooperative",
            [
                "enable_cooperative",
                "activation",
                "weights_f16",
                "layer",
                "matrices_of_16",
                "cooperative"
            ],
            [
                ("TILE_ROWS", Tile::Cooperative.size()[0]),
                ("TILE_COLUMNS", Tile::Cooperative.size()[1]),
                ("SIZE", 16)
            ],
            [128, 1, 1],
            2 * 1024 * 2 + 1024 * 4
        ),
    },
    Cooperative {
        size: 8,
        subgroup: 8,
        kernel: layer!(
            "cooperative 8",
            "cooperative",
            [
                "enable_cooperative",
                "activation",
                "weights_f16",
                "layer",
                "matrices_of_8",
                "cooperative"
            ],
            [
                ("TILE_ROWS", Tile::Cooperative.size()[0]),
                ("TILE_COLUMNS", Tile::Cooperative.size()[1]),
                ("SIZE", 8)
            ],
            [64, 1, 1],
            2 * 1024 * 2 + 1024 * 4
        ),
    },
];

/// The dense layer has a residual to add.
pub const WITH_RESIDUAL: u32 = 1;

/// Numbers of the activations, which dense layers and [`ELEMENTWISE`] have in common; 0 is none.
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
    files: &["product"],
    source: include_str!("../product.wgsl"),
    entry_point: "product_of_pairs",
    workgroup_size: [8, 8, 1],
    workgroup_bytes: 2 * 64 * 16,
    bindings: &[Read, Read, ReadWrite],
    immediate_bytes: 72,
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
    files: &["row", "softmax"],
    source: concat!(include_str!("../row.wgsl"), include_str!("../softmax.wgsl")),
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
    files: &["row", "norm"],
    source: concat!(include_str!("../row.wgsl"), include_str!("../norm.wgsl")),
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
    files: &["activation", "elementwise"],
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

/// Every kernel there is, with those that only some cards can run.
pub fn all_kernels() -> impl Iterator<Item = &'static Kernel> {
    let cooperative = COOPERATIVE.iter().map(|cooperative| &cooperative.kernel);
    kernels().into_iter().chain(cooperative)
}

/// Every kernel that any card can run.
#[must_use]
pub fn kernels() -> Vec<&'static Kernel> {
    let weights = [Weights::F32, Weights::F16, Weights::Int8];
    let dense = Tile::ALL.into_iter().flat_map(|tile| {
        let all = weights.into_iter();
        all.filter_map(move |weights| linear(tile, weights))
    });
    dense
        .chain(weights.into_iter().map(joined))
        .chain([&PRODUCT, &SOFTMAX, &NORM, &ELEMENTWISE])
        .collect()
}
