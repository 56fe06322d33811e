//! Failures that no driver here gives on demand, for tests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::card::Gpu;
use super::error::GpuError;

/// What fails next, once each.
#[derive(Debug, Default)]
pub(super) struct Injected {
    allocation: AtomicBool,
    map: AtomicBool,
    /// 0 for no limit.
    largest_panel: AtomicU64,
}

impl Injected {
    pub(super) fn allocation(&self) -> Result<(), GpuError> {
        match self.allocation.swap(false, Ordering::SeqCst) {
            true => Err(GpuError::OutOfMemory("a test took it".to_owned())),
            false => Ok(()),
        }
    }

    /// What a mapping reports.
    pub(super) fn map(&self) -> Result<(), wgpu::BufferAsyncError> {
        match self.map.swap(false, Ordering::SeqCst) {
            true => Err(wgpu::BufferAsyncError),
            false => Ok(()),
        }
    }
}

impl Injected {
    pub(super) fn largest_panel(&self) -> Option<u64> {
        let bytes = self.largest_panel.load(Ordering::SeqCst);
        (bytes > 0).then_some(bytes)
    }
}

impl Gpu {
    /// Weights come in panels of at most so many bytes.
    pub(crate) fn limit_panels(&self, bytes: u64) {
        let injected = &self.opened().injected;
        injected.largest_panel.store(bytes, Ordering::SeqCst);
    }

    /// The next thing that is created on the device finds no memory.
    pub(crate) fn fail_next_allocation(&self) {
        self.opened()
            .injected
            .allocation
            .store(true, Ordering::SeqCst);
    }

    /// The next result cannot be read.
    pub(crate) fn fail_next_map(&self) {
        self.opened().injected.map.store(true, Ordering::SeqCst);
    }
}
