//! Where work waits: the group it may share a batch with, and its place in a lane of that.

use std::sync::Arc;

use inferq_schemas::subjects::ModelName;

use crate::deadline::Deadline;
use crate::models::Version;
use crate::work::{Rows, Work};

/// Work of one version and shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct GroupKey {
    pub(super) model: ModelName,
    version: usize,
    /// Shapes of the inputs without their rows; empty for work that runs alone.
    shapes: Vec<Vec<usize>>,
}

impl GroupKey {
    /// Whether its model runs each job by itself.
    pub(super) fn runs_alone(&self) -> bool {
        self.shapes.is_empty()
    }
}

/// Place in a lane: the earliest deadline first, those without one last, then in order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order {
    without_deadline: bool,
    deadline: Option<Deadline>,
    pub(super) id: u64,
}

pub(super) fn order(work: &Work, id: u64) -> Order {
    Order {
        without_deadline: work.deadline.is_none(),
        deadline: work.deadline,
        id,
    }
}

pub(super) fn group_key(work: &Work) -> GroupKey {
    let shapes = match work.rows {
        Rows::Whole => Vec::new(),
        Rows::Some(_) => work
            .inputs
            .iter()
            .map(|input| input.shape.get(1..).unwrap_or_default().to_vec())
            .collect(),
    };
    GroupKey {
        model: work.version.model.clone(),
        version: version_id(&work.version),
        shapes,
    }
}

/// Tells loaded versions apart, also two loads of the same number.
fn version_id(version: &Arc<Version>) -> usize {
    Arc::as_ptr(version).addr()
}
