use std::num::NonZeroUsize;

use tokio::sync::oneshot::Receiver;
use tracing::Span;

use super::*;
use crate::models::pace::FEW;
use crate::testing::{self, double};
use crate::work::Computed;

mod model;
mod stage;

type Answer = Receiver<Result<Computed, JobError>>;

fn limits(rows: usize, wait: Duration) -> BatchLimits {
    BatchLimits {
        max_batch_rows: NonZeroUsize::new(rows).expect("more than none"),
        batch_wait: wait,
    }
}

fn by_row(
    version: &Arc<Version>,
    values: &[f32],
    lane: Lane,
    deadline: Option<Deadline>,
) -> (Arc<Work>, Answer) {
    let rows = Rows::Some((0..values.len()).collect());
    Work::new(
        version.clone(),
        testing::input(values),
        rows,
        (lane, deadline, Span::none(), None),
    )
}

fn rows(version: &Arc<Version>, values: &[f32]) -> (Arc<Work>, Answer) {
    by_row(version, values, Lane::Normal, None)
}

/// A waiting set and the receivers that keep its work alive.
fn waiting(rows: usize, work: Vec<(Arc<Work>, Answer)>) -> (Waiting, Vec<Answer>) {
    let mut waiting = Waiting::new(limits(rows, Duration::ZERO));
    let answers = work
        .into_iter()
        .map(|(work, answer)| {
            waiting.push(work);
            answer
        })
        .collect();
    (waiting, answers)
}

/// The worker has run batches of every size, and they took so long.
fn learn(version: &Version, takes: impl Fn(u32) -> Duration) {
    for rows in [1, 2, 4, 8] {
        for _ in 0..FEW {
            version
                .pace
                .record(rows as usize, takes(rows), Instant::now());
        }
    }
}

fn sizes(batch: &Batch) -> Vec<usize> {
    batch.slices.iter().map(|slice| slice.units.len()).collect()
}

#[test]
fn rows_of_several_jobs_share_a_batch() {
    let version = testing::version("a", Ok(()), double);
    let (mut waiting, _answers) = waiting(
        32,
        vec![rows(&version, &[1.0]), rows(&version, &[2.0, 3.0])],
    );
    let batch = waiting.take().expect("work is waiting");
    assert_eq!(
        (sizes(&batch), batch.close),
        (vec![1, 2], CloseReason::Idle)
    );
    assert!(waiting.is_empty());
}

#[test]
fn a_job_larger_than_a_batch_is_taken_piece_by_piece() {
    let version = testing::version("a", Ok(()), double);
    let (mut waiting, _answers) = waiting(4, vec![rows(&version, &[0.0; 10])]);
    let taken: Vec<(Vec<usize>, CloseReason)> = std::iter::from_fn(|| waiting.take())
        .map(|batch| (sizes(&batch), batch.close))
        .collect();
    assert_eq!(
        taken,
        [
            (vec![4], CloseReason::Full),
            (vec![4], CloseReason::Full),
            (vec![2], CloseReason::Idle)
        ]
    );
}

#[test]
fn versions_never_share_a_batch() {
    let (old, new) = (
        testing::version("a", Ok(()), double),
        testing::version("a", Ok(()), double),
    );
    let (mut waiting, _answers) = waiting(32, vec![rows(&old, &[1.0]), rows(&new, &[2.0])]);
    assert_eq!(sizes(&waiting.take().expect("one version")), [1]);
    assert_eq!(sizes(&waiting.take().expect("the other")), [1]);
}

#[test]
fn a_job_without_batch_proof_runs_alone() {
    let version = testing::version("a", Err("mean over rows".into()), double);
    let whole = |values: &[f32]| {
        Work::new(
            version.clone(),
            testing::input(values),
            Rows::Whole,
            (Lane::Normal, None, Span::none(), None),
        )
    };
    let (mut waiting, _answers) = waiting(32, vec![whole(&[1.0, 2.0]), whole(&[3.0])]);
    let batch = waiting.take().expect("work is waiting");
    assert_eq!((batch.rows(), batch.close), (2, CloseReason::Alone));
}

#[test]
fn the_earliest_deadline_leaves_first_and_none_last() {
    let version = testing::version("a", Ok(()), double);
    let at = |seconds| Some(Deadline(Instant::now() + Duration::from_secs(seconds)));
    let work = vec![
        by_row(&version, &[0.0], Lane::Normal, None),
        by_row(&version, &[9.0], Lane::Normal, at(9)),
        by_row(&version, &[3.0], Lane::Normal, at(3)),
    ];
    let (mut waiting, _answers) = waiting(32, work);
    let batch = waiting.take().expect("work is waiting");
    let order: Vec<f32> = batch
        .slices
        .iter()
        .map(|slice| slice.work.inputs[0].to_f32().expect("f32")[0])
        .collect();
    assert_eq!(order, [3.0, 9.0, 0.0]);
}

#[test]
fn lanes_of_a_busy_model_leave_eight_to_four_to_one() {
    let version = testing::version("a", Ok(()), double);
    let mut work = Vec::new();
    for lane in Lane::ALL {
        work.extend((0..1300).map(|_| by_row(&version, &[1.0], lane, None)));
    }
    let (mut waiting, _answers) = waiting(1, work);
    let mut counts: HashMap<Lane, usize> = HashMap::new();
    for _ in 0..1300 {
        *counts
            .entry(waiting.take().expect("work is waiting").slices[0].work.lane)
            .or_default() += 1;
    }
    assert_eq!(Lane::ALL.map(|lane| counts[&lane]), [800, 400, 100]);
}

#[test]
fn executor_time_is_shared_between_models_not_batches() {
    let (slow, fast) = (
        testing::version("slow", Ok(()), double),
        testing::version("fast", Ok(()), double),
    );
    let work = (0..400)
        .flat_map(|_| [rows(&slow, &[1.0]), rows(&fast, &[1.0])])
        .collect();
    let (mut waiting, _answers) = waiting(1, work);
    let mut time: HashMap<ModelName, Duration> = HashMap::new();
    for _ in 0..220 {
        let batch = waiting.take().expect("work is waiting");
        let took = Duration::from_millis(if batch.version.model.as_str() == "slow" {
            10
        } else {
            1
        });
        waiting.charge(&batch.version.model, took);
        *time.entry(batch.version.model.clone()).or_default() += took;
    }
    let (slow, fast) = (
        time[&slow.model].as_secs_f64(),
        time[&fast.model].as_secs_f64(),
    );
    assert!(
        (slow / fast - 1.0).abs() < 0.1,
        "slow had {slow} s, fast {fast} s"
    );
}

#[test]
fn work_that_nobody_waits_for_is_dropped() {
    let version = testing::version("a", Ok(()), double);
    let (mut waiting, mut answers) =
        waiting(32, vec![rows(&version, &[1.0]), rows(&version, &[2.0])]);
    answers.remove(0);
    assert_eq!(sizes(&waiting.take().expect("one is left")), [1]);
    assert!(waiting.is_empty());
}

/// A version whose forward passes of one row have all taken this long.
fn paced(took: Duration) -> Arc<Version> {
    let version = testing::version("a", Ok(()), double);
    for _ in 0..100 {
        version.pace.record(1, took, Instant::now());
    }
    version
}

fn ends_in(ms: u64) -> Option<Deadline> {
    Some(Deadline(Instant::now() + Duration::from_millis(ms)))
}

#[test]
fn work_that_takes_longer_than_its_deadline_leaves_is_refused_without_compute() {
    let version = paced(Duration::from_secs(60));
    let (mut waiting, mut answers) = waiting(
        32,
        vec![
            by_row(&version, &[1.0], Lane::Normal, ends_in(30_000)),
            by_row(&version, &[2.0], Lane::Normal, ends_in(300_000)),
            by_row(&version, &[3.0], Lane::Normal, None),
        ],
    );
    let refused = answers[0].try_recv().expect("it is told at once");
    assert!(
        matches!(refused, Err(JobError::TooLate(takes)) if takes == Duration::from_secs(60)),
        "{refused:?}"
    );
    assert_eq!(sizes(&waiting.take().expect("the others")), [1, 1]);
    assert!(waiting.is_empty());
}

#[test]
fn work_whose_time_has_run_out_while_it_waited_is_refused() {
    let version = testing::version("a", Ok(()), double);
    let work = by_row(&version, &[1.0], Lane::Normal, ends_in(30_000));
    let (mut waiting, mut answers) = waiting(32, vec![work]);
    for _ in 0..100 {
        version
            .pace
            .record(1, Duration::from_secs(60), Instant::now());
    }
    assert!(waiting.take().is_none());
    assert!(waiting.is_empty());
    assert!(matches!(
        answers[0].try_recv(),
        Ok(Err(JobError::TooLate(_)))
    ));
}

#[test]
fn a_cold_worker_refuses_nothing() {
    let version = testing::version("a", Ok(()), double);
    version
        .pace
        .record(1, Duration::from_secs(60), Instant::now());
    let work = by_row(&version, &[1.0], Lane::Normal, ends_in(30_000));
    let (mut waiting, _answers) = waiting(32, vec![work]);
    assert!(waiting.take().is_some());
}

#[test]
fn rows_that_would_make_another_late_are_left_for_the_next_batch() {
    let version = paced(Duration::from_secs(1));
    for _ in 0..100 {
        version
            .pace
            .record(4, Duration::from_secs(60), Instant::now());
    }
    let of = |deadline| by_row(&version, &[1.0], Lane::Normal, deadline);
    let work = [None, None, None, ends_in(30_000)].map(of);
    let (mut waiting, mut answers) = waiting(32, work.into());
    let first = waiting.take().expect("work is waiting");
    assert_eq!((first.rows(), first.close), (3, CloseReason::Deadline));
    assert!(
        first
            .slices
            .iter()
            .any(|slice| slice.work.deadline.is_some())
    );
    let second = waiting.take().expect("one is left, and not refused");
    assert_eq!((second.rows(), second.close), (1, CloseReason::Idle));
    assert!(waiting.is_empty());
    assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()));
}

#[test]
fn beside_others_a_batch_has_no_more_rows_than_pay() {
    let slow = testing::version("slow", Ok(()), double);
    learn(&slow, |rows| Duration::from_millis(5) * rows);
    let quiet = testing::version("quiet", Ok(()), double);
    let flood = |count| (0..count).map(|_| rows(&slow, &[1.0]));
    let (mut waiting, mut kept) = waiting(8, flood(8).collect());
    let alone = waiting.take().expect("work is waiting");
    assert_eq!((alone.rows(), alone.close), (8, CloseReason::Full));
    for (work, answer) in flood(8).chain([rows(&quiet, &[1.0])]) {
        waiting.push(work);
        kept.push(answer);
    }
    let mut taken = Vec::new();
    while let Some(batch) = waiting.take() {
        taken.push((batch.version.model.to_string(), batch.rows(), batch.close));
    }
    let (of_quiet, of_slow): (Vec<_>, Vec<_>) = taken
        .into_iter()
        .partition(|(model, _, _)| model == "quiet");
    assert_eq!(of_quiet, [("quiet".to_owned(), 1, CloseReason::Idle)]);
    assert_eq!(of_slow.len(), 8);
    let (last, before) = of_slow.split_last().expect("there are eight");
    let one_row = |close| ("slow".to_owned(), 1, close);
    assert_eq!(before, vec![one_row(CloseReason::Others); 7]);
    assert_eq!(*last, one_row(CloseReason::Idle));
}

#[tokio::test(start_paused = true)]
async fn a_lone_job_leaves_when_its_wait_is_over() {
    let wait = Duration::from_millis(4);
    let version = testing::version("a", Ok(()), double);
    let mut waiting = Waiting::new(limits(8, wait));
    let (work, _answer) = rows(&version, &[1.0]);
    let queued = work.queued;
    waiting.push(work);
    assert!(!waiting.is_due(queued));
    assert!(waiting.is_due(queued + wait));
    let (more, _answer) = rows(&version, &[0.0; 7]);
    waiting.push(more);
    assert!(
        waiting.is_due(Instant::now()),
        "a full batch waits for nothing"
    );
}
