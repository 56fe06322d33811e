//! `inferq result`: the outcome of a job.

use std::time::Duration;

use inferq::JobId;

use super::{Ended, Global, output::Output};

/// Print the outcome of a job.
#[derive(Debug, clap::Args)]
pub(super) struct ResultOf {
    /// The id that `inferq submit` printed.
    job: JobId,
    /// Wait for it, at most so long.
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "5m", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
}

impl ResultOf {
    pub(super) async fn run(self, global: &Global, output: &Output) -> anyhow::Result<Ended> {
        let client = global.connect().await?;
        let outcome = client
            .result(&self.job, self.wait.unwrap_or_default())
            .await?;
        output.outcome(&outcome)
    }
}
