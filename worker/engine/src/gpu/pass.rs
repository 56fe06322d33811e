//! One batch on its way: what it takes, what goes up, the launches, and what comes down.

use super::dispatch::{Dispatch, count};
use super::error::GpuError;
use super::layout::value_bytes;
use super::operation::Choice;
use super::pipeline::Pipeline;
use super::program::Program;
use super::slots::Place;
use super::workspace::{Needs, Workspace};

impl Program {
    /// Puts the given values where the device copies them from.
    pub(super) fn write(&self, workspace: &Workspace, inputs: &[&[f32]]) -> Result<(), GpuError> {
        let bytes = inputs
            .iter()
            .map(|input| 4 * input.len() as u64)
            .sum::<u64>();
        if bytes > 0 {
            let mapped = workspace.upload.slice(..bytes).get_mapped_range_mut();
            let mut mapped = mapped.map_err(|error| GpuError::Fault(error.to_string()))?;
            let mut start = 0;
            for input in inputs {
                let input: &[u8] = bytemuck::cast_slice(input);
                mapped
                    .slice(start..start + input.len())
                    .copy_from_slice(input);
                start += input.len();
            }
        }
        workspace.upload.unmap();
        Ok(())
    }

    pub(super) fn launches(
        &self,
        shapes: &[Vec<usize>],
        choice: Choice,
    ) -> Result<Vec<Option<Dispatch>>, GpuError> {
        let launches = self.steps.iter();
        let launches = launches.map(|step| step.launch(shapes, choice, &self.gpu));
        launches.collect()
    }

    /// What a batch takes beside sums in pieces.
    pub(super) fn needs(&self, given: &[usize], shapes: &[Vec<usize>]) -> Result<Needs, GpuError> {
        let mut slots = vec![4; self.slots];
        for (place, shape) in self.places.iter().zip(shapes) {
            if let Place::Slot(slot) = place {
                let bytes = value_bytes("the batch", count(shape), &self.gpu)?;
                slots[*slot] = bytes.max(slots[*slot]);
            }
        }
        let sizes = |values: &[usize]| values.iter().map(|value| self.lying(*value, shapes)).sum();
        Ok(Needs {
            slots,
            sums: 0,
            upload: value_bytes("the batch", sizes(given), &self.gpu)?,
            download: value_bytes("the result", sizes(&self.outputs), &self.gpu)?,
        })
    }

    /// Numbers that hold the value where it lies.
    fn lying(&self, value: usize, shapes: &[Vec<usize>]) -> usize {
        let own = count(&shapes[value]);
        self.parts[value].map_or(own, |part| part.whole(own))
    }

    /// Bytes of the largest sums that a launch leaves in pieces.
    pub(super) fn sums(&self, launches: &[Option<Dispatch>]) -> Result<u64, GpuError> {
        let joins = launches.iter().flatten();
        let joins = joins.filter_map(|launch| launch.join.as_ref());
        match joins.map(|join| join.sums).max() {
            Some(sums) => value_bytes("the sums of a layer", sums, &self.gpu),
            None => Ok(0),
        }
    }

    /// The copies of what goes up, one pass with a dispatch per step, and the copies of what comes down.
    pub(super) fn record(
        &self,
        commands: &mut wgpu::CommandEncoder,
        workspace: &Workspace,
        given: &[usize],
        launches: &[Option<Dispatch>],
        shapes: &[Vec<usize>],
    ) {
        let bytes = |value: usize| 4 * self.lying(value, shapes) as u64;
        let mut start = 0;
        for value in given {
            if let Place::Slot(slot) = self.places[*value] {
                let slot = &workspace.slots[slot];
                let own = Some(bytes(*value));
                commands.copy_buffer_to_buffer(&workspace.upload, start, slot, 0, own);
            }
            start += bytes(*value);
        }
        {
            let mut pass = commands.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for ((step, launch), bound) in self.steps.iter().zip(launches).zip(&workspace.bindings)
            {
                let (Some(launch), Some(bound)) = (launch, bound) else {
                    continue;
                };
                let mut dispatch = |pipeline: Option<&Pipeline>, bindings, [x, y, z]: [u32; 3]| {
                    if let Some(pipeline) = pipeline {
                        pass.set_pipeline(&pipeline.pipeline);
                        pass.set_bind_group(0, bindings, &[]);
                        pass.set_immediates(0, launch.immediates());
                        pass.dispatch_workgroups(x, y, z);
                    }
                };
                let pipeline = step.pipeline(launch.tile);
                match &launch.join {
                    None => dispatch(pipeline, &bound.whole, launch.groups),
                    Some(join) => {
                        // There is room for its sums: see `sums`.
                        if let Some([split, joined]) = &bound.split {
                            dispatch(pipeline, split, launch.groups);
                            dispatch(step.joining(), joined, join.groups);
                        }
                    }
                }
            }
        }
        let mut start = 0;
        for output in &self.outputs {
            let source = match self.places[*output] {
                Place::Slot(slot) => &workspace.slots[slot],
                Place::Constant(number) => &*self.constants[number],
            };
            let own = Some(bytes(*output));
            commands.copy_buffer_to_buffer(source, 0, &workspace.download, start, own);
            start += bytes(*output);
        }
    }

    pub(super) fn read(
        &self,
        workspace: &Workspace,
        bytes: u64,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Vec<f32>>, GpuError> {
        let mapped = workspace
            .download
            .slice(..bytes)
            .get_mapped_range()
            .map_err(|error| GpuError::Fault(error.to_string()))?;
        let mut rest = &mapped[..];
        let results = self.outputs.iter().map(|output| {
            let (own, after) = rest.split_at(4 * self.lying(*output, shapes));
            rest = after;
            let own = bytemuck::pod_collect_to_vec(own);
            match self.parts[*output] {
                Some(part) => part.taken(&own),
                None => own,
            }
        });
        Ok(results.collect())
    }
}
