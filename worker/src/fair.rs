//! Fair shares by stride scheduling: whoever has had least for its weight is next.
//!
//! Used twice: `pull` shares room between models and lanes by rows, `batch` shares executors
//! between models by measured microseconds.

use std::collections::HashMap;
use std::hash::Hash;

/// Who has had how much.
#[derive(Debug, Clone)]
pub(crate) struct FairShare<K> {
    served: HashMap<K, f64>,
    /// What the least served active member had when it was last chosen: the place a newcomer starts
    /// from, so that idle time earns no credit.
    floor: f64,
}

impl<K: Hash + Eq + Clone> FairShare<K> {
    pub(crate) fn new() -> Self {
        Self {
            served: HashMap::new(),
            floor: 0.0,
        }
    }

    /// The candidate that has had least; ties go to the first.
    pub(crate) fn pick(&mut self, candidates: impl IntoIterator<Item = K>) -> Option<K> {
        let mut least: Option<(f64, K)> = None;
        for key in candidates {
            let served = self
                .served
                .get(&key)
                .copied()
                .unwrap_or(self.floor)
                .max(self.floor);
            if least.as_ref().is_none_or(|(best, _)| served < *best) {
                least = Some((served, key));
            }
        }
        let (served, key) = least?;
        self.floor = served;
        Some(key)
    }

    /// Books `cost` to `key`, which holds `weight` shares.
    pub(crate) fn charge(&mut self, key: &K, cost: f64, weight: u32) {
        let floor = self.floor;
        let served = self.served.entry(key.clone()).or_insert(floor);
        *served = served.max(floor) + cost / f64::from(weight.max(1));
    }

    /// Forgets members for which `keep` is false.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        self.served.retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(
        share: &mut FairShare<&'static str>,
        members: &[(&'static str, u32)],
        rounds: usize,
    ) -> HashMap<&'static str, usize> {
        let mut counts = HashMap::new();
        for _ in 0..rounds {
            let key = share
                .pick(members.iter().map(|(key, _)| *key))
                .expect("there are candidates");
            let weight = members
                .iter()
                .find(|(member, _)| *member == key)
                .expect("picked from the members")
                .1;
            share.charge(&key, 1.0, weight);
            *counts.entry(key).or_insert(0) += 1;
        }
        counts
    }

    #[test]
    fn turns_follow_the_weights() {
        let counts = turns(
            &mut FairShare::new(),
            &[("high", 8), ("normal", 4), ("low", 1)],
            1300,
        );
        assert_eq!(
            (counts["high"], counts["normal"], counts["low"]),
            (800, 400, 100)
        );
    }

    #[test]
    fn idle_time_earns_no_credit() {
        let mut share = FairShare::new();
        turns(&mut share, &[("busy", 1)], 1000);
        let counts = turns(&mut share, &[("busy", 1), ("late", 1)], 100);
        assert!(
            counts["busy"] >= 49,
            "the late one took {} of 100 turns",
            counts["late"]
        );
    }

    #[test]
    fn nobody_is_picked_from_nobody() {
        assert_eq!(FairShare::<&str>::new().pick([]), None);
    }
}
