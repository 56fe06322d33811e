//! The steps of a segment on the device that is open now.
//!
//! A device that is lost takes the program with it. It is made again, and checked, on a thread of its own; until
//! then the segment runs on the CPU.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::check;
use super::lower::with_numbers;
use super::op::Segment;
use crate::cpu::elements;
use crate::gpu::{Gpu, Program, Source, Step};

/// A place for the program, and the card it is for.
pub(super) struct OnCard {
    pub(super) gpu: Gpu,
    program: RwLock<Option<Arc<Program>>>,
    /// Somebody is making it again.
    busy: AtomicBool,
}

impl OnCard {
    /// Nothing is uploaded yet.
    pub(super) fn new(gpu: Gpu) -> Self {
        OnCard {
            gpu,
            program: RwLock::default(),
            busy: AtomicBool::new(false),
        }
    }

    /// The program, if it is there.
    pub(super) fn program(&self) -> Option<Arc<Program>> {
        let program = self.program.read().unwrap_or_else(PoisonError::into_inner);
        program.clone()
    }

    /// Whether the card is worth asking and the program on the device that is open on it.
    pub(super) fn is_ready(&self) -> bool {
        let current = |program: Arc<Program>| program.is_on(&self.gpu);
        // While it is made again it is there before it is checked.
        !self.busy.load(Ordering::Acquire)
            && self.gpu.usable()
            && self.program().is_some_and(current)
    }

    fn set(&self, program: Option<Program>) {
        let mut place = self.program.write().unwrap_or_else(PoisonError::into_inner);
        *place = program.map(Arc::new);
    }
}

impl Segment {
    /// Uploads the steps to the device that is open now.
    pub(super) fn upload(&self) -> Result<(), String> {
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
        let steps = self
            .steps
            .iter()
            .zip(&self.chains)
            .map(|(step, chain)| Step {
                operation: with_numbers(
                    &step.operation,
                    &*chain.operators[0],
                    self.settings.weights,
                ),
                inputs: step.inputs.clone(),
            });
        let program = Program::new(&self.card.gpu, &sources, steps.collect(), &self.outputs);
        self.card
            .set(Some(program.map_err(|error| error.to_string())?));
        Ok(())
    }

    /// Begins to upload the steps again, and to check them, if a new device is open and nobody has begun yet.
    pub(super) fn revive(self: &Arc<Self>) {
        let card = &self.card;
        let is_due = card.gpu.usable()
            && card
                .program()
                .is_some_and(|program| !program.is_on(&card.gpu))
            && !card.busy.swap(true, Ordering::AcqRel);
        if !is_due {
            return;
        }
        let segment = Arc::clone(self);
        let begun = std::thread::Builder::new()
            .name("inferq-upload".to_owned())
            .spawn(move || {
                let agrees = segment
                    .upload()
                    .and_then(|()| check::agree(&segment, segment.choice()));
                let name = &segment.name;
                match agrees {
                    Ok(()) => tracing::info!(segment = name, "it runs on the card again"),
                    Err(error) => {
                        segment.card.set(None);
                        tracing::warn!(error, segment = name, "it stays on the CPU");
                    }
                }
                segment.card.busy.store(false, Ordering::Release);
            });
        if let Err(error) = begun {
            card.busy.store(false, Ordering::Release);
            tracing::warn!(%error, "there is no thread to upload a segment on");
        }
    }
}

impl fmt::Debug for OnCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OnCard({:?}, {:?})", self.gpu, self.program())
    }
}
