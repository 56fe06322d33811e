// Matrices of 16 x 16, as cards of NVIDIA multiply them. A part of cooperative.wgsl.
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;

const SIZE: u32 = 16u;   // rows and columns of a matrix
const LANES: u32 = 128u; // TILE_ROWS / SIZE subgroups of 32
