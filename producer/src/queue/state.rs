//! What the server counts of a queue.

use std::time::SystemTime;

use async_nats::jetstream::{consumer, stream};
use inferq_schemas::Lane;

/// The jobs of one model and lane.
///
/// The numbers are read one after the other while work goes on, so that they need not add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueState {
    /// The model as its subject names it; for jobs that nobody could serve it may be any text.
    pub model: String,
    /// The lane.
    pub lane: Lane,
    /// Jobs that are not finished: waiting or held by a worker.
    pub jobs: u64,
    /// When the oldest of them was published.
    pub oldest: Option<SystemTime>,
    /// What workers pull from; `None` if the model is not known, and nobody will take its jobs.
    pub consumer: Option<ConsumerState>,
    /// The stream that holds them, which the queues of all models share.
    pub stream: StreamState,
}

/// How far workers are with a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerState {
    /// Its name.
    pub name: String,
    /// Jobs that no worker has been given yet.
    pub waiting: u64,
    /// Jobs that workers hold, or that come again after a pause.
    pub held: u64,
    /// Those of them that were delivered more than once.
    pub redelivered: u64,
    /// Pull requests of workers that wait for a job.
    pub pulls: u64,
    /// When a job was last delivered.
    pub last_delivered: Option<SystemTime>,
}

/// A stream of jobs and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    /// Its name.
    pub name: String,
    /// Jobs of all models in it.
    pub jobs: u64,
    /// Bytes of all models in it, headers included.
    pub bytes: u64,
    /// A job is refused that would make it larger; `None`: never.
    pub max_bytes: Option<u64>,
    /// A job is refused whose queue has so many already; `None`: never.
    pub max_jobs_per_queue: Option<u64>,
}

impl QueueState {
    pub(super) fn empty(model: String, lane: Lane, stream: StreamState) -> Self {
        Self {
            model,
            lane,
            jobs: 0,
            oldest: None,
            consumer: None,
            stream,
        }
    }

    /// About how many bytes its jobs have: its share of the stream's bytes by number of jobs. Exact
    /// if the stream holds no other queue; the server counts bytes by stream only.
    pub fn bytes(&self) -> u64 {
        let share = u128::from(self.stream.bytes) * u128::from(self.jobs);
        let share = share / u128::from(self.stream.jobs.max(1));
        u64::try_from(share).map_or(self.stream.bytes, |share| share.min(self.stream.bytes))
    }

    /// Whether the next job is refused (429) because of the number of jobs.
    pub fn is_full(&self) -> bool {
        self.stream
            .max_jobs_per_queue
            .is_some_and(|most| self.jobs >= most)
    }
}

impl ConsumerState {
    pub(super) fn new(info: &consumer::Info) -> Self {
        Self {
            name: info.name.clone(),
            waiting: info.num_pending,
            held: info.num_ack_pending as u64,
            redelivered: info.num_redelivered as u64,
            pulls: info.num_waiting as u64,
            last_delivered: info.delivered.last_active.map(SystemTime::from),
        }
    }
}

impl StreamState {
    pub(super) fn new(info: &stream::Info) -> Self {
        // The server says -1, and some versions 0, for no limit.
        let limit = |most: i64| u64::try_from(most).ok().filter(|most| *most > 0);
        Self {
            name: info.config.name.clone(),
            jobs: info.state.messages,
            bytes: info.state.bytes,
            max_bytes: limit(info.config.max_bytes),
            max_jobs_per_queue: limit(info.config.max_messages_per_subject),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(jobs: u64, all: u64, bytes: u64) -> QueueState {
        let stream = StreamState {
            name: "INFER_JOBS".to_owned(),
            jobs: all,
            bytes,
            max_bytes: None,
            max_jobs_per_queue: Some(100),
        };
        QueueState {
            jobs,
            ..QueueState::empty("digits".to_owned(), Lane::Normal, stream)
        }
    }

    #[test]
    fn a_queue_has_its_share_of_the_bytes_and_never_more_than_all() {
        assert_eq!(queue(2, 8, 4_000).bytes(), 1_000);
        assert_eq!(queue(8, 8, 4_000).bytes(), 4_000);
        assert_eq!(queue(9, 8, 4_000).bytes(), 4_000, "a job came in between");
        assert_eq!(queue(0, 0, 0).bytes(), 0);
        let large = u64::MAX / 2;
        assert_eq!(queue(large, large, large).bytes(), large);
    }

    #[test]
    fn a_queue_is_full_at_its_limit_and_never_without_one() {
        assert!(!queue(99, 99, 1).is_full());
        let mut full = queue(100, 100, 1);
        assert!(full.is_full());
        full.stream.max_jobs_per_queue = None;
        assert!(!full.is_full());
    }
}
