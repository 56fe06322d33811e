//! What becomes of a delivery before its body is looked at: steps 2 to 7 of `ARCHITECTURE.md`, as a pure
//! function of what is known of it.
//!
//! What becomes of one that was looked at and run is decided in `disposition.rs`, and what follows from
//! an outcome in `settlement.rs`. The test below takes the first two together and tries every case.

use inferq_schemas::HeaderProblem;

use crate::disposition::JobError;
use crate::settlement::{Record, Replay};

/// The newest `Infer-Proto` that this version speaks.
pub(crate) const PROTOCOL: u32 = 1;

/// What is known of a delivery once its headers are read.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Deliveries so far, this one included.
    pub(crate) attempt: u64,
    /// Deliveries it allows.
    pub(crate) most: u32,
    /// Whether its outcome is recorded: yes for jobs, no for RPC.
    pub(crate) recorded: bool,
    /// What it takes the place of, if it is a replay.
    pub(crate) replay: Option<Replay>,
    /// The protocol it speaks.
    pub(crate) proto: u32,
    /// What is wrong with its headers.
    pub(crate) problems: Vec<HeaderProblem>,
    /// Whether it was cancelled.
    pub(crate) cancelled: bool,
    /// Whether its deadline has passed.
    pub(crate) late: bool,
}

/// What to do with it.
#[derive(Debug)]
pub(crate) enum Decision<T, V> {
    /// Settle the outcome that stands.
    Settle(T),
    /// Conclude with this error.
    Conclude(JobError),
    /// Look at its body, and run it on this version.
    Run(V),
}

/// Whether a job may have an outcome already: that of an earlier delivery, or of another replay of the
/// same dead letter, which this one has come too late to be.
pub(crate) fn may_have_ended(attempt: u64, recorded: bool, replay: Option<Replay>) -> bool {
    recorded && (attempt > 1 || replay.is_some())
}

/// Decides. `standing` is the outcome that was found, if it was looked for; `version` says who would run
/// the job.
pub(crate) fn decide<T: Record, V>(
    facts: Facts,
    standing: Option<T>,
    version: impl FnOnce() -> Result<V, JobError>,
) -> Decision<T, V> {
    let replaces = |standing: &T| facts.replay.is_some_and(|replay| replay.replaces(standing));
    if let Some(standing) = standing.filter(|standing| !replaces(standing)) {
        return Decision::Settle(standing);
    }
    match refused(facts) {
        Some(error) => Decision::Conclude(error),
        None => version().map_or_else(Decision::Conclude, Decision::Run),
    }
}

fn refused(facts: Facts) -> Option<JobError> {
    // First of all, since another protocol may have other headers.
    if facts.proto > PROTOCOL {
        return Some(JobError::NewerProtocol(facts.proto));
    }
    if !facts.problems.is_empty() {
        return Some(JobError::Headers(facts.problems));
    }
    if facts.recorded && facts.attempt > u64::from(facts.most) {
        return Some(JobError::TooManyAttempts {
            delivered: facts.attempt,
            limit: facts.most,
        });
    }
    if facts.cancelled {
        return Some(JobError::Cancelled);
    }
    facts.late.then_some(JobError::Expired)
}

#[cfg(test)]
mod tests;
