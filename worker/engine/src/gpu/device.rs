//! Finding adapters, choosing one, and opening it so that no error is fatal.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::breaker::Breaker;
use super::error::GpuError;
use super::pipeline::Pipelines;
use super::workspace::Workspace;
use crate::resident::Table;

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

/// An adapter opened for compute. Cloning shares it; all threads may use it.
#[derive(Clone)]
pub struct Gpu(Arc<Opened>);

pub(super) struct Opened {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    info: AdapterInfo,
    forced: bool,
    faults: Arc<Faults>,
    breaker: Mutex<Breaker>,
    /// Numbers of models that are on the device.
    pub(super) resident: Table<wgpu::Buffer>,
    pub(super) pipelines: Pipelines,
    /// Workspaces whose read-back never came. To free one while its mapping is pending is a
    /// race in wgpu (gfx-rs/wgpu#9959), so they stay as long as the device does.
    pub(super) set_aside: Mutex<Vec<Workspace>>,
}

/// What the device's callbacks heard.
#[derive(Default)]
struct Faults {
    lost: OnceLock<String>,
    uncaptured: OnceLock<String>,
}

impl Gpu {
    /// Opens the adapter that `policy` and `name` choose; `None` if the policy wants none.
    ///
    /// # Errors
    /// [`GpuError::NoAdapter`] if `Force`, or a name under `Auto`, finds nothing;
    /// [`GpuError::Unsupported`] if the adapter lacks a feature or refuses to open.
    pub fn open(policy: GpuPolicy, name: Option<&str>) -> Result<Option<Gpu>, GpuError> {
        if policy == GpuPolicy::Off {
            return Ok(None);
        }
        let adapters = enumerate();
        let infos: Vec<AdapterInfo> = adapters.iter().map(describe).collect();
        match policy.choose(&infos, name) {
            Some(at) => {
                let forced = policy == GpuPolicy::Force;
                Gpu::with(&adapters[at], infos[at].clone(), forced).map(Some)
            }
            None if policy == GpuPolicy::Auto && name.is_none() => Ok(None),
            None => {
                let names: Vec<String> = infos
                    .iter()
                    .map(|info| format!("{} ({})", info.name, info.kind))
                    .collect();
                let found = if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                };
                Err(GpuError::NoAdapter { found })
            }
        }
    }

    fn with(adapter: &wgpu::Adapter, info: AdapterInfo, forced: bool) -> Result<Gpu, GpuError> {
        let unsupported = |reason: String| GpuError::Unsupported {
            adapter: info.name.clone(),
            reason,
        };
        let features = wgpu::Features::IMMEDIATES;
        if !adapter.features().contains(features) {
            return Err(unsupported(
                "it has no immediates (push constants)".to_owned(),
            ));
        }
        // Only what kernels need is raised above the defaults: large matrices and immediates.
        let available = adapter.limits();
        let kernels = inferq_shaders::kernels();
        let immediates = kernels.iter().map(|kernel| kernel.immediate_bytes);
        let limits = wgpu::Limits {
            max_storage_buffer_binding_size: available.max_storage_buffer_binding_size,
            max_buffer_size: available.max_buffer_size,
            max_immediate_size: immediates.max().unwrap_or(0),
            ..wgpu::Limits::default()
        };
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("inferq"),
            required_features: features,
            required_limits: limits,
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
            experimental_features: wgpu::ExperimentalFeatures::disabled(),
        });
        let (device, queue) =
            pollster::block_on(request).map_err(|error| unsupported(error.to_string()))?;

        let faults = Arc::new(Faults::default());
        // wgpu's own handlers end the process.
        let heard = Arc::clone(&faults);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let text = error.to_string();
            tracing::warn!(error = text, "the graphics device reported an error");
            // The first error is the cause of those after it.
            heard.uncaptured.get_or_init(|| text);
        }));
        let heard = Arc::clone(&faults);
        device.set_device_lost_callback(move |reason, text| {
            let text = format!("{reason:?}: {text}");
            tracing::warn!(reason = text, "the graphics device is lost");
            heard.lost.get_or_init(|| text);
        });
        Ok(Gpu(Arc::new(Opened {
            device,
            queue,
            info,
            forced,
            faults,
            breaker: Mutex::default(),
            resident: Table::default(),
            pipelines: Pipelines::default(),
            set_aside: Mutex::default(),
        })))
    }

    /// The adapter it runs on.
    #[must_use]
    pub fn info(&self) -> &AdapterInfo {
        &self.0.info
    }

    /// Why the device should not be used any more, if there is a reason.
    #[must_use]
    pub fn fault(&self) -> Option<GpuError> {
        let lost = self.0.faults.lost.get().cloned().map(GpuError::Lost);
        lost.or_else(|| self.0.faults.uncaptured.get().cloned().map(GpuError::Fault))
    }

    /// Whether [`GpuPolicy::Force`] opened it: then it is used even where the CPU is faster.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.0.forced
    }

    /// Whether it is worth asking: neither lost nor failing all the time.
    ///
    /// A lost device stays lost; what was loaded for it runs on the CPU until the process starts again.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.0.check().is_ok() && !self.breaker().is_open(Instant::now())
    }

    /// Notes that it gave no result for a batch.
    ///
    /// A batch that is too large for it says nothing about the card. After a timeout nobody should wait
    /// for it again soon.
    pub(crate) fn failed(&self, error: &GpuError) {
        match error {
            GpuError::Limit { .. } | GpuError::Shape { .. } | GpuError::Empty(_) => {}
            GpuError::Timeout(_) => self.breaker().failed_badly(Instant::now()),
            GpuError::NoAdapter { .. }
            | GpuError::Unsupported { .. }
            | GpuError::OutOfMemory(_)
            | GpuError::Lost(_)
            | GpuError::Fault(_) => self.breaker().failed(Instant::now()),
        }
    }

    /// Batches that it gave no result for, since it was opened.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.breaker().failures()
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.0
            .breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the device back to the system. Whatever uses it from now on fails with [`GpuError::Lost`].
    pub fn destroy(&self) {
        self.0
            .faults
            .lost
            .get_or_init(|| "it was given back".to_owned());
        self.0.device.destroy();
    }

    pub(super) fn opened(&self) -> &Arc<Opened> {
        &self.0
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({})", self.0.info.name)
    }
}

impl Opened {
    pub(super) fn check(&self) -> Result<(), GpuError> {
        match self.faults.lost.get() {
            Some(reason) => Err(GpuError::Lost(reason.clone())),
            None => Ok(()),
        }
    }

    /// Runs `make`, which creates things on the device, and reports what the device thinks of them.
    pub(super) fn created<T>(&self, make: impl FnOnce(&wgpu::Device) -> T) -> Result<T, GpuError> {
        self.check()?;
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let made = make(&self.device);
        // In the reverse order of pushing, all of them, before any is looked at.
        let internal = pollster::block_on(internal.pop());
        let validation = pollster::block_on(validation.pop());
        let memory = pollster::block_on(memory.pop());
        match (memory, validation.or(internal)) {
            (Some(error), _) => Err(GpuError::OutOfMemory(error.to_string())),
            (None, Some(error)) => Err(GpuError::Fault(error.to_string())),
            (None, None) => Ok(made),
        }
    }

    pub(super) fn set_aside(&self, workspace: Workspace) {
        self.set_aside
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(workspace);
    }
}

fn enumerate() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(descriptor);
    pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY))
}

fn describe(adapter: &wgpu::Adapter) -> AdapterInfo {
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
