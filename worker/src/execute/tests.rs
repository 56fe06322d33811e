//! Real threads in forward passes that do not return: what that costs, and what it does not.

use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex};

use inferq_schemas::subjects::Lane;
use tokio::sync::oneshot::Receiver;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Span;

use super::*;
use crate::batch;
use crate::config::BatchLimits;
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
        let (inputs, rows) = (testing::input(&[value]), Rows::Some(vec![0]));
        let terms = (Lane::Normal, None, Span::none());
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
