//! Was every job answered exactly once, and were the answers right?

use std::{collections::HashSet, time::Duration};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use futures::{TryStreamExt, stream};
use inferq::{Client, bench::Mode};
use inferq_integration::wait_until_empty;
use inferq_schemas::Assets;

use crate::passes::Done;

/// What the model reaches on images it has not seen.
const LEAST_ACCURACY: f64 = 0.96;
/// Outcomes read back at a time.
const READS: usize = 64;
/// A job is acknowledged right after its reply, so only its queue may lag behind.
const STORED_WITHIN: Duration = Duration::from_secs(5);

/// What the streams hold when all is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) jobs: usize,
    pub(crate) outcomes: u64,
    pub(crate) dead_letters: u64,
}

/// Checks the answers of each pass, then each job's outcome in the stream itself.
pub(crate) async fn of(client: &Client, done: &[Done], rows: usize) -> Result<Kept> {
    for pass in done {
        answered(pass, rows).with_context(|| pass.pass.title)?;
    }
    let jobs = done.iter().filter(|done| done.pass.mode == Mode::Jobs);
    stored_once(client, jobs).await
}

fn answered(done: &Done, rows: usize) -> Result<()> {
    let (report, found) = (&done.report, &done.found);
    let failure = report.examples.iter().next();
    let failure = failure.map_or(String::new(), |(code, why)| {
        format!("; the first of code {code}: {why}")
    });
    ensure!(
        report.ok == rows as u64 && found.outcomes.len() == rows,
        "{} of {rows} requests have an ok outcome{failure}",
        report.ok
    );
    if let Some(reason) = found.unreadable.first() {
        anyhow::bail!(
            "{} answers cannot be read; the first: {reason}",
            found.unreadable.len()
        );
    }
    let accuracy = found.right as f64 / rows as f64;
    ensure!(
        accuracy >= LEAST_ACCURACY,
        "accuracy {accuracy:.4} is below {LEAST_ACCURACY}"
    );
    Ok(())
}

/// Reads each outcome from the stream, and counts how many were ever written there.
async fn stored_once<'a>(client: &Client, passes: impl Iterator<Item = &'a Done>) -> Result<Kept> {
    let answers: Vec<_> = passes.flat_map(|done| &done.found.outcomes).collect();
    let ids: HashSet<_> = answers
        .iter()
        .map(|answer| &answer.headers.job_id)
        .collect();
    ensure!(
        ids.len() == answers.len(),
        "{} jobs have {} outcomes",
        ids.len(),
        answers.len()
    );
    stream::iter(answers.iter().copied().map(Ok))
        .try_for_each_concurrent(READS, |answer| async move {
            let id = &answer.headers.job_id;
            let stored = client.result(id, STORED_WITHIN).await?;
            ensure!(
                stored.is_ok() && stored.body == answer.body,
                "job {id} was answered otherwise than its stored outcome says"
            );
            anyhow::Ok(())
        })
        .await?;
    let assets = Assets::new(client.subjects());
    let context = jetstream::new(client.nats().clone());
    let results = context.get_stream(assets.results()).await?;
    let results = &results.cached_info().state;
    // The stream keeps the last message of each subject, but numbers all it ever took: equal
    // numbers mean that no outcome was written over another.
    ensure!(
        results.messages == answers.len() as u64 && results.last_sequence == results.messages,
        "{} jobs, but {} outcomes were written and {} are kept",
        answers.len(),
        results.last_sequence,
        results.messages
    );
    let dead = context.get_stream(assets.dead()).await?;
    let dead_letters = dead.cached_info().state.messages;
    ensure!(dead_letters == 0, "{dead_letters} dead letters");
    wait_until_empty(client, assets.jobs()).await?;
    Ok(Kept {
        jobs: answers.len(),
        outcomes: results.messages,
        dead_letters,
    })
}
