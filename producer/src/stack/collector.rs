//! How often nats-server collects its garbage.
//!
//! It needs a few megabytes at a time, and Go collects whenever the heap has grown to twice that: beside a bulk
//! run 60 times a second, on every core that is idle, while calls wait for one. It shares its machine with our
//! workers, so it may let the heap grow to more.

use crate::{assets::AssetPlan, size::ByteSize};

/// The heap grows by so many percent of what is needed (`GOGC`; Go's own default is 100).
const GROWTH: &str = "800";

/// From here on it is collected more often, whatever the growth (`GOMEMLIMIT`): this, and half as much again as
/// the server needs when all streams are full, since a limit below that would have it do nothing else.
const LIMIT: ByteSize = ByteSize::mib(512);

/// The environment of a server for `plan`. What this process has set itself is handed on, and goes before.
pub(super) fn environment(plan: &AssetPlan) -> Vec<(String, String)> {
    let ours = [
        ("GOGC", GROWTH.to_owned()),
        ("GOMEMLIMIT", limit(plan).to_string()),
    ];
    let unset = ours
        .into_iter()
        .filter(|(name, _)| std::env::var_os(name).is_none());
    unset
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// In bytes. Go takes no more than an `i64` holds.
fn limit(plan: &AssetPlan) -> u64 {
    let needed = plan.server_memory().as_u64();
    let limit = LIMIT
        .as_u64()
        .saturating_add((needed / 2).saturating_mul(3));
    limit.min(i64::MAX as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_everything_that_may_be_kept() {
        let plan = |outcomes: usize| AssetPlan {
            max_results: outcomes.try_into().expect("not zero"),
            ..AssetPlan::default()
        };
        let default = AssetPlan::default();
        assert!(limit(&default) > default.server_memory().as_u64());
        assert!(limit(&plan(1_000)) < limit(&default));
        assert_eq!(limit(&plan(usize::MAX)), i64::MAX as u64);
    }
}
