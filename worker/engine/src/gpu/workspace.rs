//! Buffers for one batch in flight, and the pool they come from.

use std::sync::{Mutex, PoisonError};

use wgpu::BufferUsages;

use super::device::Opened;
use super::error::GpuError;
use super::layout::most_bytes;

use super::slots::Place;
use super::step::Prepared;

/// Workspaces that wait for their next batch. As many batches as ever were in flight at once have one.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Workspace>>);

/// Buffers for one batch in flight.
pub(super) struct Workspace {
    pub(super) slots: Vec<wgpu::Buffer>,
    /// The given values, one after the other. Mapped for writing between runs.
    pub(super) upload: wgpu::Buffer,
    /// The outputs, one after the other.
    pub(super) download: wgpu::Buffer,
    /// By step; nothing for a view.
    pub(super) bindings: Vec<Option<Bound>>,
    needs: Needs,
}

/// What the kernels of a step are given.
pub(super) struct Bound {
    pub(super) whole: wgpu::BindGroup,
    /// Where there is room for sums in between: for the kernel that leaves them and for the one that joins them.
    pub(super) split: Option<[wgpu::BindGroup; 2]>,
}

/// Bytes that a batch takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) slots: Vec<u64>,
    /// Of the largest sums in pieces; 0 if nothing is split.
    pub(super) sums: u64,
    pub(super) upload: u64,
    pub(super) download: u64,
}

impl Needs {
    fn fit(&self, room: &Needs) -> bool {
        let slots = self.slots.iter().zip(&room.slots);
        let enough = slots.into_iter().all(|(need, room)| need <= room);
        let enough = enough && self.sums <= room.sums;
        enough && self.upload <= room.upload && self.download <= room.download
    }

    /// Rounded up, so that batches of similar sizes find the same workspace; not beyond `limit`.
    fn rounded(&self, limit: u64) -> Self {
        let rounded = |bytes: &u64| bytes.next_power_of_two().min(limit.max(*bytes));
        Needs {
            slots: self.slots.iter().map(rounded).collect(),
            sums: match self.sums {
                0 => 0,
                sums => rounded(&sums),
            },
            upload: rounded(&self.upload),
            download: rounded(&self.download),
        }
    }

    fn include(&mut self, other: &Needs) {
        for (own, other) in self.slots.iter_mut().zip(&other.slots) {
            *own = (*own).max(*other);
        }
        self.sums = self.sums.max(other.sums);
        self.upload = self.upload.max(other.upload);
        self.download = self.download.max(other.download);
    }

    fn total(&self) -> u64 {
        self.slots.iter().sum::<u64>() + self.sums + self.upload + self.download
    }
}

impl Pool {
    /// The smallest idle one that is large enough, else a new one.
    ///
    /// A new one takes the place of the smallest idle one and is as large as that was, too: batches that grow leave no
    /// trail of memory behind, and shapes that take turns do not drive each other out.
    pub(super) fn take(
        &self,
        needs: &Needs,
        steps: &[Prepared],
        places: &[Place],
        constants: &[std::sync::Arc<wgpu::Buffer>],
        gpu: &Opened,
    ) -> Result<Workspace, GpuError> {
        let mut idle = self.idle();
        let fitting = (0..idle.len()).filter(|at| needs.fit(&idle[*at].needs));
        if let Some(at) = fitting.min_by_key(|at| idle[*at].needs.total()) {
            return Ok(idle.swap_remove(at));
        }
        let smallest = (0..idle.len()).min_by_key(|at| idle[*at].needs.total());
        let replaced = smallest.map(|at| idle.swap_remove(at));
        drop(idle);
        let mut needs = needs.rounded(most_bytes(&gpu.device.limits()));
        if let Some(replaced) = replaced {
            needs.include(&replaced.needs);
        }
        gpu.created(|device| make(device, needs, steps, places, constants))
    }

    pub(super) fn give_back(&self, workspace: Workspace) {
        self.idle().push(workspace);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Workspace>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make(
    device: &wgpu::Device,
    needs: Needs,
    steps: &[Prepared],
    places: &[Place],
    constants: &[std::sync::Arc<wgpu::Buffer>],
) -> Workspace {
    let buffer = |bytes, usage: BufferUsages| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("inferq workspace"),
            size: bytes,
            usage,
            mapped_at_creation: usage.contains(BufferUsages::MAP_WRITE),
        })
    };
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let slots: Vec<_> = (needs.slots.iter())
        .map(|bytes| buffer(*bytes, usage))
        .collect();
    let sums = (needs.sums > 0).then(|| buffer(needs.sums, BufferUsages::STORAGE));
    let upload = buffer(
        needs.upload,
        BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC,
    );
    let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
    let download = buffer(needs.download, usage);
    let at = |value: usize| match places[value] {
        Place::Slot(slot) => &slots[slot],
        Place::Constant(number) => &*constants[number],
    };
    let bindings = steps.iter().map(|step| {
        let layout = step.layout()?;
        let bound = |buffers: Vec<&wgpu::Buffer>| bind(device, layout, &buffers);
        let split = sums.as_ref().and_then(|sums| step.split_buffers(at, sums));
        Some(Bound {
            whole: bound(step.buffers(at)),
            split: split.map(|both| both.map(bound)),
        })
    });
    let bindings = bindings.collect();
    Workspace {
        slots,
        upload,
        download,
        bindings,
        needs,
    }
}

fn bind(
    device: &wgpu::Device,
    layout: &wgpu::BindGroupLayout,
    buffers: &[&wgpu::Buffer],
) -> wgpu::BindGroup {
    let entries: Vec<_> = (0..)
        .zip(buffers)
        .map(|(binding, buffer)| wgpu::BindGroupEntry {
            binding,
            resource: buffer.as_entire_binding(),
        })
        .collect();
    device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("inferq step"),
        layout,
        entries: &entries,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_but_not_beyond_the_limit() {
        let needs = Needs {
            slots: vec![4, 100, 900],
            sums: 0,
            upload: 32,
            download: 60,
        };
        let rounded = needs.rounded(1_000);
        assert_eq!(
            rounded,
            Needs {
                slots: vec![4, 128, 1_000],
                sums: 0,
                upload: 32,
                download: 64
            }
        );
        assert!(needs.fit(&rounded) && !rounded.fit(&needs));
        let mut both = rounded.clone();
        both.include(&Needs {
            slots: vec![8, 4, 4],
            sums: 20,
            upload: 4,
            download: 400,
        });
        assert!(!both.fit(&rounded), "there is no room for sums");
        assert_eq!((both.sums, both.rounded(1_000).sums), (20, 32));
        assert_eq!((both.slots, both.download), (vec![8, 128, 1_000], 400));
        // As drivers of NVIDIA say it; a buffer of that size could not be bound.
        let limits = wgpu::Limits {
            max_storage_buffer_binding_size: (1 << 31) - 1,
            max_buffer_size: u64::MAX,
            ..wgpu::Limits::default()
        };
        assert_eq!(most_bytes(&limits), (1 << 31) - 4);
    }
}
