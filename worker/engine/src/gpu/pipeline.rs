//! Compiled kernels, each made once per device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use inferq_shaders::{Binding, Kernel};

use super::device::Opened;
use super::error::GpuError;

/// A compiled kernel.
pub(super) struct Pipeline {
    pub(super) layout: wgpu::BindGroupLayout,
    pub(super) pipeline: wgpu::ComputePipeline,
}

/// Those that a device has compiled, by name.
#[derive(Default)]
pub(super) struct Pipelines(Mutex<HashMap<&'static str, Arc<Pipeline>>>);

/// `kernel` for this device, compiled at the first call. Two threads may both compile; one result is kept.
pub(super) fn pipeline(kernel: &Kernel, gpu: &Opened) -> Result<Arc<Pipeline>, GpuError> {
    let lock = || {
        gpu.pipelines
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    };
    if let Some(there) = lock().get(kernel.name) {
        return Ok(Arc::clone(there));
    }
    let made = Arc::new(compile(kernel, gpu)?);
    if let Some(kept) = gpu.kept() {
        kept.grew();
    }
    Ok(Arc::clone(lock().entry(kernel.name).or_insert(made)))
}

fn compile(kernel: &Kernel, gpu: &Opened) -> Result<Pipeline, GpuError> {
    gpu.created(|device| {
        let shader = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(kernel.name),
            source: wgpu::ShaderSource::Wgsl(kernel.source.into()),
        });
        let entries: Vec<_> = (0..)
            .zip(kernel.bindings)
            .map(|(binding, access)| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage {
                        read_only: *access == Binding::Read,
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(kernel.name),
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(kernel.name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: kernel.immediate_bytes,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.name),
            layout: Some(&pipeline_layout),
            module: &shader,
            entry_point: Some(kernel.entry_point),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                // Every kernel writes its workgroup memory before any lane reads it.
                zero_initialize_workgroup_memory: false,
            },
            cache: gpu.kept().map(|kept| &kept.cache),
        });
        Pipeline { layout, pipeline }
    })
}
