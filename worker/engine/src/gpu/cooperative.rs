//! Products of small matrices that a card does by itself, many times as fast as its lanes could.
//!
//! wgpu calls them experimental, so that they are used only where somebody asked for them.

use inferq_shaders::{COOPERATIVE, Cooperative};
use wgpu::{CooperativeScalarType, ExperimentalFeatures, Features};

const NEEDED: Features = Features::EXPERIMENTAL_COOPERATIVE_MATRIX
    .union(Features::SHADER_F16)
    .union(Features::SUBGROUP);

/// The largest that `adapter` has and there is a kernel for.
pub(super) fn found(adapter: &wgpu::Adapter) -> Option<&'static Cooperative> {
    if !adapter.features().contains(NEEDED) {
        return None;
    }
    let info = adapter.get_info();
    let has = adapter.cooperative_matrix_properties();
    COOPERATIVE.iter().find(|wanted| {
        let lanes = [info.subgroup_min_size, info.subgroup_max_size];
        lanes == [wanted.subgroup; 2]
            && has.iter().any(|has| {
                [has.m_size, has.n_size, has.k_size] == [wanted.size; 3]
                    && has.ab_type == CooperativeScalarType::F16
                    && has.cr_type == CooperativeScalarType::F32
            })
    })
}

/// What a device has to be opened with for them.
#[allow(
    unsafe_code,
    reason = "wgpu wants it said that experimental features may have undefined behaviour"
)]
pub(super) fn needed(cooperative: Option<&Cooperative>) -> (Features, ExperimentalFeatures) {
    match cooperative {
        None => (Features::empty(), ExperimentalFeatures::disabled()),
        // SAFETY: Whoever runs us asked for it, and the flag tells what it is: naga does not yet tell drivers what
        // they must make visible between lanes (gfx-rs/wgpu#8805), which is why the check at load looks at these
        // products more often than at others.
        Some(_) => (NEEDED, unsafe { ExperimentalFeatures::enabled() }),
    }
}
