//! Where a job stands in its queue, and how long it is likely to stand there, from what the server counts.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use async_nats::jetstream::consumer;

/// Deliveries older than this say nothing of the pace of now.
const WINDOW: Duration = Duration::from_secs(60);

/// What the server counts of a consumer: the queue of one model and lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// Jobs that no worker has been given yet.
    pub(super) waiting: u64,
    /// Deliveries so far, repeated ones too.
    pub(super) deliveries: u64,
    /// The highest number in the stream that was delivered, or passed over as another queue's.
    pub(super) reached: u64,
}

impl From<&consumer::Info> for Counts {
    fn from(info: &consumer::Info) -> Self {
        Self {
            waiting: info.num_pending,
            deliveries: info.delivered.consumer_sequence,
            reached: info.delivered.stream_sequence,
        }
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// Jobs in front of it that no worker has been given yet.
    pub(super) position: u64,
    /// Until those have gone.
    pub(super) estimated_wait: Option<Duration>,
    /// A worker has it.
    pub(super) with_worker: bool,
}

/// Follows one job through its queue.
///
/// The server does not count what lies between two numbers of a stream that holds several queues. Two
/// things bound it from above: what waits in the queue, the job and those behind it included, and the
/// distance in the stream, other queues included. The first is exact right after the job was published.
/// From there on deliveries are taken off.
#[derive(Debug)]
pub(super) struct Place {
    /// Number of the job in its stream.
    sequence: u64,
    /// The last counts, and the position that they gave.
    last: Option<(Counts, u64)>,
    /// Deliveries by then, at moments of the last [`WINDOW`] and one before.
    seen: VecDeque<(Instant, u64)>,
}

impl Place {
    pub(super) fn new(sequence: u64) -> Self {
        Self {
            sequence,
            last: None,
            seen: VecDeque::new(),
        }
    }

    /// Where the job stands by `counts`, which were read at `now`.
    pub(super) fn see(&mut self, counts: Counts, now: Instant) -> Standing {
        // Counts begin anew where the consumer was deleted and made again.
        if matches!(self.last, Some((last, _)) if counts.deliveries < last.deliveries) {
            *self = Self::new(self.sequence);
        }
        let in_stream = self.sequence.saturating_sub(counts.reached);
        let most = counts.waiting.min(in_stream).saturating_sub(1);
        let position = match self.last {
            Some((last, position)) => {
                let gone = counts.deliveries - last.deliveries;
                position.saturating_sub(gone).min(most)
            }
            None => most,
        };
        self.last = Some((counts, position));
        Standing {
            position,
            estimated_wait: self.estimate(position, counts.deliveries, now),
            with_worker: counts.reached >= self.sequence,
        }
    }

    fn estimate(&mut self, position: u64, deliveries: u64, now: Instant) -> Option<Duration> {
        self.seen.push_back((now, deliveries));
        // The oldest that is kept is the last one from before the window: the span is never shorter.
        while self.seen.len() > 2 && now.duration_since(self.seen[1].0) >= WINDOW {
            self.seen.pop_front();
        }
        let (since, before) = *self.seen.front()?;
        let gone = deliveries - before;
        if gone == 0 {
            return None;
        }
        let each = now.duration_since(since).as_secs_f64() / gone as f64;
        Duration::try_from_secs_f64(each * position as f64).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(waiting: u64, deliveries: u64, reached: u64) -> Counts {
        Counts {
            waiting,
            deliveries,
            reached,
        }
    }

    /// Positions by counts that are a second apart.
    fn positions(sequence: u64, all: &[Counts]) -> Vec<u64> {
        let (mut place, start) = (Place::new(sequence), Instant::now());
        let seen = all.iter().zip(0..);
        let seen = seen.map(|(counts, second)| {
            place
                .see(*counts, start + Duration::from_secs(second))
                .position
        });
        seen.collect()
    }

    #[test]
    fn a_position_falls_with_each_delivery_whatever_comes_behind() {
        let falls = [
            counts(5, 2, 2),
            counts(9, 3, 3),
            counts(90, 5, 5),
            counts(80, 6, 6),
        ];
        assert_eq!(positions(7, &falls), [4, 3, 1, 0]);
    }

    #[test]
    fn jobs_of_other_queues_in_the_same_stream_do_not_count() {
        // Every second job is another queue's; 3 of this one are in front of number 8.
        assert_eq!(
            positions(8, &[counts(4, 0, 0), counts(4, 1, 2), counts(3, 2, 4)]),
            [3, 2, 1]
        );
    }

    #[test]
    fn who_looks_late_is_told_no_less_than_there_are_and_the_truth_in_the_end() {
        // 100 more were published behind number 10 before the first look.
        assert_eq!(
            positions(10, &[counts(106, 4, 4), counts(103, 7, 7)]),
            [5, 2]
        );
        // As many behind, and the numbers up to it are mostly another queue's.
        let late = [counts(103, 0, 0), counts(102, 1, 40), counts(101, 2, 49)];
        assert_eq!(positions(50, &late), [49, 9, 0]);
    }

    #[test]
    fn a_repeated_delivery_counts_as_one_that_has_gone_and_never_below_none() {
        assert_eq!(
            positions(3, &[counts(2, 1, 1), counts(2, 2, 1), counts(2, 9, 1)]),
            [1, 0, 0]
        );
    }

    #[test]
    fn a_consumer_that_was_made_anew_is_counted_anew() {
        let anew = [counts(3, 7, 7), counts(9, 1, 1), counts(8, 2, 2)];
        assert_eq!(positions(10, &anew), [2, 8, 7]);
    }

    #[test]
    fn a_job_is_with_a_worker_once_its_number_is_reached() {
        let (mut place, now) = (Place::new(7), Instant::now());
        assert!(!place.see(counts(1, 5, 6), now).with_worker);
        let given = place.see(counts(0, 6, 7), now);
        assert_eq!((given.position, given.with_worker), (0, true));
        // The server looks ahead to the end of the stream.
        assert!(place.see(counts(0, 6, 31), now).with_worker);
    }

    #[test]
    fn the_wait_is_the_position_at_the_pace_of_the_last_minute_and_unknown_without_one() {
        let (mut place, start) = (Place::new(1_000), Instant::now());
        let mut see = |second: u64, deliveries: u64| {
            let at = start + Duration::from_secs(second);
            let counts = counts(1_000 - deliveries, deliveries, deliveries);
            place.see(counts, at).estimated_wait
        };
        assert_eq!(see(0, 0), None);
        assert_eq!(see(1, 0), None, "nothing has gone yet");
        // 10 in 2 s, 989 in front.
        assert_eq!(see(2, 10), Some(Duration::from_millis(197_800)));
        // Then one each second: after a minute that is the pace.
        for second in 3..=62 {
            see(second, 8 + second);
        }
        assert_eq!(see(63, 71), Some(Duration::from_secs(928)));
        // And none at all, for more than a minute.
        see(120, 71);
        assert_eq!(see(181, 71), None);
    }
}
