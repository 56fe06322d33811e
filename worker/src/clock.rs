//! What time it is for nats-server.
//!
//! Timeouts count from when the server stored a job, by its clock. A worker whose own clock is wrong
//! would end jobs that have time, and run some that have none; so it keeps to the server's, which it
//! learns from the stamp on the record that it keeps of itself (`presence.rs`).

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::warn;

/// How far the server's clock is ahead of ours, in milliseconds. A process has one clock, and speaks to
/// one deployment.
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

/// Clocks that differ by more than this are not kept in step by anybody.
const NOTICEABLE: Duration = Duration::from_secs(1);

/// The server's clock, in unix milliseconds.
pub fn unix_ms_now() -> u64 {
    own_unix_ms().saturating_add_signed(AHEAD_MS.load(Ordering::Relaxed))
}

/// The clock of this machine, in unix milliseconds.
pub(crate) fn own_unix_ms() -> u64 {
    unix_ms(SystemTime::now())
}

/// A moment in unix milliseconds.
pub(crate) fn unix_ms(moment: SystemTime) -> u64 {
    millis(moment.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Whole milliseconds of `duration`.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The server put `stamp` on something while our own clock went from one end of `between` to the other.
pub(crate) fn compare(stamp: u64, between: &RangeInclusive<u64>) {
    let now = ahead(stamp, between);
    let before = AHEAD_MS.swap(now, Ordering::Relaxed);
    let noticeable = NOTICEABLE.as_millis();
    if u128::from(now.unsigned_abs()) > noticeable && u128::from(now.abs_diff(before)) > noticeable
    {
        warn!(
            ahead_ms = now,
            "the clock of nats-server is not that of this machine, whose own should be set right; deadlines go by the server's"
        );
    }
}

/// The least that explains the stamp: clocks that may agree are taken to do so.
fn ahead(stamp: u64, between: &RangeInclusive<u64>) -> i64 {
    let possible = stamp.clamp(*between.start(), *between.end());
    let distance = i64::try_from(stamp.abs_diff(possible)).unwrap_or(i64::MAX);
    if stamp < possible {
        -distance
    } else {
        distance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_between_our_own_moments_says_that_the_clocks_agree() {
        for stamp in [100, 150, 200] {
            assert_eq!(ahead(stamp, &(100..=200)), 0);
        }
    }

    #[test]
    fn a_stamp_outside_of_them_says_how_far_they_are_apart_at_least() {
        assert_eq!(ahead(300_200, &(100..=200)), 300_000);
        assert_eq!(ahead(100, &(300_100..=300_200)), -300_000);
        assert_eq!(ahead(u64::MAX, &(0..=0)), i64::MAX);
    }
}
