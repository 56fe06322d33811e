//! `inferq cancel`: calls jobs off.

use futures::{StreamExt, stream};
use inferq::{JobId, Outcome, Status};
use serde_json::json;

use super::{Ended, Global, output::Output};

/// Jobs that are asked for at the same time.
const AT_ONCE: usize = 16;

/// Call jobs off: what is queued is not run, what runs is not answered.
///
/// A job that has ended stays as it ended. The exit code is 0 if all of them are cancelled, else 1.
#[derive(Debug, clap::Args)]
pub(super) struct Cancel {
    /// The ids that `inferq submit` printed.
    #[arg(required = true, value_name = "JOB")]
    jobs: Vec<JobId>,
}

impl Cancel {
    pub(super) async fn run(self, global: &Global, output: &Output) -> anyhow::Result<Ended> {
        let client = &global.connect().await?;
        let mut answers = stream::iter(&self.jobs)
            .map(|job| async move { (job, client.cancel(job).await) })
            .buffered(AT_ONCE);
        let mut ended = Ended::Well;
        while let Some((job, answer)) = answers.next().await {
            match answer {
                Ok(outcome) => {
                    show(output, &outcome)?;
                    if outcome.status() != Status::Cancelled {
                        ended = Ended::ShowingFailure;
                    }
                }
                // The others are to be called off all the same.
                Err(error) => {
                    ended = Ended::ShowingFailure;
                    if output.is_json() {
                        let (code, error) = (error.code().as_u16(), error.to_string());
                        output
                            .line(&json!({ "job": job.as_str(), "code": code, "error": error }))?;
                    } else {
                        output.error(&error.into());
                    }
                }
            }
        }
        Ok(ended)
    }
}

fn show(output: &Output, outcome: &Outcome) -> anyhow::Result<()> {
    if output.is_json() {
        output.outcome(outcome)?;
        return Ok(());
    }
    let job = &outcome.headers.job_id;
    output.print(&match outcome.status() {
        Status::Cancelled => format!("{job} {}", output.good("cancelled")),
        status => format!(
            "{job} {}; `inferq result {job}` shows it",
            output.bad(&format!("had ended as {status}"))
        ),
    });
    Ok(())
}
