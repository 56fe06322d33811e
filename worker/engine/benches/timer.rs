//! Times one model for a moment whenever it is told to; `compare.py` tells it.
//!
//! Each line on standard input is an order: a model, an engine (`inferq`, or `tract` as it comes,
//! with the exact shapes), inputs in files, and for how long. Each is answered by one line with the
//! median of its runs and the last output. Plans are kept, so that only runs are timed. As in the
//! worker, `inferq` is asked before each operator whether somebody waits for the answer. The engine
//! `profile` answers with the time of each node instead, `resident` with the memory that models take.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use inferq_engine::{Element, LoadLimits, Model, OnnxModel, Session, Tensor, load_file};
use serde_json::{Value, json};
use tract_onnx::prelude::{
    DatumType, DatumTypeExt, Framework, InferenceModelExt, IntoRunnable, IntoTValue, TValue, TVec,
    TypedSimpleState,
};

/// As in the worker.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn Error>;

struct Input {
    name: String,
    element: Element,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

enum Engine {
    Inferq(Box<dyn Session>, Vec<Tensor>),
    Tract(Box<TypedSimpleState>, TVec<TValue>),
}

fn main() -> Result<(), Failure> {
    // `cargo test --benches` starts benchmarks with arguments of its own and nobody to talk to.
    let mut engines = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let answer =
            obey(&line?, &mut engines).unwrap_or_else(|error| json!({"error": error.to_string()}));
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn obey(line: &str, engines: &mut HashMap<String, Engine>) -> Result<Value, Failure> {
    let order: Value = serde_json::from_str(line)?;
    match order["engine"].as_str() {
        Some("profile") => return profile(&order),
        Some("resident") => return resident(&order),
        _ => {}
    }
    let key = format!("{}{}{}", order["engine"], order["model"], order["inputs"]);
    if !engines.contains_key(&key) {
        // The weights of other cases would only wait in the caches.
        engines.retain(|kept, _| kept.contains(&order["inputs"].to_string()));
        engines.insert(key.clone(), prepare(&order)?);
    }
    let engine = engines.get_mut(&key).ok_or("it was just put there")?;
    let turn = Duration::from_secs_f64(order["seconds"].as_f64().unwrap_or(0.1));
    let (begun, mut times) = (Instant::now(), Vec::new());
    let mut output = Vec::new();
    while begun.elapsed() < turn || times.is_empty() {
        let started = Instant::now();
        let outputs = engine.run()?;
        times.push(started.elapsed());
        output = outputs;
    }
    times.sort_unstable();
    let median = times[times.len() / 2].as_secs_f64() * 1e3;
    Ok(json!({"median_ms": median, "runs": times.len(), "output": output}))
}

/// Costs what the worker's own question does: a lock that nobody else wants.
fn is_waited_for() -> bool {
    static WAITED_FOR: Mutex<bool> = Mutex::new(true);
    *WAITED_FOR.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// The last output as `f32`.
    fn run(&mut self) -> Result<Vec<f32>, Failure> {
        match self {
            Self::Inferq(session, inputs) => {
                let outputs = session.run_while(inputs.clone(), &is_waited_for)?;
                let last = outputs.last().ok_or("no output")?;
                let bytes = last.bytes();
                let quads = bytes.chunks_exact(4);
                Ok(quads
                    .map(|quad| f32::from_le_bytes([quad[0], quad[1], quad[2], quad[3]]))
                    .collect())
            }
            Self::Tract(state, inputs) => {
                let outputs = state.run(inputs.clone())?;
                let last = outputs.last().ok_or("no output")?;
                Ok(last.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
            }
        }
    }
}

/// Resident memory in MiB before anything is loaded and after each of the models, all of which stay.
fn resident(order: &Value) -> Result<Value, Failure> {
    let paths = order["models"].as_array().ok_or("no models")?;
    let mut sizes = vec![resident_mib()?];
    let mut loaded = Vec::new();
    for path in paths {
        let path = Path::new(path.as_str().ok_or("no path")?);
        let model = load_file(path, &LoadLimits::default())?;
        let mut session = model.session()?;
        session.run(model.trial_inputs(8).ok_or("it does not run")?)?;
        loaded.push((model, session));
        sizes.push(resident_mib()?);
    }
    Ok(json!({ "mib": sizes }))
}

fn resident_mib() -> Result<f64, Failure> {
    // What was freed goes back to the system a moment later.
    std::thread::sleep(Duration::from_millis(500));
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .ok_or("no VmRSS")?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kib / 1024.0)
}

/// Milliseconds of each node of one run, after two others.
fn profile(order: &Value) -> Result<Value, Failure> {
    let (path, inputs) = named(order)?;
    let model = load_file(path, &LoadLimits::default())?;
    let inputs = tensors(&model, &inputs)?;
    model.profile(inputs.clone())?;
    model.profile(inputs.clone())?;
    let nodes: Vec<Value> = model
        .profile(inputs)?
        .into_iter()
        .map(|node| json!([node.operator, node.node, node.took.as_secs_f64() * 1e3]))
        .collect();
    Ok(json!({ "nodes": nodes }))
}

fn prepare(order: &Value) -> Result<Engine, Failure> {
    let (path, inputs) = named(order)?;
    if order["engine"] == "tract" {
        return plain_tract(path, &inputs);
    }
    let model = load_file(path, &LoadLimits::default())?;
    Ok(Engine::Inferq(model.session()?, tensors(&model, &inputs)?))
}

fn named(order: &Value) -> Result<(&Path, Vec<Input>), Failure> {
    let path = Path::new(order["model"].as_str().ok_or("no model")?);
    let inputs = order["inputs"].as_array().ok_or("no inputs")?;
    let inputs = inputs.iter().map(read).collect::<Result<_, _>>()?;
    Ok((path, inputs))
}

fn tensors(model: &OnnxModel, inputs: &[Input]) -> Result<Vec<Tensor>, Failure> {
    let mut tensors = Vec::new();
    for spec in model.inputs() {
        let input = inputs.iter().find(|input| input.name == spec.name);
        let input = input.ok_or("an input is missing")?;
        tensors.push(Tensor::stack(input.element, &input.shape, &[&input.bytes])?);
    }
    Ok(tensors)
}

fn read(input: &Value) -> Result<Input, Failure> {
    let element = match input["element"].as_str() {
        Some("float32") => Element::F32,
        Some("int64") => Element::I64,
        other => return Err(format!("no inputs of {other:?} here").into()),
    };
    let shape = input["shape"].as_array().ok_or("no shape")?;
    Ok(Input {
        name: input["name"].as_str().ok_or("no name")?.to_owned(),
        element,
        shape: shape
            .iter()
            .filter_map(|size| usize::try_from(size.as_u64()?).ok())
            .collect(),
        bytes: std::fs::read(input["file"].as_str().ok_or("no file")?)?,
    })
}

/// What a user of tract would write who knows all shapes in advance.
fn plain_tract(path: &Path, inputs: &[Input]) -> Result<Engine, Failure> {
    let mut model = tract_onnx::onnx().model_for_path(path)?;
    let mut values = TVec::new();
    for index in 0..model.inputs.len() {
        let name = &model.node(model.inputs[index].node).name;
        let input = inputs.iter().find(|input| input.name == *name);
        let input = input.ok_or("an input is missing")?;
        let element = match input.element {
            Element::F32 => DatumType::F32,
            _ => DatumType::I64,
        };
        model.set_input_fact(index, element.fact(&input.shape).into())?;
        let mut tensor = tract_onnx::prelude::Tensor::zero_dt(element, &input.shape)?;
        tensor.as_bytes_mut().copy_from_slice(&input.bytes);
        values.push(tensor.into_tvalue());
    }
    let state = model.into_optimized()?.into_runnable()?.spawn()?;
    Ok(Engine::Tract(Box::new(state), values))
}
