//! A clock is wrong by minutes: that of a producer, or that of a worker.
//!
//! Invariant: nothing is lost or repeated, whatever the clocks say. Of all times on the wire only
//! `Infer-Deadline` is a moment of its sender's clock; the others are lengths of time, and count from when
//! the server stored the job, by the server's clock. So a deadline moves with the clock of whoever
//! set it, and a timeout does not, on whichever worker it ends up.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use inferq::Status;
use inferq_integration::count::Beside;
use inferq_integration::lone::{Lone, LoneWorker};
use inferq_integration::{PATIENCE, start, submit_all};

use crate::check::Watch;
use crate::load::{Load, slow, slowly};

/// How wrong a clock is.
const OFF: Duration = Duration::from_secs(300);
/// Time that a job has, by the clock that is right.
const LIMIT: Duration = Duration::from_secs(60);
const JOBS: usize = 200;
const ONE_EXPIRED: Beside = Beside {
    outcomes: 1,
    letters: 0,
};

/// Where Debian, and others, keep the library that makes a process see another time.
const LIBFAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_whose_clock_is_slow_gets_408_for_its_deadlines_and_answers_for_its_timeouts()
-> Result<()> {
    let (load, stack) = (Load::new()?, start(slow(1)).await?);
    let client = stack.client();
    let watch = Watch::stack(&stack)?;
    let slow_clock = SystemTime::now() - OFF;
    let late = client
        .submit(load.job(0).deadline(slow_clock + LIMIT))
        .await?;
    let outcome = client.result(&late.id, PATIENCE).await?;
    assert_eq!(outcome.status(), Status::Expired, "{}", outcome.text());
    let in_time = (0..JOBS).map(|n| load.job(n).timeout(LIMIT)).collect();
    let in_time = submit_all(client, in_time).await?;
    watch
        .ended_once_beside(client, &load, &in_time, ONE_EXPIRED)
        .await?;
    Ok(stack.stop().await?)
}

/// Whether the library works here: a program that it is loaded into sees another time than we do.
async fn is_off(env: &[(String, String)]) -> Result<()> {
    let mut date = tokio::process::Command::new("date");
    date.arg("+%s").envs(env.iter().cloned());
    let told = String::from_utf8(date.output().await?.stdout)?;
    let told = Duration::from_secs(told.trim().parse()?);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let off = now.abs_diff(told);
    ensure!(
        off > OFF / 2,
        "the clock of a program is off by {off:?} alone"
    );
    Ok(())
}

/// A worker that takes part in the work while its clock is off by `OFF` in the direction of `sign`.
async fn a_worker_is_off(sign: char) -> Result<()> {
    let (load, stack) = (Load::new()?, start(slow(0)).await?);
    let client = stack.client();
    // Its time is over before the worker is there.
    let late = client
        .submit(load.job(0).timeout(Duration::from_millis(1)))
        .await?;
    let library = LIBFAKETIME
        .into_iter()
        .find(|file| std::path::Path::new(file).exists());
    let library = library.context("libfaketime is missing; deploy/setup.sh installs it")?;
    let env = [
        ("LD_PRELOAD", library),
        ("FAKETIME", &format!("{sign}{}s", OFF.as_secs())),
        // Only the date is wrong; how long a second takes is known to every machine.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    is_off(&env).await?;
    let lone = Lone {
        args: slowly(),
        env: env.to_vec(),
    };
    let worker = LoneWorker::start_as(client, stack.nats_url(), "off", lone).await?;
    let watch = Watch::lone([&worker])?;
    let mut jobs: Vec<_> = (0..JOBS).map(|n| load.job(n).timeout(LIMIT)).collect();
    jobs.extend((JOBS..2 * JOBS).map(|n| load.job(n)));
    let accepted = submit_all(client, jobs).await?;
    let called = client.call(load.job(0)).await?;
    ensure!(called.is_ok(), "{}", called.text());
    let outcome = client.result(&late.id, PATIENCE).await?;
    assert_eq!(outcome.status(), Status::Expired, "{}", outcome.text());
    watch
        .ended_once_beside(client, &load, &accepted, ONE_EXPIRED)
        .await?;
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libfaketime"]
async fn a_worker_whose_clock_is_fast_expires_what_is_late_and_nothing_else() -> Result<()> {
    a_worker_is_off('+').await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libfaketime"]
async fn a_worker_whose_clock_is_slow_expires_what_is_late_and_nothing_else() -> Result<()> {
    a_worker_is_off('-').await
}
