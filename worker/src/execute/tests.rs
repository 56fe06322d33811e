//! Real threads in forward passes that do not return, or whose answer nobody wants: what that costs, and
//! what it does not.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use inferq_schemas::subjects::Lane;
use tokio::sync::oneshot::Receiver;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Span;

use super::*;
use crate::batch;
use crate::config::BatchLimits;
use crate::models::pace::KEPT;
use crate::testing::{self, double};
use crate::work::{Computed, Rows, Work};

const PATIENCE: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_millis(50);

type Answer = Receiver<Result<Computed, JobError>>;

/// Holds a forward pass until a test lets it go. Behaviours are plain functions, so gates are static.
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    const fn shut() -> Self {
        Self {
            open: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    fn pass(&self) {
        let open = self.open.lock().expect("no panic while it was held");
        drop(
            self.changed
                .wait_while(open, |open| !*open)
                .expect("as above"),
        );
    }

    fn open(&self) {
        *self.open.lock().expect("as above") = true;
        self.changed.notify_all();
    }
}

/// Operators that have run.
struct Operators(AtomicUsize);

impl Operators {
    const fn none() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Another one, which takes a millisecond; the model has more of them.
    fn run(&self) -> Result<Vec<f32>, RunError> {
        std::thread::sleep(Duration::from_millis(1));
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(RunError::Stopped)
    }

    /// Waits until two more have begun than now: before the second somebody was asked.
    async fn two_more(&self) {
        let enough = self.0.load(Ordering::SeqCst) + 2;
        let reached = async {
            while self.0.load(Ordering::SeqCst) < enough {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        reached.expect("it runs");
    }
}

struct Running {
    work: mpsc::Sender<Arc<Work>>,
    metrics: Metrics,
    worn_out: CancellationToken,
    _ended: DropGuard,
}

fn running(rows: usize, wait: Duration) -> Running {
    let (work, taken) = mpsc::channel(64);
    let (idle_in, idle) = mpsc::channel(1);
    let (metrics, worn_out, ended) = (
        Metrics::new(),
        CancellationToken::new(),
        CancellationToken::new(),
    );
    let limits = BatchLimits {
        max_batch_rows: NonZeroUsize::new(rows).expect("more than none"),
        batch_wait: wait,
    };
    let executors = start(1, idle_in, metrics.clone()).expect("a thread");
    tokio::spawn(batch::run(taken, idle, limits));
    tokio::spawn(executors.watch(worn_out.clone(), ended.clone()));
    Running {
        work,
        metrics,
        worn_out,
        _ended: ended.drop_guard(),
    }
}

impl Running {
    async fn row(&self, version: &Arc<Version>, value: f32) -> Answer {
        self.row_on(Lane::Normal, version, value).await
    }

    async fn row_on(&self, lane: Lane, version: &Arc<Version>, value: f32) -> Answer {
        let (inputs, rows) = (testing::input(&[value]), Rows::Some(vec![0]));
        let terms = (lane, None, Span::none(), None);
        let (work, answer) = Work::new(version.clone(), inputs, rows, terms);
        self.work.send(work).await.expect("the stage is running");
        answer
    }

    async fn shows(&self, line: &str) {
        let shown = async {
            while !self.metrics.encode().lines().any(|found| found == line) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let shown = tokio::time::timeout(PATIENCE, shown).await;
        assert!(shown.is_ok(), "no {line} in\n{}", self.metrics.encode());
    }
}

async fn value(answer: Answer) -> Result<f32, JobError> {
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    let computed = answer.expect("in time").expect("an answer");
    computed.map(|computed| computed.outputs[0].to_f32().expect("f32")[0])
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn only_a_bulk_pass_lets_everybody_else_go_first() {
    let of_pass = |_: &[f32]| Ok(vec![time_slice::granted().as_secs_f32()]);
    let version = testing::version("a", Ok(()), of_pass);
    let running = running(1, Duration::ZERO);
    // A kernel before 6.12 gives no thread a slice of its own.
    let usual = time_slice::granted().as_secs_f32();
    let long = if usual > 0.0 { 0.1 } else { 0.0 };
    for (lane, expected) in [
        (Lane::Low, long),
        (Lane::Low, long),
        (Lane::High, usual),
        (Lane::Low, long),
        (Lane::Normal, usual),
    ] {
        let granted = value(running.row_on(lane, &version, 1.0).await).await;
        assert!(
            matches!(granted, Ok(granted) if granted == expected),
            "{lane:?} {granted:?}, not {expected}"
        );
    }
    // A thread that such a pass starts may outlive it.
    let of_thread = |_: &[f32]| {
        let granted = std::thread::spawn(time_slice::granted).join();
        Ok(vec![granted.expect("no panic").as_secs_f32()])
    };
    let version = testing::version("b", Ok(()), of_thread);
    let granted = value(running.row_on(Lane::Low, &version, 1.0).await).await;
    assert!(
        matches!(granted, Ok(granted) if granted == usual),
        "{granted:?}, not {usual}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_pass_that_does_not_return_costs_its_own_rows_a_retry_and_nobody_else_anything() {
    static GATE: Gate = Gate::shut();
    let version = testing::version("a", Ok(()), |values| {
        if values.contains(&13.0) {
            GATE.pass();
        }
        double(values)
    });
    let version = testing::impatient(version, LIMIT);
    let running = running(1, Duration::ZERO);
    let mut answers = Vec::new();
    for row in [12.0, 13.0, 14.0] {
        answers.push(running.row(&version, row).await);
    }
    let after = value(answers.pop().expect("three")).await;
    let stuck = value(answers.pop().expect("two")).await;
    let before = value(answers.pop().expect("one")).await;
    assert!(matches!(before, Ok(24.0)), "{before:?}");
    assert!(matches!(after, Ok(28.0)), "{after:?}");
    assert!(matches!(stuck, Err(JobError::Overrun(LIMIT))), "{stuck:?}");
    running
        .shows(r#"inferq_engine_failures_total{kind="timeout"} 1"#)
        .await;
    running.shows("inferq_stuck_threads 1").await;
    GATE.open();
    running.shows("inferq_stuck_threads 0").await;
    assert!(!running.worn_out.is_cancelled());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_share_a_stuck_forward_pass_are_all_tried_again() {
    static GATE: Gate = Gate::shut();
    let version = testing::version("a", Ok(()), |values| {
        GATE.pass();
        double(values)
    });
    let version = testing::impatient(version, LIMIT);
    let running = running(3, Duration::from_secs(30));
    let mut answers = Vec::new();
    for row in [1.0, 2.0, 3.0] {
        answers.push(running.row(&version, row).await);
    }
    for answer in answers {
        let answer = value(answer).await;
        assert!(matches!(answer, Err(JobError::Overrun(_))), "{answer:?}");
    }
    running
        .shows(r#"inferq_engine_failures_total{kind="timeout"} 1"#)
        .await;
    GATE.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_second_stuck_thread_the_worker_is_worn_out_and_still_runs_what_it_holds() {
    static GATE: Gate = Gate::shut();
    let version = testing::version("a", Ok(()), |values| {
        if values.contains(&13.0) {
            GATE.pass();
        }
        double(values)
    });
    let version = testing::impatient(version, LIMIT);
    let running = running(1, Duration::ZERO);
    let stuck = [
        running.row(&version, 13.0).await,
        running.row(&version, 13.0).await,
    ];
    let last = running.row(&version, 14.0).await;
    for stuck in stuck {
        assert!(matches!(value(stuck).await, Err(JobError::Overrun(_))));
    }
    let worn_out = tokio::time::timeout(PATIENCE, running.worn_out.cancelled()).await;
    assert!(worn_out.is_ok());
    assert!(matches!(value(last).await, Ok(28.0)));
    GATE.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_pass_stops_at_its_next_operator_once_nobody_waits_for_any_of_its_rows() {
    static OPERATORS: Operators = Operators::none();
    let version = testing::version("a", Ok(()), |values| match values {
        [13.0, 14.0] => OPERATORS.run(),
        values => double(values),
    });
    // With the stopped one there would be as many as it takes to know the pace.
    for _ in 0..KEPT - 2 {
        let took = Duration::from_secs(1);
        version.pace.record(2, took, Instant::now());
    }
    let running = running(2, Duration::from_secs(30));
    let (first, second) = (
        running.row(&version, 13.0).await,
        running.row(&version, 14.0).await,
    );
    OPERATORS.two_more().await;
    drop(first);
    // It would run for ever, and nothing else on its thread.
    OPERATORS.two_more().await;
    drop(second);
    let next = [
        running.row(&version, 1.0).await,
        running.row(&version, 2.0).await,
    ];
    for (next, expected) in next.into_iter().zip([2.0, 4.0]) {
        let next = value(next).await;
        assert!(matches!(next, Ok(value) if value == expected), "{next:?}");
    }
    let shown = running.metrics.encode();
    assert!(!shown.contains("inferq_engine_failures_total{"), "{shown}");
    assert_eq!(version.pace.least(2, Instant::now()), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_answered_although_those_beside_it_have_nobody_left() {
    static OPERATORS: Operators = Operators::none();
    static GATE: Mutex<bool> = Mutex::new(false);
    let version = testing::version("a", Ok(()), |values| {
        let open = *GATE.lock().expect("no panic while it was held");
        if open {
            double(values)
        } else {
            OPERATORS.run()
        }
    });
    let running = running(3, Duration::from_secs(30));
    let first = running.row(&version, 1.0).await;
    let kept = running.row(&version, 2.0).await;
    let last = running.row(&version, 3.0).await;
    OPERATORS.two_more().await;
    drop((first, last));
    OPERATORS.two_more().await;
    *GATE.lock().expect("as above") = true;
    let kept = value(kept).await;
    assert!(matches!(kept, Ok(4.0)), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overdue_forward_pass_stops_at_its_next_operator_and_its_thread_is_not_stuck() {
    static OPERATORS: Operators = Operators::none();
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    /// Dropped when its thread ends.
    struct Thread;
    impl Drop for Thread {
        fn drop(&mut self) {
            ENDED.fetch_add(1, Ordering::SeqCst);
        }
    }
    thread_local! {
        static THREAD: Thread = const { Thread };
    }
    let version = testing::version("a", Ok(()), |values| match values {
        [13.0] => THREAD.with(|_| OPERATORS.run()),
        values => double(values),
    });
    let version = testing::impatient(version, LIMIT);
    let running = running(1, Duration::ZERO);
    for _ in 0..3 {
        let overdue = value(running.row(&version, 13.0).await).await;
        assert!(
            matches!(overdue, Err(JobError::Overrun(LIMIT))),
            "{overdue:?}"
        );
    }
    let after = value(running.row(&version, 14.0).await).await;
    assert!(matches!(after, Ok(28.0)), "{after:?}");
    running
        .shows(r#"inferq_engine_failures_total{kind="timeout"} 3"#)
        .await;
    let ended = async {
        while ENDED.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, ended).await;
    ended.expect("each thread came back, and others had its place");
    running.shows("inferq_stuck_threads 0").await;
    assert!(!running.worn_out.is_cancelled());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_failing_batch_only_rows_that_somebody_waits_for_are_run_again() {
    static GATE: Gate = Gate::shut();
    static BEGUN: Operators = Operators::none();
    static IN_VAIN: AtomicUsize = AtomicUsize::new(0);
    let version = testing::version("a", Ok(()), |values| match values {
        [13.0, 14.0, ..] => {
            BEGUN.0.fetch_add(1, Ordering::SeqCst);
            GATE.pass();
            Err(RunError::Model("thirteen".into()))
        }
        [13.0] => Err(RunError::Model("thirteen".into())),
        values => {
            let gone = values.contains(&14.0) || values.contains(&15.0);
            IN_VAIN.fetch_add(usize::from(gone), Ordering::SeqCst);
            double(values)
        }
    });
    let running = running(4, Duration::from_secs(30));
    let mut answers = Vec::new();
    for row in [13.0, 14.0, 15.0, 16.0] {
        answers.push(running.row(&version, row).await);
    }
    let last = answers.pop().expect("four");
    let guilty = answers.remove(0);
    let begun = async {
        while BEGUN.0.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun)
        .await
        .expect("it runs");
    drop(answers);
    GATE.open();
    let (guilty, last) = (value(guilty).await, value(last).await);
    assert!(matches!(guilty, Err(JobError::Model(_))), "{guilty:?}");
    assert!(matches!(last, Ok(32.0)), "{last:?}");
    assert_eq!(IN_VAIN.load(Ordering::SeqCst), 0);
}
