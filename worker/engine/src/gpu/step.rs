//! A step of a program, ready to be launched: its kernels and what it brings with it.

use std::sync::Arc;

use inferq_shaders::{ELEMENTWISE, Kernel, NORM, PRODUCT, SOFTMAX, Tile, linear};

use super::device::Opened;
use super::error::GpuError;
use super::operation::Operation;
use super::pipeline::{Pipeline, pipeline};
use super::program::Step;
use super::upload;

/// A step whose constants are on the device.
pub(super) struct Prepared {
    pub(super) operation: Operation,
    pub(super) inputs: Vec<usize>,
    pub(super) result: usize,
    /// Nothing for a view; for a dense layer one for each tile, in their order.
    pipelines: Vec<Arc<Pipeline>>,
    constants: Vec<Arc<wgpu::Buffer>>,
}

impl Prepared {
    pub(super) fn new(step: Step, result: usize, gpu: &Opened) -> Result<Self, GpuError> {
        let kernels: Vec<&Kernel> = match &step.operation {
            Operation::Linear(layer) => {
                let tiles = Tile::ALL.into_iter();
                tiles.map(|tile| linear(tile, layer.kept_as)).collect()
            }
            Operation::Product(_) => vec![&PRODUCT],
            Operation::Softmax { .. } => vec![&SOFTMAX],
            Operation::Norm(_) => vec![&NORM],
            Operation::Elementwise { .. } => vec![&ELEMENTWISE],
            Operation::View => vec![],
        };
        let constants = upload::constants(&step.operation, gpu)?;
        Ok(Prepared {
            pipelines: kernels
                .into_iter()
                .map(|kernel| pipeline(kernel, gpu))
                .collect::<Result<_, _>>()?,
            constants,
            operation: step.operation.without_numbers(),
            inputs: step.inputs,
            result,
        })
    }

    pub(super) fn is_view(&self) -> bool {
        self.pipelines.is_empty()
    }

    /// The kernel for this tile, where there are several.
    pub(super) fn pipeline(&self, tile: Option<Tile>) -> Option<&Pipeline> {
        let place = tile.map_or(0, |tile| tile as usize);
        self.pipelines.get(place).map(|pipeline| &**pipeline)
    }

    /// How buffers are bound; nothing for a view. Kernels of one operation bind alike.
    pub(super) fn layout(&self) -> Option<&wgpu::BindGroupLayout> {
        self.pipelines.first().map(|pipeline| &pipeline.layout)
    }

    /// What the kernel binds, in order. What is not there has something else in its place, which it does not read.
    pub(super) fn buffers<'a>(
        &'a self,
        at: impl Fn(usize) -> &'a wgpu::Buffer,
    ) -> Vec<&'a wgpu::Buffer> {
        let first = at(self.inputs[0]);
        let second = self.inputs.get(1).map(|input| at(*input));
        let result = at(self.result);
        let mut buffers = vec![first];
        match &self.operation {
            Operation::Linear(_) => {
                buffers.extend(self.constants.iter().map(|buffer| &**buffer));
                buffers.push(second.unwrap_or(first));
            }
            Operation::Norm(_) => buffers.extend(self.constants.iter().map(|buffer| &**buffer)),
            Operation::Product(_)
            | Operation::Softmax { .. }
            | Operation::Elementwise { .. }
            | Operation::View => buffers.push(second.unwrap_or(first)),
        }
        buffers.push(result);
        buffers
    }
}
