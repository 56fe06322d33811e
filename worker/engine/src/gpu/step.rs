//! A step of a program, ready to be launched: its kernels and what it brings with it.

use std::ops::Range;
use std::sync::Arc;

use inferq_shaders::{ELEMENTWISE, Kernel, NORM, PRODUCT, SOFTMAX, Tile, Weights, joined, linear};

use super::device::Opened;
use super::dispatch::{Dispatch, Given, dispatch};
use super::error::GpuError;
use super::operation::{Choice, Operation};
use super::part::Part;
use super::pipeline::{Pipeline, pipeline};
use super::program::Step;
use super::upload;

/// A step whose constants are on the device.
pub(super) struct Prepared {
    pub(super) operation: Operation,
    pub(super) inputs: Vec<usize>,
    pub(super) result: usize,
    /// What each of its inputs is a part of.
    parts: Vec<Option<Part>>,
    /// Those of the result that a dense layer computes here; its weights may come in panels.
    columns: Range<usize>,
    /// Nothing for a view or a part; for a dense layer one for each tile, in their order, then what joins the pieces
    /// and, where it may be used, the card's own product of matrices.
    pipelines: Vec<Arc<Pipeline>>,
    constants: Vec<Arc<wgpu::Buffer>>,
}

impl Prepared {
    /// The step as it is, or, if the weights of a dense layer cannot be bound at once, one for each panel of them.
    ///
    /// `parts` says of each value before what it is a part of.
    pub(super) fn all(
        step: &Step,
        result: usize,
        parts: &[Option<Part>],
        gpu: &Opened,
    ) -> Result<Vec<Self>, GpuError> {
        let panels = match &step.operation {
            Operation::Linear(layer) => upload::panels(layer, gpu),
            _ => std::iter::once(0..0).collect(),
        };
        let prepared = panels
            .into_iter()
            .map(|columns| Self::new(step, result, parts, columns, gpu));
        prepared.collect()
    }

    fn new(
        step: &Step,
        result: usize,
        parts: &[Option<Part>],
        columns: Range<usize>,
        gpu: &Opened,
    ) -> Result<Self, GpuError> {
        let kernels: Vec<&Kernel> = match &step.operation {
            Operation::Linear(layer) => {
                let tiles = Tile::ALL.into_iter();
                let tiles = tiles.filter_map(|tile| linear(tile, layer.kept_as));
                let own = gpu.cooperative().filter(|_| layer.kept_as == Weights::Half);
                let own = own.map(|cooperative| &cooperative.kernel);
                tiles.chain([joined(layer.kept_as)]).chain(own).collect()
            }
            Operation::Product(_) => vec![&PRODUCT],
            Operation::Softmax { .. } => vec![&SOFTMAX],
            Operation::Norm(_) => vec![&NORM],
            Operation::Elementwise { .. } => vec![&ELEMENTWISE],
            Operation::View | Operation::Part(_) => vec![],
        };
        let constants = upload::constants(&step.operation, &columns, gpu)?;
        Ok(Prepared {
            pipelines: kernels
                .into_iter()
                .map(|kernel| pipeline(kernel, gpu))
                .collect::<Result<_, _>>()?,
            constants,
            operation: step.operation.without_numbers(),
            parts: step.inputs.iter().map(|input| parts[*input]).collect(),
            inputs: step.inputs.clone(),
            result,
            columns,
        })
    }

    /// How to launch it on values of these shapes; `None` if there is nothing to do.
    pub(super) fn launch(
        &self,
        shapes: &[Vec<usize>],
        choice: Choice,
        gpu: &Opened,
    ) -> Result<Option<Dispatch>, GpuError> {
        let inputs = self.inputs.iter().zip(&self.parts);
        let inputs = inputs.map(|(input, part)| Given {
            shape: &shapes[*input],
            part: *part,
        });
        let inputs: Vec<Given<'_>> = inputs.collect();
        let result = &shapes[self.result];
        dispatch(&self.operation, &self.columns, &inputs, result, choice, gpu)
    }

    /// Whether its result lies where its first input does.
    pub(super) fn is_view(&self) -> bool {
        self.pipelines.is_empty()
    }

    /// The kernel for this tile, where there are several.
    pub(super) fn pipeline(&self, tile: Option<Tile>) -> Option<&Pipeline> {
        let place = match tile {
            None => 0,
            Some(Tile::Cooperative) => Tile::ALL.len() + 1,
            Some(tile) => tile as usize,
        };
        self.pipelines.get(place).map(|pipeline| &**pipeline)
    }

    /// The kernel that adds up pieces, for a dense layer.
    pub(super) fn joining(&self) -> Option<&Pipeline> {
        let pipeline = self.pipelines.get(Tile::ALL.len());
        pipeline.map(|pipeline| &**pipeline)
    }

    /// How buffers are bound; nothing for a view or a part. Kernels of one operation bind alike.
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
            | Operation::View
            | Operation::Part(_) => buffers.push(second.unwrap_or(first)),
        }
        buffers.push(result);
        buffers
    }

    /// The same for the two kernels of a dense layer that is split, with the sums in between; nothing for all else.
    pub(super) fn split_buffers<'a>(
        &'a self,
        at: impl Fn(usize) -> &'a wgpu::Buffer,
        sums: &'a wgpu::Buffer,
    ) -> Option<[Vec<&'a wgpu::Buffer>; 2]> {
        self.joining()?;
        let all = self.buffers(at);
        let [rows, weights, bias, residual, result] = all[..] else {
            return None;
        };
        Some([
            vec![rows, weights, bias, rows, sums],
            vec![sums, weights, bias, residual, result],
        ])
    }
}
