//! ONNX bytes to a plan, step by step: decode, refuse, translate, type, simplify, optimize.
//!
//! Sizes a model leaves open become symbols, so one plan serves every batch size.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use tract_linalg::multithread::Executor;
use tract_onnx::data_resolver::FopenDataResolver;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{
    Framework, InferenceModel, InferenceModelExt, RunOptions, TractError, TractResult, TypedModel,
    TypedSimplePlan,
};
use tract_onnx::tract_core::internal::TDim;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_hir::infer::Factoid;

use crate::error::{LoadError, Stage};
use crate::inspect::{Contents, check_opset};
use crate::plan::{About, Constants, OnnxModel};
use crate::{resident, rewrite, trees};

/// Name of the size that a batch has where the model gives axis 0 none.
const BATCH: &str = "batch";

/// Longest account of a compiler error that is kept. Some of tract's name whole weights.
const MAX_REASON_BYTES: usize = 600;

/// What a model may cost and ask for.
#[derive(Debug, Clone)]
pub struct LoadLimits {
    /// Most bytes of the model file and its external data together. Default 2 GiB, which is also as much as one ONNX file can hold.
    pub max_bytes: u64,
    /// Most nodes, those of inner graphs included. Default 100 000; a large language model has some 5 000.
    pub max_nodes: usize,
    /// Versions of the default operator set. Default 7 to 25: before 7 arithmetic broadcasts by other rules; what comes after 25 is not known to mean the same here.
    pub opsets: RangeInclusive<i64>,
    /// Threads that share the work of one run. Default 1, which gives the highest throughput
    /// when there is a session per core; more shorten a single run of a large model.
    pub threads_per_run: NonZeroUsize,
    /// Card that dense parts may run on. Default none: everything runs on the CPU.
    #[cfg(feature = "gpu")]
    pub gpu: Option<crate::gpu::Gpu>,
    /// How they use it.
    #[cfg(feature = "gpu")]
    pub card: crate::CardSettings,
}

impl Default for LoadLimits {
    fn default() -> Self {
        LoadLimits {
            max_bytes: 2 << 30,
            max_nodes: 100_000,
            opsets: 7..=25,
            threads_per_run: NonZeroUsize::MIN,
            #[cfg(feature = "gpu")]
            gpu: None,
            #[cfg(feature = "gpu")]
            card: crate::CardSettings::default(),
        }
    }
}

/// Loads `path`, and weights kept beside it under plain relative names.
///
/// Blocks for as long as compiling takes: milliseconds for a small model, seconds for a
/// large one. A panic inside the compiler becomes an error here; the process's panic hook
/// still hears of it. A file made to do harm can still keep the compiler busy without end
/// (an impossible axis of `LayerNormalization` does), so load on a thread that nothing else
/// waits for, and from sources you trust.
///
/// # Errors
/// [`LoadError`], which names the node, tensor or file at fault where it is known.
pub fn load_file(path: &Path, limits: &LoadLimits) -> Result<OnnxModel, LoadError> {
    let read = |source| LoadError::Read {
        path: path.to_path_buf(),
        source,
    };
    let file = File::open(path).map_err(read)?;
    let stated = file.metadata().map_err(read)?.len();
    check_bytes(stated, limits)?;
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a file which grows meanwhile is still noticed.
    file.take(limits.max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(read)?;
    load(&bytes, path.parent(), limits)
}

/// Loads a model whose weights are all inside `bytes`. As [`load_file`] otherwise.
///
/// # Errors
/// As [`load_file`]; [`LoadError::ExternalData`] if a weight is kept elsewhere.
pub fn load_bytes(bytes: &[u8], limits: &LoadLimits) -> Result<OnnxModel, LoadError> {
    load(bytes, None, limits)
}

fn load(bytes: &[u8], folder: Option<&Path>, limits: &LoadLimits) -> Result<OnnxModel, LoadError> {
    check_bytes(bytes.len() as u64, limits)?;
    let mut framework = tract_onnx::onnx();
    // Not the memory map tract would use: a mapped file that shrinks kills the process.
    framework.provider = Arc::new(FopenDataResolver);
    trees::register(&mut framework.op_register);

    let malformed = |reason| LoadError::Malformed { reason };
    let mut rest = bytes;
    let decoded = unpanicked(|| framework.proto_model_for_read(&mut rest)).map_err(malformed)?;
    let Some(graph) = &decoded.graph else {
        return Err(malformed("it holds no graph".to_owned()));
    };
    check_opset(&decoded, limits)?;
    let contents = Contents::of(graph);
    contents.check_size(limits)?;
    contents.check_operators(|name| framework.op_register.0.contains_key(name))?;
    let folder = folder.map(|folder| {
        if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        }
    });
    check_bytes(
        contents
            .external_bytes(folder)?
            .saturating_add(bytes.len() as u64),
        limits,
    )?;
    let random_operator = contents.random_operator().map(str::to_owned);
    let output_names = graph
        .output
        .iter()
        .map(|output| output.name.clone())
        .collect();

    let inferred = at(Stage::Translation, || {
        translate(&framework, &decoded, folder)
    })?;
    drop(decoded);
    check_inputs(&inferred)?;
    let typed = at(Stage::Typing, || typed(inferred))?;
    let mut decluttered = at(Stage::Declutter, || typed.into_decluttered())?;
    let constants = constants(&decluttered);
    let optimized = at(Stage::Optimization, || {
        rewrite::apply(&mut decluttered)?;
        #[cfg(feature = "gpu")]
        if let Some(gpu) = &limits.gpu {
            crate::segment::cut(&mut decluttered, gpu, limits.card)?;
        }
        let mut optimized = decluttered.into_optimized()?;
        resident::share_constants(&mut optimized)?;
        Ok(optimized)
    })?;
    let executor = match limits.threads_per_run.get() {
        1 => Executor::SingleThread,
        threads => Executor::multithread_with_name(threads, "inferq-run"),
    };
    let plan = at(Stage::Planning, || {
        let options = RunOptions {
            executor: Some(executor.clone()),
            ..RunOptions::default()
        };
        TypedSimplePlan::new_with_options(optimized, &options)
    })?;
    let about = About {
        output_names,
        random_operator,
        constants,
        #[cfg(feature = "gpu")]
        card: limits.gpu.as_ref().map(|gpu| gpu.info().name.clone()),
    };
    // It is run here for the first time, on invented inputs.
    let made = catch_unwind(AssertUnwindSafe(|| OnnxModel::new(plan, about)));
    let model = made.map_err(|panic| LoadError::Graph {
        stage: Stage::Planning,
        reason: panic_reason(panic.as_ref()),
    })??;
    // After the batch proof, which holds for the CPU: a card may give other last bits.
    #[cfg(feature = "gpu")]
    tract_linalg::multithread::multithread_tract_scope(executor, || {
        crate::segment::settle(model.graph())
    });
    Ok(model)
}

fn check_bytes(bytes: u64, limits: &LoadLimits) -> Result<(), LoadError> {
    if bytes > limits.max_bytes {
        return Err(LoadError::TooLarge {
            bytes,
            limit: limits.max_bytes,
        });
    }
    Ok(())
}

fn translate(
    framework: &tract_onnx::Onnx,
    decoded: &ModelProto,
    folder: Option<&Path>,
) -> TractResult<InferenceModel> {
    let parsed = framework.parse(decoded, folder.and_then(Path::to_str))?;
    if !parsed.unresolved_inputs.is_empty() {
        return Err(TractError::msg(format!(
            "nothing gives {:?}",
            parsed.unresolved_inputs
        )));
    }
    Ok(parsed.model)
}

/// Inputs need a rank and an element type: without them nothing that comes in could be checked.
fn check_inputs(model: &InferenceModel) -> Result<(), LoadError> {
    for input in &model.inputs {
        let node = model.node(input.node);
        let fact = &node.outputs[input.slot].fact;
        let reason = if fact.shape.is_open() {
            "the model does not say how many axes it has"
        } else if !fact.datum_type.is_concrete() {
            "the model does not say what its elements are"
        } else {
            continue;
        };
        return Err(LoadError::Interface {
            tensor: node.name.clone(),
            reason: reason.to_owned(),
        });
    }
    Ok(())
}

/// Types the graph, with a symbol for each size it leaves open.
///
/// Axis 0 is the batch: all inputs that leave it open share one symbol, the named one if some input names it.
fn typed(mut model: InferenceModel) -> TractResult<TypedModel> {
    let batch = match named_batch(&model) {
        Some(named) => named,
        None => model.symbols.sym(BATCH).into(),
    };
    for axis_0 in [true, false] {
        for index in 0..model.inputs.len() {
            let name = model.node(model.inputs[index].node).name.clone();
            let mut fact = model.input_fact(index)?.clone();
            for axis in 0..fact.shape.dims().count() {
                let open = fact.shape.dim(axis).is_some_and(|size| !size.is_concrete());
                if !open || (axis_0 && axis != 0) {
                    continue;
                }
                let size = if axis == 0 {
                    batch.clone()
                } else {
                    model
                        .symbols
                        .new_with_prefix(&format!("{name}_{axis}"))
                        .into()
                };
                fact.shape.set_dim(axis, size);
            }
            model.set_input_fact(index, fact)?;
        }
        // What the graph itself implies for the other axes comes before a symbol does:
        // an input that meets a 64-row weight has 64 columns, whether it says so or not.
        model.analyse(false)?;
    }
    model.into_typed()
}

/// The symbol on axis 0 of the inputs that name one, if they agree on it.
fn named_batch(model: &InferenceModel) -> Option<TDim> {
    let facts = model
        .inputs
        .iter()
        .filter_map(|input| model.outlet_fact(*input).ok());
    let names: Vec<TDim> = facts
        .filter_map(|fact| fact.shape.dim(0)?.concretize())
        .filter(|size| matches!(size, TDim::Sym(_)))
        .collect();
    let distinct: BTreeSet<String> = names.iter().map(TDim::to_string).collect();
    if distinct.len() == 1 {
        names.into_iter().next()
    } else {
        None
    }
}

/// All constants. The optimizer repacks them, with a little padding, and drops these.
fn constants(model: &TypedModel) -> Constants {
    let outputs = model
        .nodes()
        .iter()
        .filter(|node| node.op_is::<Const>())
        .flat_map(|node| &node.outputs);
    let constants = outputs.filter_map(|output| output.fact.konst.as_ref());
    constants.fold(Constants::default(), |all, constant| Constants {
        count: all.count + constant.len() as u64,
        bytes: all.bytes + (constant.len() * constant.datum_type().size_of()) as u64,
    })
}

/// Runs one stage; its error or panic becomes [`LoadError::Graph`].
fn at<T>(stage: Stage, step: impl FnOnce() -> TractResult<T>) -> Result<T, LoadError> {
    unpanicked(step).map_err(|reason| LoadError::Graph { stage, reason })
}

/// tract panics on some files that make no sense. Nothing a step touches outlives its failure,
/// so a half-changed value is never seen.
fn unpanicked<T>(step: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(result) => result.map_err(|error| reason(&error)),
        Err(panic) => Err(panic_reason(panic.as_ref())),
    }
}

pub(crate) fn panic_reason(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_else(|| "for no stated reason".to_owned());
    shortened(format!("the compiler panicked: {text}"))
}

/// All causes of a tract error in one line of bounded length.
pub(crate) fn reason(error: &TractError) -> String {
    shortened(format!("{error:#}"))
}

fn shortened(text: String) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > MAX_REASON_BYTES {
        let end = (0..=MAX_REASON_BYTES)
            .rev()
            .find(|at| line.is_char_boundary(*at));
        line.truncate(end.unwrap_or(0));
        line.push('…');
    }
    line
}
