//! `inferq call`: an answer from a worker directly.

use super::{Ended, Global, input::RequestArgs, output::Output};

/// Ask a model and print the answer; nothing is stored.
#[derive(Debug, clap::Args)]
pub(super) struct Call {
    #[command(flatten)]
    request: RequestArgs,
}

impl Call {
    pub(super) async fn run(self, global: &Global, output: &Output) -> anyhow::Result<Ended> {
        let job = self.request.job()?;
        let client = global.connect().await?;
        let answer = client.call(job).await?;
        output.outcome(&answer)
    }
}
