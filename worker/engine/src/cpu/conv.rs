//! The convolution of images as an operator of tract's graph, and the rule that makes it.
//!
//! tract lays out the patch of every pixel before it multiplies; for small images that takes half of
//! the time. [`direct`] reads the image in place.

mod direct;
mod planes;

use std::sync::Arc;

use tract_linalg::multithread::par_chunks_mut;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::model::Rewriter;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat, PaddingSpec, PoolSpec};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::nn::DataFormat;

use self::direct::Convolution;
use self::planes::Geometry;
use super::elements;
use super::gemm::PackedWeights;
use super::tail::{HasTail, Tail, absorb};

/// Replaces convolutions of two axes with constant weights, then lets them absorb what follows.
pub(crate) fn apply(model: &mut TypedModel) -> TractResult<()> {
    Rewriter::<()>::default()
        .with_rule_for("image-conv", replace)
        .with_rule_for("image-conv-pointwise", pointwise)
        .rewrite(&(), model)?;
    Rewriter::<()>::default()
        .with_rule_for("image-conv-tail", absorb::<ImageConv>)
        .rewrite(&(), model)
}

/// Convolution of images `[images, channels, height, width]`, `f32`, with any stride, dilation and padding.
///
/// A second input, if there is one, is the residual, shaped like the output.
#[derive(Debug, Clone)]
struct ImageConv {
    pool: PoolSpec,
    /// `[channels and taps, outputs]`.
    kernel: Arc<PackedWeights>,
    tail: Tail,
}

impl PartialEq for ImageConv {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel)
            && self.pool == other.pool
            && self.tail == other.tail
    }
}

impl Eq for ImageConv {}

impl HasTail for ImageConv {
    fn tail(&mut self) -> &mut Tail {
        &mut self.tail
    }

    fn weights(&mut self) -> &mut Arc<PackedWeights> {
        &mut self.kernel
    }

    fn per_column(&self, constant: &Tensor, rank: usize) -> TractResult<Option<Arc<[f32]>>> {
        let channels = self.pool.output_channels;
        let per_channel = rank == 4 && *constant.shape() == [1, channels, 1, 1];
        if !per_channel {
            return Ok(None);
        }
        let values = constant.try_as_plain_ram()?;
        Ok(Some(values.as_slice::<f32>()?.into()))
    }
}

impl Op for ImageConv {
    fn name(&self) -> StaticName {
        "ImageConv".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let mut info = self.pool.info();
        info.push(format!("{:?}, {:?}", self.kernel, self.tail.clamp));
        Ok(info)
    }

    op_as_typed_op!();
}

impl TypedOp for ImageConv {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.pool.output_facts(&inputs[..1])
    }

    as_op!();
}

impl EvalOp for ImageConv {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let &[images, channels, height, width] = inputs[0].shape() else {
            bail!("images have 4 axes, not {}", inputs[0].rank());
        };
        ensure!(channels == self.pool.input_channels, "{channels} channels");
        let padded = self.pool.computed_padding(&[height, width]);
        let geometry = Geometry {
            channels,
            input: [height, width],
            output: [padded[0].convoluted, padded[1].convoluted],
            before: [padded[0].pad_before, padded[1].pad_before],
            taps: [self.pool.kernel_shape[0], self.pool.kernel_shape[1]],
            strides: [self.pool.stride(0), self.pool.stride(1)],
            dilations: [self.pool.dilation(0), self.pool.dilation(1)],
        };
        let shape = [
            images,
            self.pool.output_channels,
            geometry.output[0],
            geometry.output[1],
        ];
        let inputs: TVec<&Tensor> = inputs.iter().map(|input| &**input).collect();
        let (pixels, residual) = (
            elements::<f32>(inputs[0])?,
            Tail::residual(&inputs, &shape)?,
        );
        let mut output = Tensor::zero::<f32>(&shape)?;
        let (size, result_size) = (
            channels * height * width,
            shape[1..].iter().product::<usize>(),
        );
        if images == 0 || result_size == 0 {
            return Ok(tvec!(output.into_tvalue()));
        }
        let work = images * result_size * self.kernel.k();
        let mut plain = output.try_as_plain_ram_mut()?;
        let results = plain.as_slice_mut::<f32>()?;
        par_chunks_mut(results, result_size, work, |first, results| {
            // Chunks are whole images, though perhaps more than one.
            for (index, result) in results.chunks_exact_mut(result_size).enumerate() {
                let image = first + index;
                let residual = residual
                    .as_ref()
                    .map(|residual| &residual[image * result_size..][..result_size]);
                let pixels = &pixels[image * size..][..size];
                let convolution = Convolution {
                    weights: &self.kernel,
                    geometry: &geometry,
                    pixels,
                    bias: self.tail.bias.as_deref(),
                    residual,
                    clamp: self.tail.clamp,
                };
                convolution.run(result);
            }
            Ok(())
        })?;
        Ok(tvec!(output.into_tvalue()))
    }
}

fn replace(
    _: &(),
    model: &TypedModel,
    node: &TypedNode,
    _name: &str,
    conv: &Conv,
) -> TractResult<Option<TypedModelPatch>> {
    let pool = &conv.pool_spec;
    // Depth-wise convolutions, among others with groups, have a kernel of their own in tract.
    let plain = conv.q_params.is_none()
        && conv.group == 1
        && conv.kernel_fmt == KernelFormat::OIHW
        && pool.data_format == DataFormat::NCHW
        && pool.rank() == 2
        && pool.input_channels > 0
        && node.inputs.len() == 3
        && model.outlet_fact(node.inputs[0])?.datum_type == f32::datum_type();
    if !plain {
        return Ok(None);
    }
    let constant = |input: usize| -> TractResult<Option<Arc<Tensor>>> {
        let constant = model.outlet_fact(node.inputs[input])?.konst.clone();
        Ok(constant.filter(|constant| {
            constant.is_plain_ram() && constant.datum_type() == f32::datum_type()
        }))
    };
    let (Some(kernel), Some(bias)) = (constant(1)?, constant(2)?) else {
        return Ok(None);
    };
    let depth = pool.input_channels * pool.kernel_shape.iter().product::<usize>();
    let weights = kernel.try_as_plain_ram()?;
    let weights = weights.as_slice::<f32>()?;
    let bias_values = bias.try_as_plain_ram()?;
    let bias = match bias_values.as_slice::<f32>()? {
        [value] => Some(vec![*value; pool.output_channels]),
        values if values.len() == pool.output_channels => Some(values.to_vec()),
        _ => return Ok(None),
    };
    let bias = bias.filter(|values| values.iter().any(|value| *value != 0.0));
    let op = ImageConv {
        pool: pool.clone(),
        kernel: PackedWeights::shared(&transposed(weights, depth), depth, pool.output_channels),
        tail: Tail::with_bias(bias.map(Into::into)),
    };
    TypedModelPatch::replace_single_op(model, node, &node.inputs[..1], op).map(Some)
}

/// A convolution of one tap, which tract has made a product over the channels of each pixel.
fn pointwise(
    _: &(),
    model: &TypedModel,
    node: &TypedNode,
    _name: &str,
    op: &EinSum,
) -> TractResult<Option<TypedModelPatch>> {
    if op.q_params.is_some() || op.operating_dt != f32::datum_type() || node.inputs.len() != 2 {
        return Ok(None);
    }
    for constant in [0, 1] {
        let Some(weights) = model.outlet_fact(node.inputs[constant])?.konst.clone() else {
            continue;
        };
        let images = node.inputs[1 - constant];
        let fact = model.outlet_fact(images)?;
        let floats =
            weights.datum_type() == f32::datum_type() && fact.datum_type == f32::datum_type();
        let Some(order) = pixel_product(&op.axes, constant) else {
            continue;
        };
        // A number of channels that is open is tract's to decide.
        let known = fact.shape[1] == weights.shape()[order[0]].to_dim();
        if !floats || !known || weights.len() == 0 || !weights.is_plain_ram() {
            continue;
        }
        let weights = weights.as_ref().clone().permute_axes(&order)?;
        let (depth, outputs) = (weights.shape()[0], weights.shape()[1]);
        let weights = weights.try_as_plain_ram()?;
        let op = ImageConv {
            pool: PoolSpec {
                data_format: DataFormat::NCHW,
                kernel_shape: tvec!(1, 1),
                padding: PaddingSpec::Valid,
                dilations: None,
                strides: None,
                input_channels: depth,
                output_channels: outputs,
            },
            kernel: PackedWeights::shared(weights.as_slice::<f32>()?, depth, outputs),
            tail: Tail::default(),
        };
        return TypedModelPatch::replace_single_op(model, node, &[images], op).map(Some);
    }
    Ok(None)
}

/// How the constant's axes have to be ordered to be channels in, channels out.
///
/// `None` unless the other input is `[images, channels in, height, width]` and the output
/// `[images, channels out, height, width]`.
fn pixel_product(axes: &AxesMapping, constant: usize) -> Option<[usize; 2]> {
    let (mut kept, mut inside, mut outside) = (vec![], None, None);
    for axis in axes.iter_all_axes() {
        match (
            &axis.inputs[1 - constant][..],
            &axis.inputs[constant][..],
            &axis.outputs[0][..],
        ) {
            (&[from], &[], &[to]) if from == to => kept.push(from),
            (&[1], &[weight], &[]) => inside = Some(weight),
            (&[], &[weight], &[1]) => outside = Some(weight),
            _ => return None,
        }
    }
    kept.sort_unstable();
    (kept == [0, 2, 3]).then_some(())?;
    Some([inside?, outside?])
}

/// `[outputs, depth]` to `[depth, outputs]`.
fn transposed(weights: &[f32], depth: usize) -> Vec<f32> {
    let outputs = weights.chunks_exact(depth.max(1));
    (0..depth)
        .flat_map(|step| outputs.clone().map(move |output| output[step]))
        .collect()
}
