//! How many rows may fail, and how much of the workers' time a run may take.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

/// A share of failed rows is judged once so many were read; before that a few say nothing.
const JUDGED_FROM: u64 = 1_000;

/// When too many rows have failed for the run to go on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxErrors {
    /// More than so many rows.
    Rows(u64),
    /// More than this share of the rows read, 0 to 1, judged from 1 000 rows on.
    Share(f64),
}

impl MaxErrors {
    /// Have too many of `rows` failed?
    pub fn is_exceeded(self, errors: u64, rows: u64) -> bool {
        match self {
            Self::Rows(most) => errors > most,
            Self::Share(_) => rows >= JUDGED_FROM && errors > self.most(rows),
        }
    }

    /// How many of `rows` may fail; as many as of 1 000 where they are fewer.
    pub(super) fn most(self, rows: u64) -> u64 {
        match self {
            Self::Rows(most) => most,
            Self::Share(share) => (rows.max(JUDGED_FROM) as f64 * share) as u64,
        }
    }
}

impl Default for MaxErrors {
    fn default() -> Self {
        Self::Share(0.01)
    }
}

impl fmt::Display for MaxErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(most) => write!(f, "{most}"),
            Self::Share(share) => write!(f, "{}%", share * 100.0),
        }
    }
}

/// Text that is no limit of errors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a number of rows such as 100, or a share such as 1%")]
pub struct MaxErrorsError;

impl FromStr for MaxErrors {
    type Err = MaxErrorsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(percent) = text.strip_suffix('%') else {
            return text.parse().map(Self::Rows).map_err(|_| MaxErrorsError);
        };
        match percent.trim().parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self::Share(percent / 100.0)),
            _ => Err(MaxErrorsError),
        }
    }
}

/// Keeps a run below a share of the time of all executors, by what its chunks took so far.
#[derive(Debug)]
pub(super) struct Pace {
    share: f64,
    executors: u32,
    began: Instant,
    spent: Duration,
}

impl Pace {
    pub(super) fn new(share: f64, executors: u32, began: Instant) -> Self {
        Self {
            share,
            executors: executors.max(1),
            began,
            spent: Duration::ZERO,
        }
    }

    /// A chunk took so much of one executor's time.
    pub(super) fn spend(&mut self, compute: Duration) {
        self.spent += compute;
    }

    /// How long to wait before the next chunk is sent.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let due = self
            .spent
            .div_f64(self.share.max(0.001) * f64::from(self.executors));
        due.saturating_sub(now.saturating_duration_since(self.began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_counts_rows_and_a_share_waits_for_enough_of_them() {
        let rows: MaxErrors = "2".parse().expect("a number");
        assert!(!rows.is_exceeded(2, 2) && rows.is_exceeded(3, 3));
        let share: MaxErrors = "1%".parse().expect("a share");
        assert_eq!(share, MaxErrors::default());
        assert!(!share.is_exceeded(500, 999));
        assert!(!share.is_exceeded(10, 1_000) && share.is_exceeded(11, 1_000));
        for bad in ["", "-1", "101%", "x%", "1.5"] {
            assert_eq!(bad.parse::<MaxErrors>(), Err(MaxErrorsError), "{bad}");
        }
        assert_eq!(share.to_string(), "1%");
    }

    #[test]
    fn half_of_two_executors_is_as_fast_as_one() {
        let began = Instant::now();
        let mut pace = Pace::new(0.5, 2, began);
        assert_eq!(pace.wait(began), Duration::ZERO);
        pace.spend(Duration::from_secs(10));
        assert_eq!(
            pace.wait(began + Duration::from_secs(4)),
            Duration::from_secs(6)
        );
        assert_eq!(pace.wait(began + Duration::from_secs(11)), Duration::ZERO);
    }
}
