//! What a decoder accepts at most. Every limit is checked before memory is taken for what it bounds.

/// Bounds on one body. [`Default`] is right for a worker; raise a limit only with the memory for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one body, 1 GiB: more than a message may have, since a body may come by reference.
    /// A worker takes no more than it may hold at once, 512 MiB unless told.
    pub max_body_bytes: usize,
    /// Tensors in one request or response, 256; models with more inputs are not known to us.
    pub max_tensors: usize,
    /// Axes of one tensor, 8: what the engine's kernels are tested with.
    pub max_rank: usize,
    /// Elements of one tensor, 2^31 - 1, so that an index fits every runtime's 32-bit integer.
    pub max_elements: usize,
    /// Nesting of arrays and objects, 64: a v2 body with rank 8 needs 12, features may need more.
    pub max_depth: usize,
    /// Bytes of a tensor's name, a parameter's name or a request id, 256; longer ones are mistakes.
    pub max_name_bytes: usize,
    /// Parameters of one request, 256; more than any client we know sends.
    pub max_parameters: usize,
    /// JSON values in `instances` or column `inputs`, 2^22; an object counts as 20, since it takes
    /// that much memory. A value takes 32 bytes until it is in a tensor, twice that in a list that
    /// has just grown, so this is at most 256 MiB.
    pub max_values: usize,
}

impl Limits {
    /// Items (keys and values) in one CBOR body, which holds a tensor's data as a single item:
    /// enough for the most tensors and parameters allowed, each with a few unknown members.
    pub(crate) fn max_cbor_items(&self) -> usize {
        let per_tensor = self.max_rank.saturating_add(24);
        let tensors = self
            .max_tensors
            .saturating_mul(2)
            .saturating_mul(per_tensor);
        tensors
            .saturating_add(self.max_parameters.saturating_mul(4))
            .saturating_add(256)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 1 << 30,
            max_tensors: 256,
            max_rank: 8,
            max_elements: (1 << 31) - 1,
            max_depth: 64,
            max_name_bytes: 256,
            max_parameters: 256,
            max_values: 1 << 22,
        }
    }
}
