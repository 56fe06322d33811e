//! `inferq submit`: a durable job.

use std::time::Duration;

use inferq::{JOBS_KEPT, Outcome, ResultError, Submitted};
use serde_json::json;

use super::{
    Ended, Global,
    follow::follow,
    input::{IdentityArgs, RequestArgs},
    output::Output,
};

/// Put a job into the queue of a model.
#[derive(Debug, clap::Args)]
pub(super) struct Submit {
    #[command(flatten)]
    request: RequestArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Wait for the outcome and print it, at most so long.
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "5m", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// Tell what happens to the job until its outcome is there, and print that; --wait says for how long
    /// at most.
    #[arg(long)]
    follow: bool,
    /// Publish a copy of the outcome on this subject.
    #[arg(long, value_name = "SUBJECT")]
    reply_to: Option<String>,
    /// Deliveries before the job is given up, 1 to 100.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    max_attempts: Option<u32>,
}

impl Submit {
    pub(super) async fn run(self, global: &Global, output: &Output) -> anyhow::Result<Ended> {
        let mut job = self.identity.apply(self.request.job()?);
        if let Some(subject) = self.reply_to {
            job = job.reply_to(subject);
        }
        if let Some(attempts) = self.max_attempts {
            job = job.max_attempts(attempts);
        }
        let client = global.connect().await?;
        if self.follow {
            let (submitted, events) = client.follow(job, self.wait.unwrap_or(JOBS_KEPT)).await?;
            output.note(&whereabouts(&submitted));
            let outcome = follow(&submitted.id, events, output).await;
            return shown(outcome, &submitted, output);
        }
        let submitted = client.submit(job).await?;
        let Some(wait) = self.wait else {
            if output.is_json() {
                output.line(&json!({
                    "job": submitted.id.as_str(),
                    "duplicate": submitted.duplicate,
                    "stream": submitted.stream,
                    "sequence": submitted.sequence,
                }))?;
            } else {
                output.print(submitted.id.as_str());
                output.note(&whereabouts(&submitted));
            }
            client.close().await;
            return Ok(Ended::Well);
        };
        let outcome = client.wait(&submitted, wait).await;
        shown(outcome.map_err(Into::into), &submitted, output)
    }
}

/// Prints the outcome, or says how to wait for it again.
fn shown(
    outcome: anyhow::Result<Outcome>,
    submitted: &Submitted,
    output: &Output,
) -> anyhow::Result<Ended> {
    let outcome = outcome.inspect_err(|error| {
        if let Some(ResultError::NotYet { .. }) = error.downcast_ref() {
            output.note(&format!(
                "the job stays queued; `inferq result {} --wait` waits again",
                submitted.id
            ));
        }
    })?;
    output.outcome(&outcome)
}

fn whereabouts(submitted: &Submitted) -> String {
    let again = if submitted.duplicate {
        " was there already"
    } else {
        ""
    };
    format!(
        "job{again} is in {}; `inferq result {} --wait` shows its outcome",
        submitted.stream, submitted.id
    )
}
