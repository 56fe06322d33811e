//! Why work on a graphics card gave no result.

use std::time::Duration;

/// Why a GPU gave no result. After any of these the same work can be done on the CPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// No adapter that the policy and the name allow.
    #[error("no usable graphics adapter; there are: {found}")]
    NoAdapter {
        /// What there is, by name and kind.
        found: String,
    },
    /// The adapter cannot do what the kernels need.
    #[error("adapter `{adapter}` cannot be used: {reason}")]
    Unsupported {
        /// Name of the adapter.
        adapter: String,
        /// What it lacks.
        reason: String,
    },
    /// A layer without inputs or outputs.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// The data is beyond a limit of the device.
    #[error("{what} is {got}, at most {limit} goes")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// Its size.
        got: u64,
        /// The largest that goes.
        limit: u64,
    },
    /// Data that does not have the stated shape.
    #[error("{what} has {got} values, its shape takes {expected}")]
    Shape {
        /// Which data.
        what: &'static str,
        /// Values given.
        got: usize,
        /// Values needed.
        expected: usize,
    },
    /// The device has no memory left for this.
    #[error("the device is out of memory: {0}")]
    OutOfMemory(String),
    /// The device is gone. Nothing on it will succeed again; open a new one.
    #[error("the device is lost: {0}")]
    Lost(String),
    /// The work did not end in time. The device may be busy or stuck.
    #[error("the device gave no result within {0:?}")]
    Timeout(Duration),
    /// The work could not be put together for the device.
    #[error("the work is not fit for the device: {0}")]
    Unfit(String),
    /// The driver reported an error.
    #[error("the device reported an error: {0}")]
    Fault(String),
}
