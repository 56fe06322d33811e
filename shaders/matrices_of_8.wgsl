// Matrices of 8 x 8, as Mesa's software adapter multiplies them. A part of cooperative.wgsl.
alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sums = coop_mat8x8<f32, C>;

const SIZE: u32 = 8u;   // rows and columns of a matrix
const LANES: u32 = 64u; // TILE_ROWS / SIZE subgroups of 8
