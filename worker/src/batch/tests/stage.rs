//! The stage as it runs, with and without an executor.

use super::*;
use crate::execute;
use crate::metrics::Metrics;

#[tokio::test(start_paused = true)]
async fn the_stage_ends_without_waiting_for_work_that_nobody_waits_for() {
    let version = testing::version("a", Ok(()), double);
    let (work_in, work_out) = mpsc::channel(1);
    // Its only executor never has time.
    let (_idle_in, idle) = mpsc::channel(1);
    let stage = tokio::spawn(run(work_out, idle, limits(8, Duration::ZERO)));
    let (work, answer) = rows(&version, &[1.0]);
    work_in.send(work).await.expect("the stage is running");
    drop((answer, work_in));
    let ended = tokio::time::timeout(Duration::from_secs(60), stage).await;
    ended.expect("in time").expect("without a panic");
}

/// Runs `work` through the stage and one real executor thread.
async fn computed(rows: usize, work: Vec<(Arc<Work>, Answer)>) -> Vec<Result<Vec<f32>, String>> {
    let (work_in, work_out) = mpsc::channel(work.len().max(1));
    let (idle_in, idle) = mpsc::channel(1);
    execute::start(1, idle_in, Metrics::new()).expect("a thread");
    let stage = tokio::spawn(run(work_out, idle, limits(rows, Duration::ZERO)));
    let mut answers = Vec::new();
    for (work, answer) in work {
        work_in.send(work).await.expect("the stage is running");
        answers.push(answer);
    }
    drop(work_in);
    stage.await.expect("the stage does not panic");
    let mut values = Vec::new();
    for answer in answers {
        let computed = answer.await.expect("an answer");
        values.push(
            computed
                .map(|computed| computed.outputs[0].to_f32().expect("f32"))
                .map_err(|error| error.to_string()),
        );
    }
    values
}

#[tokio::test]
async fn every_job_gets_its_own_rows_back() {
    let version = testing::version("a", Ok(()), double);
    let work = (0..50u8)
        .map(|job| rows(&version, &vec![f32::from(job); usize::from(job % 7) + 1]))
        .collect();
    for (job, answer) in (0u8..).zip(computed(8, work).await) {
        assert_eq!(
            answer,
            Ok(vec![f32::from(job) * 2.0; usize::from(job % 7) + 1])
        );
    }
}

#[tokio::test]
async fn the_guilty_row_fails_alone() {
    let version = testing::version("a", Ok(()), |values| {
        if values.contains(&13.0) {
            return Err(inferq_engine::RunError::Model("thirteen".into()));
        }
        double(values)
    });
    let work = (0..30u8)
        .map(|job| rows(&version, &[f32::from(job)]))
        .collect();
    for (job, answer) in (0u8..).zip(computed(32, work).await) {
        assert_eq!(answer.is_err(), job == 13, "job {job}: {answer:?}");
    }
}

#[tokio::test]
async fn a_panicking_model_takes_no_other_job_and_no_thread_with_it() {
    let version = testing::version("a", Ok(()), |values| {
        assert!(!values.contains(&13.0), "thirteen");
        double(values)
    });
    let work = [12.0, 13.0, 14.0]
        .map(|value| rows(&version, &[value]))
        .into();
    let answers = computed(32, work).await;
    assert_eq!(
        (&answers[0], &answers[2]),
        (&Ok(vec![24.0]), &Ok(vec![28.0]))
    );
    assert!(
        answers[1]
            .as_ref()
            .is_err_and(|error| error.contains("thirteen")),
        "{:?}",
        answers[1]
    );
}
