//! The two operators, as tract's compiler sees them.

use std::sync::Arc;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_hir::infer::{
    InferenceOp, Solver, TensorProxy, check_input_arity, check_output_arity,
};
use tract_onnx::tract_hir::internal::{Expansion, InferenceResult, expand};

use super::forest::{Aggregate, Forest};
use super::parse;
use super::scores::{Binary, PostTransform, largest};
use crate::cpu::elements;

type Translated = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// `TreeEnsembleClassifier`: rows to labels `[rows]` and scores `[rows, classes]`.
pub(super) fn classifier(_: &ParsingContext, node: &NodeProto) -> Translated {
    let numbers: Option<&[i64]> = node.get_attr_opt_slice("classlabels_int64s")?;
    let names: Option<Vec<&str>> = node.get_attr_opt_vec("classlabels_strings")?;
    let labels = match (numbers, names) {
        (Some(numbers), None) => tensor1(numbers),
        (None, Some(names)) => {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            tensor1(&names)
        }
        _ => bail!("one of classlabels_int64s and classlabels_strings gives the labels"),
    };
    let classes = labels.len();
    ensure!(classes > 0, "the classifier has no class");
    let forest = parse::forest(node, "class", classes, Aggregate::Sum)?;
    let mut named: Vec<u32> = forest.values.iter().map(|(class, _)| *class).collect();
    named.sort_unstable();
    named.dedup();
    let binary = match named[..] {
        [class] if classes == 2 => Some(Binary {
            class: class as usize,
            probabilities: forest.values.iter().all(|(_, value)| *value >= 0.0),
        }),
        _ => None,
    };
    translated(node, forest, Some(Labels { labels, binary }))
}

/// `TreeEnsembleRegressor`: rows to `[rows, targets]`.
pub(super) fn regressor(_: &ParsingContext, node: &NodeProto) -> Translated {
    let targets: i64 = node.get_attr("n_targets")?;
    let targets = usize::try_from(targets).ok().filter(|targets| *targets > 0);
    let targets = targets.context("n_targets is at least 1")?;
    let forest = parse::forest(node, "target", targets, parse::aggregate(node)?)?;
    translated(node, forest, None)
}

fn translated(node: &NodeProto, forest: Forest, labels: Option<Labels>) -> Translated {
    let binary = labels.as_ref().and_then(|labels| labels.binary);
    let ensemble = Ensemble {
        base: base_values(node, forest.targets, binary)?,
        post: PostTransform::parse(node.get_attr_opt("post_transform")?)?,
        forest,
        labels,
    };
    Ok((expand(TreeEnsemble(Arc::new(ensemble))), vec![]))
}

/// `base_values`: one for each target, or the one for the class that all leaves speak of.
fn base_values(node: &NodeProto, targets: usize, binary: Option<Binary>) -> TractResult<Vec<f32>> {
    let values: &[f32] = node.get_attr_opt_slice("base_values")?.unwrap_or_default();
    match (values, binary) {
        (&[value], Some(binary)) => {
            let mut values = vec![0.0; targets];
            values[binary.class] = value;
            Ok(values)
        }
        _ if values.is_empty() || values.len() == targets => Ok(values.to_vec()),
        _ => bail!("{} base_values for {targets} targets", values.len()),
    }
}

/// An ensemble and what is done with its sums.
#[derive(Debug, PartialEq)]
struct Ensemble {
    forest: Forest,
    /// Added to the targets: one each, or none at all.
    base: Vec<f32>,
    post: PostTransform,
    /// A classifier has some.
    labels: Option<Labels>,
}

#[derive(Debug, PartialEq)]
struct Labels {
    /// `i64` or strings, one per class.
    labels: Tensor,
    binary: Option<Binary>,
}

impl Ensemble {
    /// Scores of all rows, and where the label of each stands among the labels.
    fn run(&self, sums: Vec<f32>) -> (Vec<f32>, Vec<usize>) {
        let mut scores = sums;
        let mut places = Vec::new();
        for row in scores.chunks_exact_mut(self.forest.targets) {
            for (score, base) in row.iter_mut().zip(&self.base) {
                *score += base;
            }
            match &self.labels {
                Some(Labels {
                    binary: Some(binary),
                    ..
                }) => {
                    places.push(binary.complete(row, self.post));
                }
                Some(_) => {
                    places.push(largest(row));
                    self.post.apply(row);
                }
                None => self.post.apply(row),
            }
        }
        (scores, places)
    }
}

/// The operator. Two are equal if they are the same one.
#[derive(Debug, Clone)]
struct TreeEnsemble(Arc<Ensemble>);

impl PartialEq for TreeEnsemble {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TreeEnsemble {}

impl TreeEnsemble {
    fn label_type(&self) -> Option<DatumType> {
        self.0
            .labels
            .as_ref()
            .map(|labels| labels.labels.datum_type())
    }
}

impl Op for TreeEnsemble {
    fn name(&self) -> StaticName {
        "TreeEnsemble".into()
    }

    op_as_typed_op!();
}

impl Expansion for TreeEnsemble {
    fn name(&self) -> StaticName {
        "TreeEnsemble".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(1 + usize::from(self.0.labels.is_some()))
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, self.nboutputs()?)?;
        solver.equals(&inputs[0].rank, 2)?;
        let scores = &outputs[outputs.len() - 1];
        if let Some(label_type) = self.label_type() {
            solver.equals(&outputs[0].datum_type, label_type)?;
            solver.equals(&outputs[0].rank, 1)?;
            solver.equals(&outputs[0].shape[0], &inputs[0].shape[0])?;
        }
        solver.equals(&scores.datum_type, DatumType::F32)?;
        solver.equals(&scores.rank, 2)?;
        solver.equals(&scores.shape[0], &inputs[0].shape[0])?;
        solver.equals(&scores.shape[1], self.0.forest.targets.to_dim())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl EvalOp for TreeEnsemble {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let forest = &self.0.forest;
        let &[rows, width] = input.shape() else {
            bail!("rows of features have 2 axes, not {}", input.rank());
        };
        ensure!(
            width >= forest.features,
            "rows of {width} features; the trees ask for {}",
            forest.features
        );
        // Other types are held exactly by `f64`, up to integers of 53 bits.
        let sums = if rows == 0 {
            Vec::new()
        } else if input.datum_type() == DatumType::F32 {
            forest.scores(&elements::<f32>(&input)?, width)
        } else {
            let input = input.cast_to::<f64>()?;
            forest.scores(&elements::<f64>(&input)?, width)
        };
        let (scores, places) = self.0.run(sums);
        let scores = Tensor::from_shape(&[rows, forest.targets], &scores)?.into_tvalue();
        let Some(Labels { labels, .. }) = &self.0.labels else {
            return Ok(tvec!(scores));
        };
        let labels = if labels.datum_type() == DatumType::I64 {
            chosen::<i64>(labels, &places)?
        } else {
            chosen::<String>(labels, &places)?
        };
        Ok(tvec!(labels.into_tvalue(), scores))
    }
}

fn chosen<T: Datum + Clone>(labels: &Tensor, places: &[usize]) -> TractResult<Tensor> {
    let labels = labels.try_as_plain_ram()?;
    let labels = labels.as_slice::<T>()?;
    let chosen: Vec<T> = places.iter().map(|place| labels[*place].clone()).collect();
    Ok(tensor1(&chosen))
}

impl TypedOp for TreeEnsemble {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let rows = inputs[0].shape[0].clone();
        let mut facts = tvec!();
        if let Some(label_type) = self.label_type() {
            facts.push(label_type.fact([rows.clone()]));
        }
        facts.push(f32::fact([rows, self.0.forest.targets.to_dim()]));
        Ok(facts)
    }

    as_op!();
}
