//! How long the kernel lets a thread compute before others have their turn.
//!
//! A thread that wakes up while every core computes waits for the time slice of one of them to end, which
//! Linux sees to at its next tick: up to 4 ms, at each step that a call takes through client, nats-server and
//! worker. It goes first at once if the slice it asked for is shorter than that of the thread that computes
//! (Linux 6.12: a time slice is a thread's own, and does not change its share of the processor, as `nice`
//! would). So bulk passes ask for the longest there is.
//!
//! Source: Linux, `Documentation/scheduler/sched-eevdf.rst`, and `PREEMPT_SHORT` in `kernel/sched/features.h`.

/// The time slice of the thread that made it.
#[derive(Debug)]
pub(super) struct TimeSlice {
    /// As the thread had it; `None` where the kernel knows no such thing.
    usual: Option<system::Attributes>,
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
        if let Some(usual) = &self.usual
            && self.long != long
        {
            system::set(usual, long);
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
    use libc::{SCHED_BATCH, SCHED_OTHER, SYS_sched_getattr, SYS_sched_setattr, c_int, sched_attr};

    pub(super) type Attributes = sched_attr;

    /// The most that the kernel takes, in nanoseconds.
    const LONGEST: u64 = 100_000_000;

    const THIS_THREAD: libc::pid_t = 0;
    const NO_FLAGS: libc::c_uint = 0;

    /// Those of the calling thread, if its kernel and its policy have time slices.
    pub(super) fn get() -> Option<Attributes> {
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

    /// Gives the calling thread the longest slice, or back the one of `usual`.
    pub(super) fn set(usual: &Attributes, long: bool) {
        let mut wanted = *usual;
        if long {
            wanted.sched_runtime = LONGEST.max(usual.sched_runtime);
        }
        // SAFETY: The kernel reads as many bytes as `sched_attr` says that it has.
        let result =
            unsafe { libc::syscall(SYS_sched_setattr, THIS_THREAD, &raw const wanted, NO_FLAGS) };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, long, "the time slice of an executor stays as it was");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    #[derive(Debug)]
    pub(super) struct Attributes;

    pub(super) fn get() -> Option<Attributes> {
        None
    }

    pub(super) fn set(_usual: &Attributes, _long: bool) {}
}

/// The time slice of the calling thread, zero where the kernel has none.
#[cfg(all(test, target_os = "linux"))]
pub(super) fn granted() -> std::time::Duration {
    let nanoseconds = system::get().map_or(0, |now| now.sched_runtime);
    std::time::Duration::from_nanos(nanoseconds)
}
