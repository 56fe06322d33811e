//! What tests of single stages begin with: a room, and versions with a model that is no model.

use std::sync::Arc;
use std::time::Duration;

use inferq_engine::{BatchProof, Element, Model, RunError, Session, Tensor, TensorSpec};
use inferq_schemas::identity::Digest;
use inferq_schemas::subjects::ModelName;

use crate::hold::{Room, RoomLimits};
use crate::metrics::Metrics;
use crate::models::Version;
use crate::models::pace::Pace;
use crate::models::settings::ModelSettings;
use crate::models::specs::wire_spec;

/// What a fake model does with its batch of `[rows, 1]` f32. While it says `Stopped` there is another
/// operator to run.
pub(crate) type Behaviour = fn(&[f32]) -> Result<Vec<f32>, RunError>;

/// A model with one input `x` and one output `y`, both `[any, 1]` f32.
struct Fake {
    specs: [TensorSpec; 2],
    proof: BatchProof,
    behaviour: Behaviour,
}

struct FakeSession(Behaviour);

impl Model for Fake {
    fn inputs(&self) -> &[TensorSpec] {
        &self.specs[..1]
    }
    fn outputs(&self) -> &[TensorSpec] {
        &self.specs[1..]
    }
    fn batch_proof(&self) -> &BatchProof {
        &self.proof
    }
    fn is_deterministic(&self) -> bool {
        true
    }
    fn memory_bytes(&self) -> u64 {
        0
    }
    fn session(&self) -> Result<Box<dyn Session>, RunError> {
        Ok(Box::new(FakeSession(self.behaviour)))
    }
}

impl Session for FakeSession {
    fn run_while(
        &mut self,
        inputs: Vec<Tensor>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Vec<Tensor>, RunError> {
        let bytes = inputs[0].bytes();
        let (values, _) = bytes.as_chunks::<4>();
        let values: Vec<f32> = values
            .iter()
            .map(|value| f32::from_le_bytes(*value))
            .collect();
        let answers = loop {
            if !wanted() {
                return Err(RunError::Stopped);
            }
            match (self.0)(&values) {
                Err(RunError::Stopped) => {}
                ended => break ended?,
            }
        };
        let answers: Vec<u8> = answers
            .iter()
            .flat_map(|answer| answer.to_le_bytes())
            .collect();
        Ok(vec![
            Tensor::stack(Element::F32, inputs[0].shape(), &[&answers])
                .expect("as many answers as rows"),
        ])
    }
}

/// An empty room.
pub(crate) fn room(rows: usize, bytes: usize) -> Room {
    Room::new(RoomLimits { rows, bytes }, Metrics::new())
}

/// A model of this name.
pub(crate) fn model(name: &str) -> ModelName {
    ModelName::new(name).expect("a valid name")
}

/// Doubles each value.
pub(crate) fn double(values: &[f32]) -> Result<Vec<f32>, RunError> {
    Ok(values.iter().map(|value| value * 2.0).collect())
}

/// A version of the model `name` that behaves like `behaviour`.
pub(crate) fn version(
    name: &str,
    batching: Result<(), String>,
    behaviour: Behaviour,
) -> Arc<Version> {
    let spec = |name: &str| TensorSpec {
        name: name.to_owned(),
        element: Element::F32,
        shape: vec![None, Some(1)],
    };
    let fake = Fake {
        specs: [spec("x"), spec("y")],
        proof: BatchProof::Proven,
        behaviour,
    };
    Arc::new(Version {
        model: model(name),
        number: 1,
        digest: Digest::of(name.as_bytes()),
        settings: ModelSettings::default(),
        inputs: fake.inputs().iter().map(wire_spec).collect(),
        outputs: fake.outputs().iter().map(wire_spec).collect(),
        engine: Arc::new(fake),
        batching,
        cacheable: true,
        pace: Pace::default(),
    })
}

/// `version`, whose forward passes may take this long.
pub(crate) fn impatient(mut version: Arc<Version>, run_timeout: Duration) -> Arc<Version> {
    let own = Arc::get_mut(&mut version).expect("nobody else has it yet");
    own.settings.limits.run_timeout = run_timeout;
    version
}

/// The input `x` with these rows.
pub(crate) fn input(values: &[f32]) -> Vec<inferq_schemas::tensor::Tensor> {
    vec![
        inferq_schemas::tensor::Tensor::from_f32("x", vec![values.len(), 1], values)
            .expect("as many values as rows"),
    ]
}
