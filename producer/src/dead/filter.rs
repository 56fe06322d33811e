//! Which dead letters are meant.

use std::{collections::VecDeque, num::NonZeroUsize, time::SystemTime};

use inferq_schemas::{ErrorCode, JobId, Lane, ModelName, Status};

use super::{DeadEntry, DeadList};

/// Conditions on dead letters; those that are not set let everything pass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadFilter {
    /// The model the job was for.
    pub model: Option<ModelName>,
    /// The lane it waited in.
    pub lane: Option<Lane>,
    /// One of these jobs.
    pub jobs: Vec<JobId>,
    /// The kind of failure.
    pub code: Option<ErrorCode>,
    /// `error` (the job cannot succeed as it is) or `dead` (it was delivered too often).
    pub status: Option<Status>,
    /// Written at this moment or later, by the server's clock.
    pub since: Option<SystemTime>,
    /// Written before this moment, by the server's clock.
    pub until: Option<SystemTime>,
    /// So many at most, the youngest.
    pub limit: Option<NonZeroUsize>,
}

impl DeadFilter {
    /// Whether a letter meets every condition but the limit.
    pub fn matches(&self, entry: &DeadEntry) -> bool {
        let code = entry.reason.failure.as_ref().map(|failure| failure.code);
        self.model
            .as_ref()
            .is_none_or(|model| *model == entry.model)
            && self.lane.is_none_or(|lane| lane == entry.lane)
            && (self.jobs.is_empty() || self.jobs.contains(&entry.job))
            && self.code.is_none_or(|wanted| Some(wanted) == code)
            && self
                .status
                .is_none_or(|status| Some(status) == entry.reason.status)
            && self.since.is_none_or(|since| entry.stored >= since)
            && self.until.is_none_or(|until| entry.stored < until)
    }
}

/// Keeps the youngest of the letters that match, which come oldest first.
#[derive(Debug)]
pub(super) struct Latest<'a> {
    filter: &'a DeadFilter,
    letters: VecDeque<DeadEntry>,
    older: u64,
}

impl<'a> Latest<'a> {
    pub(super) fn new(filter: &'a DeadFilter) -> Self {
        Self {
            filter,
            letters: VecDeque::new(),
            older: 0,
        }
    }

    pub(super) fn take(&mut self, entry: DeadEntry) {
        if !self.filter.matches(&entry) {
            return;
        }
        self.letters.push_back(entry);
        let limit = self.filter.limit.map_or(usize::MAX, NonZeroUsize::get);
        if self.letters.len() > limit {
            self.letters.pop_front();
            self.older += 1;
        }
    }

    pub(super) fn into_list(self) -> DeadList {
        DeadList {
            letters: self.letters.into(),
            older: self.older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferq_schemas::{DeadHeaders, Failure};
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn letter(sequence: u64) -> DeadEntry {
        DeadEntry {
            sequence,
            job: JobId::derived("INFER_JOBS", sequence),
            model: "digits".parse().expect("a valid name"),
            lane: Lane::Normal,
            stored: at(sequence),
            reason: DeadHeaders {
                status: Some(Status::Error),
                failure: Some(Failure::new(ErrorCode::BadInput, "63 values")),
                ..DeadHeaders::default()
            },
            headers: Vec::new(),
            bytes: 0,
        }
    }

    #[test]
    fn each_condition_alone_tells_letters_apart() {
        let all = DeadFilter::default();
        assert!(all.matches(&letter(5)));
        let kept = [
            DeadFilter {
                model: Some("digits".parse().expect("a valid name")),
                ..all.clone()
            },
            DeadFilter {
                lane: Some(Lane::Normal),
                ..all.clone()
            },
            DeadFilter {
                jobs: vec![letter(4).job, letter(5).job],
                ..all.clone()
            },
            DeadFilter {
                code: Some(ErrorCode::BadInput),
                ..all.clone()
            },
            DeadFilter {
                status: Some(Status::Error),
                ..all.clone()
            },
            DeadFilter {
                since: Some(at(5)),
                ..all.clone()
            },
            DeadFilter {
                until: Some(at(6)),
                ..all.clone()
            },
        ];
        for filter in kept {
            assert!(filter.matches(&letter(5)), "{filter:?}");
        }
        let dropped = [
            DeadFilter {
                model: Some("digit".parse().expect("a valid name")),
                ..all.clone()
            },
            DeadFilter {
                lane: Some(Lane::Low),
                ..all.clone()
            },
            DeadFilter {
                jobs: vec![letter(4).job],
                ..all.clone()
            },
            DeadFilter {
                code: Some(ErrorCode::Model),
                ..all.clone()
            },
            DeadFilter {
                status: Some(Status::Dead),
                ..all.clone()
            },
            DeadFilter {
                since: Some(at(6)),
                ..all.clone()
            },
            DeadFilter {
                until: Some(at(5)),
                ..all.clone()
            },
        ];
        for filter in dropped {
            assert!(!filter.matches(&letter(5)), "{filter:?}");
        }
    }

    #[test]
    fn the_youngest_are_kept_in_order_and_the_others_counted() {
        let filter = DeadFilter {
            limit: NonZeroUsize::new(2),
            until: Some(at(5)),
            ..DeadFilter::default()
        };
        let mut latest = Latest::new(&filter);
        (1..=6).for_each(|sequence| latest.take(letter(sequence)));
        let list = latest.into_list();
        let sequences: Vec<u64> = list.letters.iter().map(|entry| entry.sequence).collect();
        assert_eq!((sequences, list.older), (vec![3, 4], 2));
    }
}
