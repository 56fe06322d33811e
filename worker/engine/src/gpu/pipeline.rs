//! What dense layers need on the device besides their weights: the compiled shader, and buffers for a batch.

use inferq_shaders::{Binding, LINEAR};

use super::device::Opened;
use super::error::GpuError;

/// The compiled shader, made once per device.
pub(super) struct Pipeline {
    pub(super) layout: wgpu::BindGroupLayout,
    pub(super) pipeline: wgpu::ComputePipeline,
}

/// Buffers for one batch in flight, of up to `rows` rows.
pub(super) struct Workspace {
    pub(super) rows: usize,
    /// Inputs first, then the result of each step.
    pub(super) values: Vec<wgpu::Buffer>,
    /// The outputs, one after the other.
    pub(super) download: wgpu::Buffer,
    /// By step.
    pub(super) bindings: Vec<wgpu::BindGroup>,
}

/// The device's pipeline, compiled at the first call. Two threads may both compile; one result is kept.
pub(super) fn pipeline(gpu: &Opened) -> Result<&Pipeline, GpuError> {
    if let Some(pipeline) = gpu.linear.get() {
        return Ok(pipeline);
    }
    let made = gpu.created(|device| {
        let shader = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(LINEAR.name),
            source: wgpu::ShaderSource::Wgsl(LINEAR.source.into()),
        });
        let entries: Vec<_> = (0..)
            .zip(LINEAR.bindings)
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
            label: Some(LINEAR.name),
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(LINEAR.name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: LINEAR.immediate_bytes,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(LINEAR.name),
            layout: Some(&pipeline_layout),
            module: &shader,
            entry_point: Some(LINEAR.entry_point),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                // Every lane writes its part of both tiles before any lane reads.
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        Pipeline { layout, pipeline }
    })?;
    Ok(gpu.linear.get_or_init(|| made))
}
