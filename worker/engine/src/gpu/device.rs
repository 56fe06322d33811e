//! A device: an adapter opened for compute, so that no error is fatal.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};

use inferq_shaders::Cooperative;

use super::adapter::AdapterInfo;
use super::cooperative;
use super::error::GpuError;
use super::kept::Kept;
use super::pipeline::{Pipelines, pipeline};
use super::workspace::Workspace;
use crate::resident::Table;

/// An open device and what is on it.
pub(super) struct Opened {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    faults: Arc<Faults>,
    /// Numbers of models that are on the device.
    pub(super) resident: Table<wgpu::Buffer>,
    pub(super) pipelines: Pipelines,
    /// Products of matrices that it does by itself, where they are wanted.
    cooperative: Option<&'static Cooperative>,
    /// Kernels on disk, where there is a folder for them.
    kept: OnceLock<Option<Kept>>,
    /// Workspaces whose reports have not come.
    set_aside: Mutex<Vec<SetAside>>,
    #[cfg(test)]
    pub(super) injected: super::injected::Injected,
}

/// What the mappings of one submission report; it ends when nothing can report any more.
pub(super) type Reported = mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>;

/// A workspace that the device may still be about to map.
struct SetAside {
    reported: Reported,
    _workspace: Workspace,
}

impl SetAside {
    fn is_pending(&self) -> bool {
        loop {
            match self.reported.try_recv() {
                Ok(_) => {}
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }
}

/// What the device's callbacks heard.
#[derive(Default)]
struct Faults {
    lost: OnceLock<String>,
    uncaptured: OnceLock<String>,
}

impl Opened {
    /// Opens `adapter`; with its own products of matrices, if they are `wanted`, it has any and compiles them.
    ///
    /// # Errors
    /// [`GpuError::Unsupported`] if it lacks a feature or refuses to open.
    pub(super) fn new(
        adapter: &wgpu::Adapter,
        info: &AdapterInfo,
        wanted: bool,
    ) -> Result<Self, GpuError> {
        if let Some(cooperative) = wanted.then(|| cooperative::found(adapter)).flatten() {
            // A kernel that the driver refuses costs the whole device, so nothing else may be on it.
            let opened = Self::with(adapter, info, Some(cooperative))
                .and_then(|opened| pipeline(&cooperative.kernel, &opened).map(|_| opened));
            match opened {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    tracing::warn!(%error, adapter = info.name, "the graphics card does not take kernels with its own products of matrices, other kernels do them");
                }
            }
        }
        Self::with(adapter, info, None)
    }

    fn with(
        adapter: &wgpu::Adapter,
        info: &AdapterInfo,
        cooperative: Option<&'static Cooperative>,
    ) -> Result<Self, GpuError> {
        let unsupported = |reason: String| GpuError::Unsupported {
            adapter: info.name.clone(),
            reason,
        };
        let needed = wgpu::Features::IMMEDIATES;
        if !adapter.features().contains(needed) {
            return Err(unsupported(
                "it has no immediates (push constants)".to_owned(),
            ));
        }
        let (more, experimental) = cooperative::needed(cooperative);
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
            required_features: needed | more | adapter.features() & wgpu::Features::PIPELINE_CACHE,
            required_limits: limits,
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
            experimental_features: experimental,
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
        Ok(Opened {
            device,
            queue,
            faults,
            resident: Table::default(),
            pipelines: Pipelines::default(),
            cooperative,
            kept: OnceLock::new(),
            set_aside: Mutex::default(),
            #[cfg(test)]
            injected: super::injected::Injected::default(),
        })
    }

    /// See [`Gpu::fault`](super::card::Gpu::fault).
    pub(super) fn fault(&self) -> Option<GpuError> {
        let lost = self.faults.lost.get().cloned().map(GpuError::Lost);
        lost.or_else(|| self.faults.uncaptured.get().cloned().map(GpuError::Fault))
    }

    /// Gives it back to the system. Whatever uses it from now on fails with [`GpuError::Lost`].
    pub(super) fn destroy(&self) {
        self.faults
            .lost
            .get_or_init(|| "it was given back".to_owned());
        self.device.destroy();
    }

    pub(super) fn check(&self) -> Result<(), GpuError> {
        match self.faults.lost.get() {
            Some(reason) => Err(GpuError::Lost(reason.clone())),
            None => Ok(()),
        }
    }

    /// Products of matrices that it does by itself.
    pub(super) fn cooperative(&self) -> Option<&'static Cooperative> {
        self.cooperative
    }

    /// Takes compiled kernels from `folder`, and leaves them there. Counts the first time only.
    pub(super) fn keep_in(&self, folder: &Path, card: &AdapterInfo) {
        self.kept.get_or_init(|| Kept::open(folder, card, self));
    }

    /// Kernels on disk, if they are kept there.
    pub(super) fn kept(&self) -> Option<&Kept> {
        self.kept.get().and_then(Option::as_ref)
    }

    /// Most bytes of a panel of weights beside what can be bound; tests make it small.
    pub(super) fn largest_panel(&self) -> u64 {
        #[cfg(test)]
        if let Some(bytes) = self.injected.largest_panel() {
            return bytes;
        }
        u64::MAX
    }

    /// Runs `make`, which creates things on the device, and reports what the device thinks of them.
    pub(super) fn created<T>(&self, make: impl FnOnce(&wgpu::Device) -> T) -> Result<T, GpuError> {
        self.check()?;
        #[cfg(test)]
        self.injected.allocation()?;
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

    /// Keeps a workspace until `reported` says that none of its mappings is pending any more: to free one before is a
    /// race in wgpu (gfx-rs/wgpu#9959). Those kept earlier go as soon as theirs do.
    pub(super) fn set_aside(&self, workspace: Workspace, reported: Reported) {
        let mut kept = self
            .set_aside
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        kept.push(SetAside {
            reported,
            _workspace: workspace,
        });
        kept.retain(SetAside::is_pending);
    }
}
