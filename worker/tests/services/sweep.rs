//! Jobs that no worker would ever see, ended by the sweeper.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::PullConsumer;
use futures::StreamExt;
use inferq_schemas::ErrorCode;
use inferq_schemas::subjects::Lane;
use inferq_worker::metrics::Metrics;
use inferq_worker::sweep::{Ages, SweepVerdict, Sweeper, SweptJob};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::nats::{Nats, eventually};

/// What was concluded, in order.
type Concluded = Arc<Mutex<Vec<SweptJob>>>;

const AT_ONCE: Ages = Ages {
    every: Duration::from_millis(100),
    unknown: Duration::ZERO,
    too_old: Duration::from_secs(3_600),
    left: Duration::ZERO,
    answered: Duration::ZERO,
};

fn sweeper(
    nats: &Nats,
    worker: &str,
    ages: Ages,
) -> (
    Sweeper<impl Fn(SweptJob) -> std::future::Ready<anyhow::Result<()>> + use<>>,
    Concluded,
) {
    let concluded = Concluded::default();
    let seen = concluded.clone();
    let sweeper = sweeper_with(nats, worker, ages, move |job: SweptJob| {
        let refused = job.body == "refuse";
        seen.lock().expect("no test panics with it").push(job);
        std::future::ready(if refused {
            Err(anyhow::anyhow!("asked to fail"))
        } else {
            Ok(())
        })
    });
    (sweeper, concluded)
}

fn sweeper_with<C>(nats: &Nats, worker: &str, ages: Ages, conclude: C) -> Sweeper<C> {
    Sweeper {
        jetstream: nats.jetstream.clone(),
        subjects: nats.subjects.clone(),
        worker_id: worker.to_owned(),
        metrics: Metrics::new(),
        ages,
        conclude,
    }
}

fn bodies(concluded: &Concluded) -> Vec<String> {
    let jobs = concluded.lock().expect("no test panics with it");
    jobs.iter()
        .map(|job| String::from_utf8_lossy(&job.body).into_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_for_unknown_models_are_ended_with_the_nearest_name_and_all_others_stay() {
    let nats = Nats::with_assets().await;
    nats.add_consumer("digits", Lane::Normal).await;
    nats.publish("infer.jobs.digits.normal", "known").await;
    nats.publish("infer.jobs.digit.normal", "mistyped").await;
    nats.publish("infer.jobs.digits.high", "no consumer on this lane")
        .await;
    nats.publish("infer.jobs.Wine+Quality.low", "no name").await;
    let (sweeper, concluded) = sweeper(&nats, "a", AT_ONCE);
    assert_eq!(sweeper.sweep().await.expect("the server answers"), 3);
    let mut found = bodies(&concluded);
    found.sort();
    assert_eq!(found, ["mistyped", "no consumer on this lane", "no name"]);
    assert_eq!(
        (
            nats.stored("INFER_JOBS").await,
            nats.stored("INFER_BULK").await
        ),
        (1, 0)
    );
    let jobs = concluded.lock().expect("no test panics with it");
    let job = |body: &str| {
        jobs.iter()
            .find(|job| job.body == body.as_bytes())
            .expect("it was ended")
    };
    let mistyped = job("mistyped");
    assert_eq!(
        (mistyped.verdict, mistyped.failure.code),
        (SweepVerdict::UnknownModel, ErrorCode::NotFound)
    );
    assert!(
        mistyped.failure.message.contains("did you mean `digits`?"),
        "{}",
        mistyped.failure
    );
    assert_eq!(
        (mistyped.stream.as_str(), mistyped.subject.model.as_str()),
        ("INFER_JOBS", "digit")
    );
    assert!(
        mistyped.published_unix_ms > 1_600_000_000_000,
        "{}",
        mistyped.published_unix_ms
    );
    let nameless = job("no name");
    assert_eq!(
        (nameless.subject.lane, nameless.subject.model.as_str()),
        (Lane::Low, "wine_quality")
    );
    assert!(
        nameless.failure.message.contains("Wine+Quality")
            && nameless.failure.message.contains("a-z 0-9")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_young_job_waits_for_its_model_to_become_known() {
    let nats = Nats::with_assets().await;
    nats.publish("infer.jobs.digits.normal", "early").await;
    let (patient, _) = sweeper(
        &nats,
        "a",
        Ages {
            unknown: Duration::from_secs(30),
            ..AT_ONCE
        },
    );
    assert_eq!(patient.sweep().await.expect("the server answers"), 0);
    nats.add_consumer("digits", Lane::Normal).await;
    let (hasty, _) = sweeper(&nats, "a", AT_ONCE);
    assert_eq!(hasty.sweep().await.expect("the server answers"), 0);
    assert_eq!(nats.stored("INFER_JOBS").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_about_to_be_removed_by_age_expires() {
    let nats = Nats::with_assets().await;
    nats.add_consumer("digits", Lane::Low).await;
    nats.publish("infer.jobs.digits.low", "old").await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    nats.publish("infer.jobs.digits.low", "young").await;
    let (sweeper, concluded) = sweeper(
        &nats,
        "a",
        Ages {
            too_old: Duration::from_secs(1),
            ..AT_ONCE
        },
    );
    assert_eq!(sweeper.sweep().await.expect("the server answers"), 1);
    let jobs = concluded.lock().expect("no test panics with it").clone();
    assert_eq!(
        (jobs[0].verdict, jobs[0].failure.code),
        (SweepVerdict::TooOld, ErrorCode::Deadline)
    );
    assert_eq!(jobs[0].body, "old");
    assert_eq!(nats.stored("INFER_BULK").await, 1);
}

/// Publishes `jobs` to a stream that keeps what was acknowledged, as a server does that was killed before it had removed
/// it, and returns the first `delivered` of them as a worker gets them.
async fn deliver(nats: &Nats, jobs: &[&str], delivered: usize) -> Vec<jetstream::Message> {
    nats.jetstream
        .delete_stream("INFER_JOBS")
        .await
        .expect("it is there");
    nats.jetstream
        .create_stream(jetstream::stream::Config {
            name: "INFER_JOBS".to_owned(),
            subjects: vec!["infer.jobs.*.normal".to_owned()],
            allow_direct: true,
            ..jetstream::stream::Config::default()
        })
        .await
        .expect("it can be made");
    nats.add_consumer("digits", Lane::Normal).await;
    for job in jobs {
        nats.publish("infer.jobs.digits.normal", job).await;
    }
    let consumer: PullConsumer = nats
        .jetstream
        .get_consumer_from_stream("digits__normal", "INFER_JOBS")
        .await
        .expect("it is there");
    let held = consumer.fetch().max_messages(delivered).messages().await;
    let held = held.expect("it answers").map(|job| job.expect("a job"));
    held.collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_acknowledged_and_yet_is_there_leaves_the_queue() {
    let nats = Nats::with_assets().await;
    for job in deliver(&nats, &["left", "left too", "waiting"], 2).await {
        job.double_ack().await.expect("it is acknowledged");
    }
    let (sweeper, concluded) = sweeper(&nats, "a", AT_ONCE);
    assert_eq!(sweeper.sweep().await.expect("the server answers"), 2);
    assert_eq!(bodies(&concluded), ["left", "left too"]);
    let jobs = concluded.lock().expect("no test panics with it").clone();
    assert!(jobs.iter().all(|job| job.verdict == SweepVerdict::Left));
    assert_eq!(nats.stored("INFER_JOBS").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_has_long_ended_and_yet_is_there_is_settled_by_the_sweeper() {
    let nats = Nats::with_assets().await;
    let jobs = ["held", "answered", "answered too", "unanswered", "waiting"];
    let delivered = deliver(&nats, &jobs, 4).await;
    for job in &delivered[1..] {
        job.double_ack().await.expect("it is acknowledged");
    }
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    for job in [2, 3, 5] {
        let outcome = format!("infer.results.INFER_JOBS-{job}");
        nats.publish(&outcome, "{}").await;
    }
    let ages = Ages {
        answered: Duration::from_secs(1),
        ..AT_ONCE
    };
    let (sweeper, concluded) = sweeper(&nats, "a", ages);
    let swept = async || sweeper.sweep().await.expect("the server answers");
    assert_eq!(swept().await, 0, "whoever wrote the outcomes may be at it");
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(swept().await, 2);
    assert_eq!(bodies(&concluded), ["answered", "answered too"]);
    let verdicts = async |verdict| {
        let jobs = concluded.lock().expect("no test panics with it");
        jobs.iter().filter(|job| job.verdict == verdict).count()
    };
    assert_eq!(verdicts(SweepVerdict::Answered).await, 2);
    // Now all that was delivered is below the last acknowledgement of all.
    delivered[0].double_ack().await.expect("it is acknowledged");
    assert_eq!(swept().await, 2);
    assert_eq!(bodies(&concluded)[2..], ["held", "unanswered"]);
    assert_eq!(verdicts(SweepVerdict::Left).await, 2);
    assert_eq!(nats.stored("INFER_JOBS").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_has_to_end_for_two_reasons_ends_once() {
    let nats = Nats::with_assets().await;
    nats.publish("infer.jobs.nobody.normal", "old").await;
    let ages = Ages {
        too_old: Duration::ZERO,
        ..AT_ONCE
    };
    let (sweeper, concluded) = sweeper(&nats, "a", ages);
    assert_eq!(sweeper.sweep().await.expect("the server answers"), 1);
    assert_eq!(bodies(&concluded), ["old"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_outcome_could_not_be_written_stays_and_holds_up_no_other() {
    let nats = Nats::with_assets().await;
    nats.publish("infer.jobs.nobody.normal", "refuse").await;
    nats.publish("infer.jobs.nobody.normal", "fine").await;
    let (sweeper, concluded) = sweeper(&nats, "a", AT_ONCE);
    let error = sweeper.sweep().await.expect_err("one job fails");
    assert!(format!("{error:#}").contains("asked to fail"), "{error:#}");
    assert_eq!(bodies(&concluded), ["refuse", "fine"]);
    assert_eq!(nats.stored("INFER_JOBS").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_sweepers_works_and_the_other_follows_when_it_stops() {
    let nats = Nats::with_assets().await;
    let stops = [CancellationToken::new(), CancellationToken::new()];
    let (first, by_first) = sweeper(&nats, "a", AT_ONCE);
    let first = tokio::spawn(first.run(stops[0].clone()));
    nats.publish("infer.jobs.nobody.normal", "one").await;
    eventually("the first sweeps", async || bodies(&by_first) == ["one"]).await;
    let (second, by_second) = sweeper(&nats, "b", AT_ONCE);
    let second = tokio::spawn(second.run(stops[1].clone()));
    nats.publish("infer.jobs.nobody.normal", "two").await;
    eventually("the first still sweeps", async || {
        bodies(&by_first).len() == 2
    })
    .await;
    assert_eq!(bodies(&by_second), Vec::<String>::new());
    stops[0].cancel();
    first.await.expect("no panic");
    nats.publish("infer.jobs.nobody.normal", "three").await;
    eventually("the second takes over", async || {
        bodies(&by_second) == ["three"]
    })
    .await;
    stops[1].cancel();
    second.await.expect("no panic");
    assert_eq!(nats.stored("INFER_JOBS").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweeper_that_crashed_and_is_started_again_goes_on_before_its_lease_ends() {
    let nats = Nats::with_assets().await;
    let (crashing, by_crashing) = sweeper(&nats, "a", AT_ONCE);
    let crashing = tokio::spawn(crashing.run(CancellationToken::new()));
    nats.publish("infer.jobs.nobody.normal", "one").await;
    eventually("it sweeps", async || bodies(&by_crashing) == ["one"]).await;
    crashing.abort();
    let (again, by_again) = sweeper(&nats, "a", AT_ONCE);
    let stop = CancellationToken::new();
    let again = tokio::spawn(again.run(stop.clone()));
    nats.publish("infer.jobs.nobody.normal", "two").await;
    let swept = eventually("it sweeps again", async || bodies(&by_again) == ["two"]);
    let lease = Duration::from_secs(20);
    tokio::time::timeout(lease / 2, swept)
        .await
        .expect("the lease is its own");
    stop.cancel();
    again.await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_jobs_are_ended_at_once() {
    let nats = Nats::with_assets().await;
    for _ in 0..40 {
        nats.publish("infer.jobs.nobody.normal", "one").await;
    }
    let (begun, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let conclude = |_| {
        let (begun, all) = (begun.clone(), all.clone());
        async move {
            // None ends before as many have begun as are ended at once.
            let arrived = all.notified();
            match begun.fetch_add(1, Ordering::SeqCst) + 1 {
                ..16 => arrived.await,
                _ => all.notify_waiters(),
            }
            Ok(())
        }
    };
    let sweeper = sweeper_with(&nats, "a", AT_ONCE, conclude);
    let swept = tokio::time::timeout(Duration::from_secs(10), sweeper.sweep()).await;
    let ended = swept.expect("they do not wait for each other");
    assert_eq!(ended.expect("the server answers"), 40);
    assert_eq!(nats.stored("INFER_JOBS").await, 0);
}
