//! `inferq score`: a file through a model.

mod stack;
mod tell;
mod watch;

use std::{fmt, num::NonZeroUsize, path::PathBuf, str::FromStr};

use anyhow::{Context, bail};
use inferq::{
    ByteSize, ModelName,
    score::{
        Begin, Format, KeepRule, MapRule, MaxErrors, Phase, Progress, Score, ScoreError,
        ScoreOptions,
    },
    stack::StackError,
};

use super::{Ended, Global, output::Output};

/// Exit code of a program that was interrupted.
const INTERRUPTED: u8 = 130;

/// Score a table with a model: CSV, JSONL, Parquet, Arrow or NumPy in and out.
///
/// With --models, a private nats-server and workers are started for the run; with --nats, the workers there do it,
/// on lane low. A run that was interrupted goes on with --resume.
#[derive(Debug, clap::Args)]
pub(super) struct ScoreArgs {
    /// The model, or one version of it.
    #[arg(long, value_name = "NAME[@VERSION]")]
    model: ModelVersion,
    /// Files, folders and patterns such as 'day-*.csv.gz'; - for standard input.
    #[arg(long = "in", value_name = "PATH", required = true, num_args = 1..)]
    input: Vec<String>,
    /// The output; - for standard output.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// How the input is written, if its name does not tell.
    #[arg(long, value_name = "FORMAT")]
    in_format: Option<Format>,
    /// How the output is written, if its name does not tell; csv for standard output.
    #[arg(long, value_name = "FORMAT")]
    out_format: Option<Format>,
    /// Columns that make an input: `age,income=features`; `name` alone makes the input of that name. Repeatable.
    #[arg(long, value_name = "COL,..=INPUT")]
    map: Vec<MapRule>,
    /// Columns to pass through, each with a type if it is not to be text: `id:int64,name`.
    #[arg(long, value_name = "COL[:TYPE],..", value_delimiter = ',')]
    keep: Vec<KeepRule>,
    /// Outputs of the model that are wanted; all unless told.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    outputs: Vec<String>,
    /// Stop when more rows fail: a number, or a share of the rows; of fewer than 1000, as many as of 1000.
    #[arg(long, value_name = "N|P%", default_value_t = MaxErrors::default())]
    max_errors: MaxErrors,
    /// Where the rows that failed go; beside the output unless told.
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    /// Go on with an interrupted run of the same output, or begin if there is none.
    #[arg(long)]
    resume: bool,
    /// Forget an interrupted run of the same output and begin anew.
    #[arg(long, conflicts_with = "resume")]
    restart: bool,
    /// Replace an output that exists.
    #[arg(long)]
    force: bool,
    /// Write rows as they come, which is a little faster.
    #[arg(long)]
    unordered: bool,
    /// Let devices be mixed that may differ in the last bits.
    #[arg(long)]
    allow_mixed: bool,
    /// Take answers from the workers' cache, and put them there; pays where many rows are equal.
    #[arg(long)]
    cache: bool,
    /// Rows of a job; chosen by their size and the model's speed unless told.
    #[arg(long, value_name = "N")]
    chunk_rows: Option<NonZeroUsize>,
    /// Memory of rows in flight. More keeps more workers busy.
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    window: ByteSize,
    /// Most of the time of all executors to take, 0 to 1 or in percent; all that live traffic leaves unless told.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    max_share: Option<f64>,
    /// Also write a page with figures and plots.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    #[command(flatten)]
    stack: stack::StackArgs,
}

/// A model, and perhaps a version.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ModelVersion {
    name: ModelName,
    version: Option<u64>,
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)?;
        match self.version {
            Some(version) => write!(f, "@{version}"),
            None => Ok(()),
        }
    }
}

impl FromStr for ModelVersion {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, version) = match text.split_once('@') {
            None => (text, None),
            Some((name, version)) => {
                let number = version.parse();
                let number = number.with_context(|| {
                    format!("`{version}` is no version; write a number, as in digits@2")
                })?;
                (name, Some(number))
            }
        };
        Ok(Self {
            name: name.parse()?,
            version,
        })
    }
}

impl ScoreArgs {
    pub(super) async fn run(self, global: &Global, output: &Output) -> anyhow::Result<Ended> {
        let to_stdout = self.out.as_os_str() == "-";
        if to_stdout && output.is_json() {
            bail!(
                "--json prints progress on standard output; write the rows into a file with --out"
            );
        }
        let (stack, report) = (self.stack.clone(), self.report.clone());
        let can_be_resumed = !to_stdout && !self.input.iter().any(|path| path == "-");
        let title = format!("{} scored by {}", self.input.join(", "), self.model);
        let score = Score::new(self.options(to_stdout));
        let place = stack.start(global, output).await?;
        let (stopper, progress) = (score.stopper(), score.progress());
        let watching = tokio::spawn(watch::watch(
            score.progress(),
            place.client().clone(),
            *output,
        ));
        let interrupts = tokio::spawn({
            let output = *output;
            async move {
                if tokio::signal::ctrl_c().await.is_ok() {
                    output.note("finishing what is in flight (Ctrl-C again to stop at once; both can be resumed)");
                    stopper.stop();
                }
                tokio::signal::ctrl_c().await
            }
        });
        let ended = tokio::select! {
            ended = score.run(place.client()) => Ok(Some(ended)),
            _ = interrupts => Ok(None),
            error = needed(place.keep(output), progress) => Err(error),
        };
        watching.abort();
        // The bar leaves its line when its task is dropped.
        watching.await.ok();
        // Workers without a server would wait for it; a stack that is dropped is killed.
        let ended = ended.context(if can_be_resumed {
            "the private stack cannot go on; what is finished is kept, go on with --resume"
        } else {
            "the private stack cannot go on"
        })?;
        place.stop().await?;
        match ended {
            Some(Ok(summary)) => {
                if let Some(path) = &report {
                    tell::report(&summary, title, path)?;
                }
                tell::summary(&summary, output)?;
                Ok(Ended::Well)
            }
            Some(Err(error @ ScoreError::Stopped { .. })) => {
                output.note(&error.to_string());
                Ok(Ended::With(INTERRUPTED))
            }
            Some(Err(error)) => Err(error.into()),
            None => {
                output.note("stopped at once; go on with --resume");
                Ok(Ended::With(INTERRUPTED))
            }
        }
    }

    fn options(self, to_stdout: bool) -> ScoreOptions {
        ScoreOptions {
            version: self.model.version,
            input_format: self.in_format,
            output: (!to_stdout).then_some(self.out),
            output_format: self.out_format,
            errors: self.errors,
            maps: self.map,
            keep: self.keep,
            outputs: self.outputs,
            max_errors: self.max_errors,
            begin: match (self.resume, self.restart) {
                (true, _) => Begin::Resume,
                (false, true) => Begin::Restart,
                (false, false) => Begin::New,
            },
            force: self.force,
            ordered: !self.unordered,
            allow_mixed: self.allow_mixed,
            cache: self.cache,
            chunk_rows: self.chunk_rows,
            window: self.window,
            max_share: self.max_share,
            ..ScoreOptions::new(self.model.name, self.input, PathBuf::new())
        }
    }
}

/// What ended the stack, unless it has done its work.
async fn needed(
    ended: impl Future<Output = StackError>,
    progress: tokio::sync::watch::Receiver<Progress>,
) -> StackError {
    let error = ended.await;
    if progress.borrow().phase == Phase::Writing {
        return std::future::pending().await;
    }
    error
}

fn share(text: &str) -> Result<f64, String> {
    let (number, whole) = match text.strip_suffix('%') {
        Some(percent) => (percent.trim(), 100.0),
        None => (text, 1.0),
    };
    match number.parse::<f64>().map(|number| number / whole) {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("write a share above 0 and up to 1, such as 0.5 or 50%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_may_name_its_version() {
        let both: ModelVersion = "digits@2".parse().expect("both");
        assert_eq!((both.name.as_str(), both.version), ("digits", Some(2)));
        let name: ModelVersion = "digits".parse().expect("a name");
        assert_eq!(name.version, None);
        for bad in ["digits@", "digits@new", "Digits", "@1"] {
            assert!(bad.parse::<ModelVersion>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_share_is_a_part_of_one() {
        assert_eq!(share("0.5"), Ok(0.5));
        assert_eq!(share("50 %"), Ok(0.5));
        for bad in ["0", "1.1", "-1", "half", "NaN"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
