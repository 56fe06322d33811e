//! How long the kernel lets a thread compute before others have their turn.
//!
//! A thread that wakes up while every core computes waits for the time slice of one of them to end, which
//! Linux sees to at its next tick: up to 4 ms, at each step that a call takes through client, nats-server and
//! worker. It usually goes first at once if its own slice is shorter than that of the one that computes
//! (Linux 6.12: a time slice is a thread's own, and does not change its share of the processor, as `nice`
//! would). So bulk passes ask for the longest there is.
//!
//! Source: Linux, `Documentation/scheduler/sched-eevdf.rst`, and `PREEMPT_SHORT` in `kernel/sched/features.h`.

use std::time::Duration;

/// The most that the kernel takes.
const LONGEST: Duration = Duration::from_millis(100);

/// The time slice of the thread that made it.
#[derive(Debug)]
pub(super) struct TimeSlice {
    /// As the thread had it; `None` where the kernel knows no such thing.
    usual: Option<Duration>,
    long: bool,
}

impl TimeSlice {
    /// That of the calling thread, which is the only one that may use it.
    pub(super) fn of_this_thread() -> Self {
        Self {
            usual: system::get(),
            long: false,
        }
    }

    /// Whether whoever wakes up is to go first. A slice that cannot be changed stays as it is: calls are
    /// slower then, and nothing else.
    pub(super) fn set_long(&mut self, long: bool) {
        if let Some(usual) = self.usual
            && self.long != long
        {
            system::set(if long { LONGEST.max(usual) } else { usual });
            self.long = long;
        }
    }
}

#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "the C library has no function for these system calls"
)]
mod system {
    use std::time::Duration;

    use libc::{SCHED_BATCH, SCHED_OTHER, SYS_sched_getattr, SYS_sched_setattr, c_int, sched_attr};

    const THIS_THREAD: libc::pid_t = 0;
    const NO_FLAGS: libc::c_uint = 0;

    /// That of the calling thread, if its kernel and its policy have time slices.
    pub(super) fn get() -> Option<Duration> {
        attributes().map(|now| Duration::from_nanos(now.sched_runtime))
    }

    /// Gives the calling thread this time slice.
    pub(super) fn set(slice: Duration) {
        // Asked for anew: priority and policy may have been changed from outside.
        let Some(mut wanted) = attributes() else {
            return;
        };
        wanted.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
        // A thread that is started in a pass, as the driver of a card may do, has a slice of its own.
        wanted.sched_flags |= libc::SCHED_FLAG_RESET_ON_FORK as u64;
        // SAFETY: The kernel reads as many bytes as `sched_attr` says that it has.
        let result =
            unsafe { libc::syscall(SYS_sched_setattr, THIS_THREAD, &raw const wanted, NO_FLAGS) };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, ?slice, "the time slice of an executor stays as it was");
        }
    }

    fn attributes() -> Option<sched_attr> {
        // SAFETY: All of its fields are integers.
        let mut now: sched_attr = unsafe { std::mem::zeroed() };
        let size = size_of::<sched_attr>() as libc::c_uint;
        // SAFETY: The kernel writes `size` bytes at most to a place that has as many.
        let result =
            unsafe { libc::syscall(SYS_sched_getattr, THIS_THREAD, &raw mut now, size, NO_FLAGS) };
        let fair = c_int::try_from(now.sched_policy)
            .is_ok_and(|policy| [SCHED_OTHER, SCHED_BATCH].contains(&policy));
        (result == 0 && fair && now.sched_runtime > 0).then_some(now)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::time::Duration;

    pub(super) fn get() -> Option<Duration> {
        None
    }

    pub(super) fn set(_slice: Duration) {}
}

/// The time slice of the calling thread, zero where the kernel has none.
#[cfg(all(test, target_os = "linux"))]
pub(super) fn granted() -> Duration {
    system::get().unwrap_or_default()
}
