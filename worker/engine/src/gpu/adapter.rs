//! Which adapters there are, and which of them to use.

use std::fmt;

/// When a graphics card is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GpuPolicy {
    /// Never.
    Off,
    /// If there is real hardware. A software adapter is slower than our CPU path, so it is never taken.
    #[default]
    Auto,
    /// Whatever there is, software included, as tests need it.
    Force,
}

/// What kind of machine an adapter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterKind {
    /// A card with memory of its own.
    Discrete,
    /// Part of the processor, sharing its memory.
    Integrated,
    /// A card lent to a virtual machine.
    Virtual,
    /// A program that does as if, such as Mesa's llvmpipe.
    Software,
    /// The driver does not say.
    Unknown,
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AdapterKind::Discrete => "discrete",
            AdapterKind::Integrated => "integrated",
            AdapterKind::Virtual => "virtual",
            AdapterKind::Software => "software",
            AdapterKind::Unknown => "unknown",
        })
    }
}

/// One adapter of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterInfo {
    /// Name by the driver, for instance `llvmpipe (LLVM 15.0.6, 256 bits)`.
    pub name: String,
    /// What kind of machine it is.
    pub kind: AdapterKind,
    /// The interface it is reached through: `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
}

impl GpuPolicy {
    /// The position of the adapter to use among `adapters`; of equals the first.
    ///
    /// `name` narrows the choice to adapters whose name contains it, in any case.
    #[must_use]
    pub fn choose(self, adapters: &[AdapterInfo], name: Option<&str>) -> Option<usize> {
        let wanted = name.map(str::to_lowercase);
        let named = |adapter: &AdapterInfo| {
            wanted
                .as_ref()
                .is_none_or(|name| adapter.name.to_lowercase().contains(name))
        };
        let rank = |kind: AdapterKind| match (kind, self) {
            (_, GpuPolicy::Off) => None,
            (AdapterKind::Discrete, _) => Some(0),
            (AdapterKind::Integrated, _) => Some(1),
            (AdapterKind::Virtual, _) => Some(2),
            // Unknown may well be software.
            (AdapterKind::Unknown, GpuPolicy::Force) => Some(3),
            (AdapterKind::Software, GpuPolicy::Force) => Some(4),
            (AdapterKind::Unknown | AdapterKind::Software, GpuPolicy::Auto) => None,
        };
        let candidates = adapters
            .iter()
            .enumerate()
            .filter(|(_, adapter)| named(adapter));
        let ranked = candidates.filter_map(|(at, adapter)| Some((rank(adapter.kind)?, at)));
        ranked.min().map(|(_, at)| at)
    }
}

/// All adapters of this machine. Asking takes some 40 ms, the first time in a process up to 400 ms.
#[must_use]
pub fn adapters() -> Vec<AdapterInfo> {
    enumerate().iter().map(describe).collect()
}

pub(super) fn enumerate() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(descriptor);
    pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY))
}

pub(super) fn describe(adapter: &wgpu::Adapter) -> AdapterInfo {
    let info = adapter.get_info();
    AdapterInfo {
        name: info.name,
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
            wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
            wgpu::DeviceType::Cpu => AdapterKind::Software,
            wgpu::DeviceType::Other => AdapterKind::Unknown,
        },
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info),
    }
}
