//! Which thread runs what, and until when: the part of the watch that needs no thread and no clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// One executor thread.
pub(super) type ThreadNumber = usize;

/// A thread whose time is over comes back at its next operator. Operators take milliseconds, those of
/// large batches a second; one that is not back by then may never be.
const NEXT_OPERATOR: Duration = Duration::from_secs(2);

/// What runs now, each with the end of its time.
#[derive(Debug)]
pub(super) struct Runs<W> {
    running: HashMap<ThreadNumber, (Instant, W)>,
    /// Threads whose time was over and that have not come back, each with when it counts as stuck.
    late: HashMap<ThreadNumber, Instant>,
    /// When the watch looks again.
    wakes: Option<Instant>,
}

impl<W> Runs<W> {
    pub(super) fn new() -> Self {
        Self {
            running: HashMap::new(),
            late: HashMap::new(),
            wakes: None,
        }
    }

    /// `thread` runs `what`, until `end` at most. True if the watch has to be woken: it would look too
    /// late. Runs of one limit follow each other, so that is rare.
    pub(super) fn begin(&mut self, thread: ThreadNumber, end: Instant, what: W) -> bool {
        self.running.insert(thread, (end, what));
        self.wakes.is_none_or(|wakes| end < wakes)
    }

    /// `thread` has come back. False if its time was over by then: its rows have been answered for,
    /// and so has its place.
    pub(super) fn end(&mut self, thread: ThreadNumber) -> bool {
        self.late.remove(&thread).is_none() && self.running.remove(&thread).is_some()
    }

    /// Takes out what should have come back by `now`; its threads are late.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<W> {
        let over = self.running.iter().filter(|(_, (end, _))| *end <= now);
        let threads: Vec<ThreadNumber> = over.map(|(thread, _)| *thread).collect();
        let late = threads.iter().map(|thread| (*thread, now + NEXT_OPERATOR));
        self.late.extend(late);
        let taken = threads
            .iter()
            .filter_map(|thread| self.running.remove(thread));
        taken.map(|(_, what)| what).collect()
    }

    /// When to look next, if that is done at `now`; the watch does so then.
    pub(super) fn next_look(&mut self, now: Instant) -> Option<Instant> {
        let ends = self.running.values().map(|(end, _)| *end);
        let stuck = self.late.values().copied().filter(|stuck| *stuck > now);
        self.wakes = ends.chain(stuck).min();
        self.wakes
    }

    /// Threads that are stuck at `now`.
    pub(super) fn stuck(&self, now: Instant) -> usize {
        self.late.values().filter(|stuck| **stuck <= now).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn runs() -> (Runs<&'static str>, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (Runs::new(), move |seconds| {
            start + Duration::from_secs(seconds)
        })
    }

    #[test]
    fn a_run_that_comes_back_in_time_is_never_overdue() {
        let (mut runs, at) = runs();
        runs.begin(0, at(60), "a");
        assert!(runs.overdue(at(59)).is_empty());
        assert!(runs.end(0));
        assert!(runs.overdue(at(61)).is_empty());
        assert_eq!(runs.stuck(at(99)), 0);
    }

    #[test]
    fn an_overdue_run_is_taken_once_and_its_late_end_counts_no_more() {
        let (mut runs, at) = runs();
        runs.begin(0, at(60), "stuck");
        runs.begin(1, at(70), "slow");
        assert_eq!(runs.overdue(at(60)), ["stuck"]);
        assert!(runs.overdue(at(61)).is_empty());
        assert_eq!(runs.stuck(at(61)), 0, "it may come back at once");
        assert_eq!(runs.next_look(at(61)), Some(at(62)));
        assert_eq!(runs.stuck(at(62)), 1);
        assert_eq!(runs.next_look(at(62)), Some(at(70)), "it is known to be");
        assert!(!runs.end(0), "its result is to be dropped");
        assert_eq!(
            runs.stuck(at(62)),
            0,
            "a thread that came back burns nothing"
        );
        assert!(runs.end(1));
    }

    #[test]
    fn the_watch_is_woken_only_for_what_it_would_see_too_late() {
        let (mut runs, at) = runs();
        assert!(runs.begin(0, at(60), "first"), "it sleeps without an end");
        assert_eq!(runs.next_look(at(0)), Some(at(60)));
        assert!(!runs.begin(1, at(61), "later"));
        assert!(runs.end(0));
        assert!(
            !runs.begin(0, at(62), "next"),
            "it looks at 60 all the same"
        );
        assert!(runs.begin(2, at(10), "of a model with a shorter limit"));
        assert_eq!(runs.next_look(at(0)), Some(at(10)));
    }

    /// What two threads and the clock can do. Each of these is one step under the lock of the board, so
    /// every interleaving of the threads with the watch is one order of them.
    #[derive(Debug, Clone, Copy)]
    enum Does {
        /// A thread that has nothing to do begins a run, which may take so many seconds.
        Begins(ThreadNumber, u64),
        /// A thread comes back.
        ComesBack(ThreadNumber),
        /// A second passes.
        Waits,
    }

    const ALL: [Does; 7] = [
        Does::Begins(0, 1),
        Does::Begins(0, 3),
        Does::Begins(1, 1),
        Does::Begins(1, 3),
        Does::ComesBack(0),
        Does::ComesBack(1),
        Does::Waits,
    ];

    /// The threads, the clock and the watch around a [`Runs`].
    struct Around {
        runs: Runs<usize>,
        start: Instant,
        seconds: u64,
        /// What each thread runs, and the second at which it was given up.
        threads: [Option<(usize, Option<u64>)>; 2],
        /// How often each run was answered for.
        answers: Vec<u32>,
        watch_wakes: Option<Instant>,
    }

    impl Around {
        fn new(start: Instant) -> Self {
            Self {
                runs: Runs::new(),
                start,
                seconds: 0,
                threads: [None; 2],
                answers: Vec::new(),
                watch_wakes: None,
            }
        }

        /// Does it; false if it cannot be done now.
        fn does(&mut self, what: Does) -> bool {
            match what {
                Does::Begins(thread, takes) if self.threads[thread].is_none() => {
                    let end = self.start + Duration::from_secs(self.seconds + takes);
                    self.threads[thread] = Some((self.answers.len(), None));
                    if self.runs.begin(thread, end, self.answers.len()) {
                        self.watch_wakes = self.runs.next_look(self.now());
                    }
                    self.answers.push(0);
                    true
                }
                Does::ComesBack(thread) => {
                    let Some((run, given_up)) = self.threads[thread].take() else {
                        return false;
                    };
                    let counts = self.runs.end(thread);
                    assert_eq!(counts, given_up.is_none());
                    self.answers[run] += u32::from(counts);
                    true
                }
                Does::Waits => {
                    self.seconds += 1;
                    self.watch();
                    true
                }
                Does::Begins(..) => false,
            }
        }

        fn now(&self) -> Instant {
            self.start + Duration::from_secs(self.seconds)
        }

        fn watch(&mut self) {
            let now = self.now();
            if self.watch_wakes.is_some_and(|wakes| wakes <= now) {
                for run in self.runs.overdue(now) {
                    self.answers[run] += 1;
                    let threads = self.threads.iter_mut().flatten();
                    for (_, given_up) in threads.filter(|(of, _)| *of == run) {
                        *given_up = Some(self.seconds);
                    }
                }
                self.watch_wakes = self.runs.next_look(now);
            }
        }

        fn check(&self, done: &[Does]) {
            let now = self.now();
            let given_up = self.threads.iter().flatten().filter_map(|thread| thread.1);
            let counts = given_up.map(|at| self.start + Duration::from_secs(at) + NEXT_OPERATOR);
            let (stuck, late): (Vec<Instant>, Vec<Instant>) = counts.partition(|at| *at <= now);
            assert_eq!(self.runs.stuck(now), stuck.len(), "{done:?}");
            let seen = |at: &Instant| self.watch_wakes.is_some_and(|wakes| wakes <= *at);
            assert!(late.iter().all(seen), "nobody counts it: {done:?}");
            for (run, answers) in self.answers.iter().enumerate() {
                let mut threads = self.threads.iter().flatten();
                let runs = threads.any(|(of, given_up)| *of == run && given_up.is_none());
                assert_eq!(*answers, u32::from(!runs), "run {run} after {done:?}");
            }
            let mut ends = self.runs.running.values().map(|(end, _)| *end);
            assert!(ends.all(|end| end > now), "one was overlooked: {done:?}");
        }
    }

    #[test]
    fn every_run_is_answered_for_once_in_every_order_of_threads_and_watch() {
        const STEPS: usize = 7;
        let (start, mut orders) = (Instant::now(), 0);
        for number in 0..ALL.len().pow(STEPS as u32) {
            let (mut left, mut done) = (number, Vec::with_capacity(STEPS));
            let mut around = Around::new(start);
            for _ in 0..STEPS {
                let next = ALL[left % ALL.len()];
                left /= ALL.len();
                if !around.does(next) {
                    break;
                }
                done.push(next);
                around.check(&done);
            }
            orders += usize::from(done.len() == STEPS);
        }
        assert!(orders > 1_000, "{orders}");
    }
}
