//! When a job ends whether or not it was run, on the clocks of this process.

use std::time::{Duration, Instant};

use inferq_schemas::headers::JobHeaders;

use crate::clock::{millis, unix_ms_now};

/// A moment on the clocks of this process, taken from one on the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// The deadline `unix_ms`, which may be past.
    pub fn from_unix_ms(unix_ms: u64) -> Self {
        let now = Instant::now();
        let now_ms = unix_ms_now();
        Self(match unix_ms.checked_sub(now_ms) {
            // A deadline centuries away must not overflow the clock.
            Some(ahead) => now + Duration::from_millis(ahead.min(MAX_AHEAD_MS)),
            None => now
                .checked_sub(Duration::from_millis(now_ms - unix_ms))
                .unwrap_or(now),
        })
    }

    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        self.0 <= Instant::now()
    }
}

/// Waits until the deadline passes; for ever without one.
pub async fn passed(deadline: Option<Deadline>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.0.into()).await,
        None => std::future::pending().await,
    }
}

/// A year: longer than any stream keeps a job.
const MAX_AHEAD_MS: u64 = 365 * 24 * 3600 * 1000;

/// How long RPC callers wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RpcTimes {
    /// Time for a request that names no deadline.
    pub default: Duration,
}

/// Longest time any RPC request has: the RPC stream forgets messages after 60 s.
pub const LONGEST_RPC: Duration = Duration::from_secs(55);

/// When an RPC request that arrived at `received_unix_ms` ends.
pub fn rpc_deadline_unix_ms(headers: &JobHeaders, received_unix_ms: u64, times: RpcTimes) -> u64 {
    let latest = received_unix_ms + millis(LONGEST_RPC);
    let asked = headers
        .deadline(received_unix_ms)
        .unwrap_or(received_unix_ms + millis(times.default));
    asked.min(latest)
}
