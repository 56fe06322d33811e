//! The steps of a segment on the device that is open now.
//!
//! A device that is lost takes the program with it. It is made again, and checked, on a thread of its own; until
//! then the segment runs on the CPU.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::check;
use super::lower::with_numbers;
use super::op::Segment;
use crate::cpu::elements;
use crate::gpu::{Gpu, Program, Source, Step};

/// From one attempt to make the program again to the next.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(60);

/// A place for the program, and the card it is for.
pub(super) struct OnCard {
    pub(super) gpu: Gpu,
    program: RwLock<Option<Arc<Program>>>,
    remaking: Mutex<Remaking>,
}

/// How far making the program again has got.
#[derive(Debug, Clone, Copy)]
enum Remaking {
    /// Nobody is at it; the last attempt failed then.
    Idle(Option<Instant>),
    /// A thread is at it.
    Busy,
    /// The new device is wrong. It will not be right another time.
    GivenUp,
}

impl OnCard {
    /// Nothing is uploaded yet.
    pub(super) fn new(gpu: Gpu) -> Self {
        OnCard {
            gpu,
            program: RwLock::default(),
            remaking: Mutex::new(Remaking::Idle(None)),
        }
    }

    /// The program, if it is there.
    pub(super) fn program(&self) -> Option<Arc<Program>> {
        let program = self.program.read().unwrap_or_else(PoisonError::into_inner);
        program.clone()
    }

    /// The program, if the card is worth asking and the program on the device that is open on it.
    pub(super) fn ready(&self) -> Option<Arc<Program>> {
        let program = self.gpu.usable().then(|| self.program()).flatten();
        program.filter(|program| program.is_on(&self.gpu))
    }

    pub(super) fn set(&self, program: Option<Program>) {
        let mut place = self.program.write().unwrap_or_else(PoisonError::into_inner);
        *place = program.map(Arc::new);
    }

    fn remaking(&self) -> std::sync::MutexGuard<'_, Remaking> {
        self.remaking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Segment {
    /// Uploads the steps to the device that is open now.
    pub(super) fn upload(&self) -> Result<Program, String> {
        let mut sources = Vec::with_capacity(self.constants.len());
        for constant in &self.constants {
            sources.push(match constant {
                None => Source::Given,
                Some(constant) => {
                    let values = elements::<f32>(constant).map_err(|error| error.to_string())?;
                    Source::Constant(values.into_owned())
                }
            });
        }
        // One by one, so that the numbers of one step at a time are in memory beside the packed ones.
        let steps = self
            .steps
            .iter()
            .zip(&self.meanings)
            .map(|(step, meaning)| Step {
                operation: with_numbers(&step.operation, meaning.operators(), self.kept_as()),
                inputs: step.inputs.clone(),
            });
        let program = Program::new(&self.card.gpu, &sources, steps, &self.outputs);
        program.map_err(|error| error.to_string())
    }

    /// Begins to upload the steps again, and to check them, if a new device is open and nobody has begun yet.
    pub(super) fn revive(self: &Arc<Self>) {
        let card = &self.card;
        if !card.gpu.usable()
            || card
                .program()
                .is_some_and(|program| program.is_on(&card.gpu))
        {
            return;
        }
        let mut remaking = card.remaking();
        match *remaking {
            Remaking::Busy | Remaking::GivenUp => return,
            Remaking::Idle(Some(failed)) if failed.elapsed() < BETWEEN_ATTEMPTS => return,
            Remaking::Idle(_) => {}
        }
        *remaking = Remaking::Busy;
        drop(remaking);
        // What is on the old device is of no use, and may be in the way.
        card.set(None);
        let mut attempt = Attempt {
            segment: Arc::clone(self),
            end: Remaking::Idle(Some(Instant::now())),
        };
        let begun = std::thread::Builder::new()
            .name("inferq-upload".to_owned())
            .spawn(move || attempt.run());
        if let Err(error) = begun {
            tracing::warn!(%error, "there is no thread to upload a segment on");
        }
    }
}

/// One try to bring a segment to a new device; however it ends, another may follow.
struct Attempt {
    segment: Arc<Segment>,
    end: Remaking,
}

impl Attempt {
    fn run(&mut self) {
        let (segment, name) = (&self.segment, &self.segment.name);
        let program = match segment.upload() {
            Ok(program) => program,
            Err(error) => {
                tracing::warn!(error, segment = name, "it stays on the CPU for now");
                return;
            }
        };
        match check::all(segment, &program) {
            Ok(_) => {
                // Only now do runs find it.
                segment.card.set(Some(program));
                self.end = Remaking::Idle(None);
                tracing::info!(segment = name, "it runs on the card again");
            }
            Err(error) if error.is_final => {
                self.end = Remaking::GivenUp;
                tracing::warn!(error = error.reason, segment = name, "it stays on the CPU");
            }
            Err(error) => {
                tracing::warn!(
                    error = error.reason,
                    segment = name,
                    "it stays on the CPU for now"
                );
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        *self.segment.card.remaking() = self.end;
    }
}

impl fmt::Debug for OnCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OnCard({:?}, {:?})", self.gpu, self.program())
    }
}
