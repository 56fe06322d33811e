enable f16;
enable wgpu_cooperative_matrix;
// Numbers of 16 bits and products of small matrices by a whole subgroup. A part of the kernels that need them.
