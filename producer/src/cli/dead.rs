//! `inferq dead`: the jobs that failed for good.

mod filter;
mod show;

use std::time::Duration;

use anyhow::bail;
use futures::StreamExt;
use inferq::{
    JobId,
    dead::{DeadEntry, DeadError, DeadLetters, ReplayOptions, Replayed},
};
use serde_json::json;

use super::{
    Ended, Global,
    confirm::{Unasked, confirmed},
    output::{Output, chain},
};
use filter::FilterArgs;

/// Look at jobs that failed for good, run them again, or forget them.
#[derive(Debug, clap::Args)]
pub(super) struct Dead {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DeadCommand {
    /// List dead letters, oldest first.
    Ls(Ls),
    /// Show the dead letter of a job: why it failed, its headers and its body.
    Show(Show),
    /// Queue jobs again as they were sent; the new outcome replaces the old one, and the dead letter is deleted.
    Replay(Replay),
    /// Delete dead letters; the outcomes of their jobs stay.
    Purge(Purge),
}

#[derive(Debug, clap::Args)]
struct Ls {
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The job.
    job: JobId,
}

#[derive(Debug, clap::Args)]
struct Replay {
    #[command(flatten)]
    filter: FilterArgs,
    /// Everything that the filters let pass, instead of jobs by name.
    #[arg(long, conflicts_with = "jobs")]
    all: bool,
    /// No worker starts a job later than this after it is queued again, such as 5m; replaces its own deadline.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Wait for the new outcomes and print them, at most so long for each.
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "5m", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// Do not ask before many are replayed.
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
struct Purge {
    #[command(flatten)]
    filter: FilterArgs,
    /// Everything that the filters let pass, instead of jobs by name.
    #[arg(long, conflicts_with = "jobs")]
    all: bool,
    /// Do not ask; needed where nobody can be asked.
    #[arg(long, short)]
    yes: bool,
}

/// Dead letters that `ls` shows unless told.
const SHOWN: usize = 100;

impl Dead {
    pub(super) async fn run(self, global: &Global, output: &Output) -> anyhow::Result<Ended> {
        let client = global.connect().await?;
        let dead = client.dead();
        let ended = match self.command {
            DeadCommand::Ls(ls) => ls.run(&dead, output).await,
            DeadCommand::Show(show) => show.run(&dead, output).await,
            DeadCommand::Replay(replay) => replay.run(&dead, output).await,
            DeadCommand::Purge(purge) => purge.run(&dead, output).await,
        };
        client.close().await;
        ended
    }
}

impl Ls {
    async fn run(self, dead: &DeadLetters, output: &Output) -> anyhow::Result<Ended> {
        let list = dead.list(&self.filter.filter(Some(SHOWN))).await?;
        if output.is_json() {
            for entry in &list.letters {
                output.line(&show::line(entry))?;
            }
            return Ok(Ended::Well);
        }
        if list.letters.is_empty() {
            output.note("no dead letter matches");
            return Ok(Ended::Well);
        }
        let rows = list.letters.iter().map(show::row).collect();
        output.table(&show::HEADINGS, rows);
        if list.older > 0 {
            output.note(&format!(
                "{} older ones match too; --limit shows more",
                list.older
            ));
        }
        Ok(Ended::Well)
    }
}

impl Show {
    async fn run(self, dead: &DeadLetters, output: &Output) -> anyhow::Result<Ended> {
        let letter = dead.get(&self.job).await?;
        if output.is_json() {
            output.line(&show::whole_line(&letter))?;
        } else {
            output.print(&show::whole(&letter, output));
        }
        Ok(Ended::Well)
    }
}

impl Replay {
    async fn run(self, dead: &DeadLetters, output: &Output) -> anyhow::Result<Ended> {
        let chosen = chosen(dead, &self.filter, self.all).await?;
        let question = format!("Replay {}?", letters(chosen.entries.len()));
        if chosen.entries.len() > 1 && !confirmed(&question, self.yes, Unasked::Do)? {
            bail!("nothing was replayed");
        }
        let mut failed = chosen.report_missing(output)?;
        let options = ReplayOptions {
            timeout: self.timeout,
        };
        let mut replays = std::pin::pin!(dead.replay_many(chosen.entries, options));
        let mut done = Vec::new();
        while let Some((entry, replayed)) = replays.next().await {
            match replayed {
                Ok(replayed) => {
                    tell_replayed(&entry, &replayed, output)?;
                    done.push(replayed);
                }
                Err(error) => {
                    failed += 1;
                    tell_failed(&entry.job, Some(entry.sequence), error.into(), output)?;
                }
            }
        }
        match self.wait {
            Some(wait) => failed += tell_outcomes(dead, &done, wait, output).await?,
            None if done.is_empty() => {}
            None => output.note(&format!(
                "{} replayed; until a job has run again its old outcome stands, --wait shows the new one",
                letters(done.len())
            )),
        }
        Ok(ended(failed))
    }
}

impl Purge {
    async fn run(self, dead: &DeadLetters, output: &Output) -> anyhow::Result<Ended> {
        let chosen = chosen(dead, &self.filter, self.all).await?;
        let question = format!("Delete {} for good?", letters(chosen.entries.len()));
        let nothing = chosen.entries.is_empty();
        if !nothing && !confirmed(&question, self.yes, Unasked::Refuse)? {
            bail!("nothing was deleted");
        }
        let mut failed = chosen.report_missing(output)?;
        let mut done = 0_usize;
        for entry in &chosen.entries {
            match dead.purge(entry).await {
                Ok(true) => {
                    done += 1;
                    tell(entry, "purged", "deleted", output)?;
                }
                Ok(false) => tell(entry, "gone", "was gone already", output)?,
                Err(error) => {
                    failed += 1;
                    tell_failed(&entry.job, Some(entry.sequence), error.into(), output)?;
                }
            }
        }
        output.note(&format!("{} deleted", letters(done)));
        Ok(ended(failed))
    }
}

/// The letters a command is about.
struct Chosen {
    entries: Vec<DeadEntry>,
    /// Jobs that were named and have none that matches.
    missing: Vec<JobId>,
}

async fn chosen(dead: &DeadLetters, filter: &FilterArgs, all: bool) -> anyhow::Result<Chosen> {
    if filter.jobs.is_empty() && !all {
        bail!("name the jobs, or say --all for everything that the filters let pass");
    }
    let entries = dead.list(&filter.filter(None)).await?.letters;
    let has_letter = |job: &&JobId| entries.iter().any(|entry| entry.job == **job);
    let missing = filter.jobs.iter().filter(|job| !has_letter(job));
    Ok(Chosen {
        missing: missing.cloned().collect(),
        entries,
    })
}

impl Chosen {
    /// Says which jobs have no letter; returns how many.
    fn report_missing(&self, output: &Output) -> anyhow::Result<usize> {
        if self.missing.is_empty() && self.entries.is_empty() {
            output.note("no dead letter matches");
        }
        for job in &self.missing {
            let error = DeadError::NotFound { job: job.clone() };
            tell_failed(job, None, error.into(), output)?;
        }
        Ok(self.missing.len())
    }
}

/// Prints the outcome of each replay; returns how many did not end well.
async fn tell_outcomes(
    dead: &DeadLetters,
    replays: &[Replayed],
    wait: Duration,
    output: &Output,
) -> anyhow::Result<usize> {
    let mut failed = 0;
    for replayed in replays {
        match dead.wait(replayed, wait).await {
            Ok(outcome) => failed += usize::from(output.outcome(&outcome)? != Ended::Well),
            Err(error) => {
                failed += 1;
                tell_failed(&replayed.submitted.id, None, error.into(), output)?;
            }
        }
    }
    Ok(failed)
}

fn tell_replayed(entry: &DeadEntry, replayed: &Replayed, output: &Output) -> anyhow::Result<()> {
    let submitted = &replayed.submitted;
    if output.is_json() {
        return output.line(&json!({
            "job": entry.job, "letter": entry.sequence, "done": "replayed",
            "duplicate": submitted.duplicate, "stream": submitted.stream, "sequence": submitted.sequence,
        }));
    }
    let said = if submitted.duplicate {
        "was replayed a moment ago"
    } else {
        "replayed"
    };
    let place = format!("{} {}", submitted.stream, submitted.sequence);
    output.print(&format!("{}: {}, {place}", entry.job, output.good(said)));
    Ok(())
}

fn tell(entry: &DeadEntry, done: &str, said: &str, output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output.line(&json!({ "job": entry.job, "letter": entry.sequence, "done": done }));
    }
    output.print(&format!("{}: {said}", entry.job));
    Ok(())
}

fn tell_failed(
    job: &JobId,
    letter: Option<u64>,
    error: anyhow::Error,
    output: &Output,
) -> anyhow::Result<()> {
    if output.is_json() {
        return output.line(&json!({ "job": job, "letter": letter, "error": chain(&error) }));
    }
    // Most errors name the job themselves.
    let named = chain(&error).contains(job.as_str());
    output.error(&if named {
        error
    } else {
        error.context(format!("job {job}"))
    });
    Ok(())
}

fn letters(count: usize) -> String {
    match count {
        1 => "1 dead letter".to_owned(),
        count => format!("{count} dead letters"),
    }
}

fn ended(failed: usize) -> Ended {
    if failed == 0 {
        Ended::Well
    } else {
        Ended::ShowingFailure
    }
}
