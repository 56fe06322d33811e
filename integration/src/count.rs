//! What became of jobs: was every one of them answered once, and rightly?

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream;
use async_nats::jetstream::stream::State;
use futures::{StreamExt, stream};
use inferq::{Client, JobId, Outcome, Status};
use tokio::time::Instant;

use crate::PATIENCE;

/// Outcomes read at a time.
const READS: usize = 256;
/// How often a stream without leader is asked again.
const LOOK: Duration = Duration::from_millis(100);

/// What else has ended beside the jobs that are counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside {
    /// Outcomes of other jobs.
    pub outcomes: u64,
    /// How many of those have a dead letter.
    pub letters: u64,
}

/// What became of all jobs.
#[derive(Debug)]
pub struct Found {
    jobs: usize,
    /// Without an outcome.
    lost: usize,
    /// Outcomes that were written over or that nobody asked for, and dead letters of no job.
    duplicated: u64,
    /// Outcomes that are no answer, or another one.
    wrong: usize,
    /// The first of them.
    example: Option<String>,
}

impl Found {
    /// Whether each job has its answer, and one.
    pub fn is_right(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.wrong == 0
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(example) = &self.example {
            writeln!(f, "the first: {example}")?;
        }
        let Found {
            jobs,
            lost,
            duplicated,
            wrong,
            ..
        } = self;
        write!(
            f,
            "{jobs} jobs, {lost} lost, {duplicated} duplicated, {wrong} wrong"
        )
    }
}

/// Reads every outcome. Job `n` is answered by `expected[n % expected.len()]`.
///
/// # Errors
/// If the server does not answer.
pub async fn of(
    client: &Client,
    jobs: &[JobId],
    expected: &[Vec<f32>],
    beside: Beside,
) -> Result<Found> {
    let mut found = Found {
        jobs: jobs.len(),
        lost: 0,
        duplicated: 0,
        wrong: 0,
        example: None,
    };
    let reads = stream::iter(jobs.iter().zip(expected.iter().cycle()));
    let mut reads = reads
        .map(|(id, expected)| async move {
            // Nothing is on its way any more: what is not there now is lost.
            let outcome = client.result(id, Duration::ZERO).await;
            (id, expected, outcome)
        })
        .buffered(READS);
    while let Some((id, expected, outcome)) = reads.next().await {
        let problem = match outcome {
            Ok(outcome) => {
                let problem = wrong(&outcome, expected);
                found.wrong += usize::from(problem.is_some());
                problem
            }
            Err(error) => {
                found.lost += 1;
                Some(error.to_string())
            }
        };
        if let (None, Some(problem)) = (&found.example, problem) {
            found.example = Some(format!("job {id}: {problem}"));
        }
    }
    // One for each job is kept; the stream counts every one that was ever written.
    let ended = (jobs.len() - found.lost) as u64 + beside.outcomes;
    found.duplicated = state(client, "INFER_RESULTS")
        .await?
        .last_sequence
        .abs_diff(ended);
    let letters = state(client, "INFER_DEAD").await?.messages;
    found.duplicated += letters.abs_diff(beside.letters);
    Ok(found)
}

/// What a stream holds, once it has somebody who knows: its leader may just be elected.
async fn state(client: &Client, stream: &str) -> Result<State> {
    let jetstream = jetstream::new(client.nats().clone());
    let until = Instant::now() + PATIENCE;
    loop {
        match jetstream.get_stream(stream).await {
            Ok(stream) => return Ok(stream.cached_info().state.clone()),
            Err(error) if Instant::now() > until => {
                return Err(error).with_context(|| format!("{stream} does not answer"));
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Why the outcome is not the answer that is expected.
fn wrong(outcome: &Outcome, expected: &[f32]) -> Option<String> {
    if outcome.status() != Status::Ok {
        return Some(format!("{} instead of ok", outcome.status()));
    }
    match probabilities(outcome) {
        Ok(found) if found == expected => None,
        Ok(found) => Some(format!("{found:?} instead of {expected:?}")),
        Err(error) => Some(format!("{error:#}")),
    }
}

fn probabilities(outcome: &Outcome) -> Result<Vec<f32>> {
    let response: serde_json::Value =
        serde_json::from_slice(&outcome.body).context("the answer is no JSON")?;
    let outputs = response["outputs"].as_array().context("no outputs")?;
    let output = outputs
        .iter()
        .find(|output| output["name"] == "probabilities");
    let values = output.and_then(|output| output["data"].as_array());
    let values = values.context("no probabilities")?.iter();
    let values = values.map(|value| value.as_f64().map(|value| value as f32));
    values.collect::<Option<_>>().context("no numbers")
}
