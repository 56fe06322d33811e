//! Why a step had no answer: kept for whoever tells a person, since each single failure is only noise.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::debug;

/// The last of these reasons. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct LastProblem(Arc<Mutex<String>>);

impl LastProblem {
    /// Notes that `what` did not happen, or may not have.
    pub(super) fn note(&self, what: &'static str, error: &dyn Display) {
        debug!(%error, what, "a settlement step had no answer");
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = format!("{what}: {error}");
    }

    /// What and why; empty if that has never been.
    pub(super) fn text(&self) -> String {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }
}
