//! Arguments that several commands share.

use std::{io::Read, path::PathBuf, str::FromStr};

use anyhow::Context;
use bytes::Bytes;
use inferq::{Body, Job, JobId, Lane, ModelName};

/// A request body: JSON text, `@FILE`, or `-` for standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BodyArg {
    Text(String),
    File(PathBuf),
    Stdin,
}

impl FromStr for BodyArg {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "-" => Self::Stdin,
            text => match text.strip_prefix('@') {
                Some(file) => Self::File(file.into()),
                None => Self::Text(text.to_owned()),
            },
        })
    }
}

impl BodyArg {
    pub(super) fn read(&self) -> anyhow::Result<Body> {
        let bytes: Bytes = match self {
            Self::Text(text) => return Ok(text.clone().into()),
            Self::File(file) => std::fs::read(file)
                .with_context(|| format!("the body file {} cannot be read", file.display()))?
                .into(),
            Self::Stdin => {
                let mut bytes = Vec::new();
                std::io::stdin()
                    .read_to_end(&mut bytes)
                    .context("standard input cannot be read")?;
                bytes.into()
            }
        };
        Ok(bytes.into())
    }
}

/// Settings of a request.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RequestArgs {
    /// The model.
    pub(super) model: ModelName,
    /// The request: JSON text, @FILE (JSON or CBOR), or - for standard input.
    #[arg(value_name = "BODY|@FILE|-")]
    body: BodyArg,
    /// Give up after this long, such as 5s. Workers do not start it later.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<std::time::Duration>,
    /// high, normal or low. Calls are high and jobs normal unless told.
    #[arg(long)]
    lane: Option<Lane>,
    /// Run on this version of the model.
    #[arg(long, value_name = "N", conflicts_with = "label")]
    model_version: Option<u64>,
    /// Run on the version with this label, such as stable.
    #[arg(long)]
    label: Option<String>,
    /// Requests with equal affinity get the same version.
    #[arg(long)]
    affinity: Option<String>,
    /// For whom this is: keeps caches and keys apart.
    #[arg(long)]
    tenant: Option<String>,
    /// Compute even if the answer is in the cache.
    #[arg(long)]
    no_cache: bool,
}

impl RequestArgs {
    pub(super) fn job(&self) -> anyhow::Result<Job> {
        let mut job = Job::new(self.model.clone(), self.body.read()?);
        if let Some(timeout) = self.timeout {
            job = job.timeout(timeout);
        }
        if let Some(lane) = self.lane {
            job = job.lane(lane);
        }
        if let Some(version) = self.model_version {
            job = job.version(version);
        }
        if let Some(label) = &self.label {
            job = job.label(label);
        }
        if let Some(affinity) = &self.affinity {
            job = job.affinity(affinity);
        }
        if let Some(tenant) = &self.tenant {
            job = job.tenant(tenant);
        }
        Ok(if self.no_cache { job.no_cache() } else { job })
    }
}

/// Who the job is.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct IdentityArgs {
    /// Use this job id. Whoever knows it can read the outcome.
    #[arg(long, value_name = "JOB", conflicts_with = "key")]
    id: Option<JobId>,
    /// Make the id from this key: submitting it again does not run it again.
    #[arg(long)]
    key: Option<String>,
}

impl IdentityArgs {
    pub(super) fn apply(&self, job: Job) -> Job {
        match (&self.id, &self.key) {
            (Some(id), _) => job.with_id(id.clone()),
            (None, Some(key)) => job.key(key),
            (None, None) => job,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_text_a_file_or_standard_input() {
        let read = |text: &str| text.parse::<BodyArg>().unwrap_or(BodyArg::Stdin);
        assert_eq!(read("-"), BodyArg::Stdin);
        assert_eq!(read("@a/b.json"), BodyArg::File("a/b.json".into()));
        assert_eq!(read("{}"), BodyArg::Text("{}".to_owned()));
    }

    #[test]
    fn a_missing_file_is_named() {
        let body = BodyArg::File("/nowhere/body.json".into());
        let error = body.read().expect_err("there is no such file");
        assert!(error.to_string().contains("/nowhere/body.json"), "{error}");
    }
}
