//! Which dead letters a command is about, as flags.

use std::{
    num::NonZeroUsize,
    time::{Duration, SystemTime},
};

use inferq::{ErrorCode, JobId, Lane, ModelName, Status, dead::DeadFilter};

/// Conditions that a dead letter has to meet, all of them.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct FilterArgs {
    /// Only these jobs.
    #[arg(value_name = "JOB")]
    pub(super) jobs: Vec<JobId>,
    /// Only jobs for this model.
    #[arg(long)]
    model: Option<ModelName>,
    /// Only jobs of this lane: high, normal or low.
    #[arg(long)]
    lane: Option<Lane>,
    /// Only failures of this kind, such as 400 or 500.
    #[arg(long, value_parser = code)]
    code: Option<ErrorCode>,
    /// `error` (the job cannot succeed as it is) or `dead` (it was delivered too often).
    #[arg(long, value_parser = status)]
    status: Option<Status>,
    /// Only those that are at most so old, such as 2h.
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Only those that are older than this, such as 10m.
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    until: Option<Duration>,
    /// So many at most, the youngest; `ls` shows 100 unless told, other commands take all.
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
}

impl FilterArgs {
    /// The filter, with ages counted from now; `limit` applies where none was given.
    pub(super) fn filter(&self, limit: Option<usize>) -> DeadFilter {
        let now = SystemTime::now();
        // An age beyond the beginning of time is no condition, or one that nothing meets.
        let ago = |age: Duration| now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        DeadFilter {
            model: self.model.clone(),
            lane: self.lane,
            jobs: self.jobs.clone(),
            code: self.code,
            status: self.status,
            since: self.since.map(ago),
            until: self.until.map(ago),
            limit: self.limit.or(limit.and_then(NonZeroUsize::new)),
        }
    }
}

fn code(text: &str) -> Result<ErrorCode, String> {
    let code = text.parse().ok().and_then(ErrorCode::from_u16);
    code.ok_or_else(|| {
        let known: Vec<String> = ErrorCode::ALL.iter().map(ToString::to_string).collect();
        format!("it must be one of {}", known.join(", "))
    })
}

fn status(text: &str) -> Result<Status, String> {
    match text.parse() {
        Ok(status @ (Status::Error | Status::Dead)) => Ok(status),
        Ok(Status::Ok | Status::Expired | Status::Cancelled) | Err(_) => {
            Err("jobs with a dead letter ended as `error` or `dead`".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        filter: FilterArgs,
    }

    fn read(line: &str) -> Result<DeadFilter, String> {
        let line = std::iter::once("test").chain(line.split_whitespace());
        let flags = Flags::try_parse_from(line).map_err(|error| error.to_string())?;
        Ok(flags.filter.filter(Some(SHOWN)))
    }

    const SHOWN: usize = 7;

    #[test]
    fn every_flag_becomes_a_condition() {
        let filter = read(
            "a b --model digits --lane low --code 400 --status dead --since 2h --until 1h --limit 3",
        );
        let filter = filter.expect("all are understood");
        assert_eq!(filter.jobs.len(), 2);
        assert_eq!(filter.model.expect("it is set").as_str(), "digits");
        assert_eq!(
            (filter.lane, filter.code),
            (Some(Lane::Low), Some(ErrorCode::BadInput))
        );
        assert_eq!(filter.status, Some(Status::Dead));
        assert!(filter.since < filter.until && filter.since.is_some());
        assert_eq!(filter.limit, NonZeroUsize::new(3));
    }

    #[test]
    fn no_flag_is_no_condition_but_the_usual_limit() {
        let expected = DeadFilter {
            limit: NonZeroUsize::new(SHOWN),
            ..DeadFilter::default()
        };
        assert_eq!(read(""), Ok(expected));
    }

    #[test]
    fn a_status_or_code_that_no_letter_has_is_refused() {
        let error = read("--status ok").expect_err("no letter has it");
        assert!(error.contains("`error` or `dead`"), "{error}");
        let error = read("--code 401").expect_err("no letter has it");
        assert!(error.contains("400, 404"), "{error}");
    }
}
