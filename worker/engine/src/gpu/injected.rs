//! Failures that no driver here gives on demand, for tests.

use std::sync::atomic::{AtomicBool, Ordering};

use super::card::Gpu;
use super::error::GpuError;

/// What fails next, once each.
#[derive(Debug, Default)]
pub(super) struct Injected {
    allocation: AtomicBool,
    map: AtomicBool,
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

impl Gpu {
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
