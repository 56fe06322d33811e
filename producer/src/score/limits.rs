//! How many rows may fail, and how much of the workers' time a run may take.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

/// A share of fewer rows than these is one of so many: of a few rows, a few bad ones say nothing.
const AT_LEAST: u64 = 1_000;

/// When too many rows have failed for the run to go on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxErrors {
    /// More than so many rows.
    Rows(u64),
    /// More than this share of the rows read, 0 to 1; of fewer than 1 000, as many as of 1 000.
    Share(f64),
}

impl MaxErrors {
    /// Have too many of `rows` failed?
    pub fn is_exceeded(self, errors: u64, rows: u64) -> bool {
        errors > self.most(rows)
    }

    /// How many of `rows` may fail.
    pub(super) fn most(self, rows: u64) -> u64 {
        match self {
            Self::Rows(most) => most,
            Self::Share(share) =>
            // 2.9 % of 1 000 are 29, although 0.029 is a little less than that.
            {
                (rows.max(AT_LEAST) as f64 * share + 1e-6) as u64
            }
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
            Self::Share(share) => write!(f, "{}%", (share * 1e8).round() / 1e6),
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

/// Time that was not used is made up for within this; more at once would be felt by others.
const CREDIT: Duration = Duration::from_millis(10);
/// How much the last chunk of many counts in what a row takes.
const LATEST: f64 = 0.125;

/// Keeps a run below a share of the time of all executors, chunk by chunk: each goes out when the share has
/// room for what it is going to take, and what it took instead is made up for by those after it.
#[derive(Debug)]
pub(super) struct Pace {
    /// Seconds of executors that may be taken in a second.
    rate: f64,
    /// Seconds of one executor that a row takes.
    row_takes: f64,
    /// When the next chunk may go out.
    next: Instant,
}

impl Pace {
    /// `row_takes`: time of one executor, as far as is known. The first chunk may go out at `begins`.
    pub(super) fn new(share: f64, executors: u32, row_takes: Duration, begins: Instant) -> Self {
        Self {
            rate: share.max(0.001) * f64::from(executors.max(1)),
            row_takes: row_takes.as_secs_f64(),
            next: begins,
        }
    }

    /// How long to wait before the next chunk is sent.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }

    /// A chunk of so many rows is sent; returns the time of one executor it is taken to need.
    pub(super) fn send(&mut self, rows: u64, now: Instant) -> Duration {
        let takes = Duration::from_secs_f64(self.row_takes * rows as f64);
        let earliest = now.checked_sub(CREDIT).unwrap_or(now);
        self.next = self.next.max(earliest) + takes.div_f64(self.rate);
        takes
    }

    /// A chunk that was taken to need `taken` took `took` of one executor.
    pub(super) fn came_back(&mut self, rows: u64, taken: Duration, took: Duration) {
        let more = took.saturating_sub(taken).div_f64(self.rate);
        let less = taken.saturating_sub(took).div_f64(self.rate);
        self.next = (self.next + more).checked_sub(less).unwrap_or(self.next);
        let row_took = took.as_secs_f64() / rows.max(1) as f64;
        self.row_takes += (row_took - self.row_takes) * LATEST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_counts_rows_and_a_share_is_one_of_a_thousand_at_least() {
        let rows: MaxErrors = "2".parse().expect("a number");
        assert!(!rows.is_exceeded(2, 2) && rows.is_exceeded(3, 3));
        let share: MaxErrors = "1%".parse().expect("a share");
        assert_eq!(share, MaxErrors::default());
        assert!(!share.is_exceeded(10, 20) && share.is_exceeded(11, 20));
        assert!(!share.is_exceeded(10, 1_000) && share.is_exceeded(11, 1_000));
        assert!(!share.is_exceeded(20, 2_000) && share.is_exceeded(21, 2_000));
        for bad in ["", "-1", "101%", "x%", "1.5"] {
            assert_eq!(bad.parse::<MaxErrors>(), Err(MaxErrorsError), "{bad}");
        }
        for (text, most) in [("1%", 10), ("7%", 70), ("0.7%", 7), ("2.9%", 29)] {
            let share: MaxErrors = text.parse().expect("a share");
            assert_eq!(
                (share.to_string().as_str(), share.most(1_000)),
                (text, most)
            );
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn half_of_two_executors_is_as_fast_as_one_and_chunks_are_evenly_spaced() {
        let began = Instant::now();
        let mut pace = Pace::new(0.5, 2, MS, began);
        assert_eq!(pace.wait(began), Duration::ZERO);
        for chunk in 1..10 {
            assert_eq!(pace.send(64, began), 64 * MS);
            assert_eq!(pace.wait(began), chunk * 64 * MS);
        }
    }

    #[test]
    fn what_a_chunk_took_is_made_up_for_and_learned() {
        let began = Instant::now();
        let mut pace = Pace::new(0.5, 2, MS, began);
        let taken = pace.send(100, began);
        pace.came_back(100, taken, 180 * MS);
        assert_eq!(pace.wait(began), 180 * MS);
        assert_eq!(pace.send(100, began), 110 * MS);
        pace.came_back(100, 110 * MS, 10 * MS);
        assert_eq!(pace.wait(began), 190 * MS);
    }

    #[test]
    fn a_pause_is_not_followed_by_all_that_could_have_been_sent_in_it() {
        let began = Instant::now();
        let mut pace = Pace::new(0.5, 2, MS, began);
        let later = began + 60_000 * MS;
        pace.send(64, later);
        assert_eq!(pace.wait(later), 64 * MS - CREDIT);
    }
}
