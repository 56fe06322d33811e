//! What the server refuses comes as one event for each message: a person needs to read of each kind once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A kind that is told again after this long has lasted, or come back.
const TOLD_FOR: Duration = Duration::from_secs(60);
/// Kinds that are remembered; more of them at once are told each time.
const MOST_KINDS: usize = 64;

/// What was told, and when.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    told: HashMap<String, Instant>,
}

impl Refusals {
    /// Whether `error` is news at `now`.
    pub(super) fn is_news(&mut self, error: &str, now: Instant) -> bool {
        self.told
            .retain(|_, told| now.duration_since(*told) < TOLD_FOR);
        let kind = kind(error);
        if self.told.contains_key(kind) {
            return false;
        }
        if self.told.len() < MOST_KINDS {
            self.told.insert(kind.to_owned(), now);
        }
        true
    }
}

/// The text up to the part of its subject that differs from message to message: two tokens of ours such
/// as `infer.results`, three of the server's own such as `$JS.ACK.INFER_JOBS`.
fn kind(error: &str) -> &str {
    let Some(subject) = error.find('"').map(|quote| quote + 1) else {
        return error;
    };
    let tokens = if error[subject..].starts_with('$') {
        3
    } else {
        2
    };
    let dots = error[subject..].match_indices('.');
    match dots.map(|(dot, _)| subject + dot).nth(tokens - 1) {
        Some(end) => &error[..end],
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(subject: &str) -> String {
        format!(r#"Permissions Violation for Publish to "{subject}""#)
    }

    #[test]
    fn each_kind_is_news_once_a_minute() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert!(refusals.is_news(&refused("infer.results.a"), now));
        assert!(!refusals.is_news(&refused("infer.results.b"), now));
        assert!(refusals.is_news(&refused("infer.dead.digits.low.a"), now));
        assert!(refusals.is_news(&refused("$JS.ACK.INFER_JOBS.digits__low.1.2.3.4.5"), now));
        assert!(!refusals.is_news(&refused("$JS.ACK.INFER_JOBS.digits__low.1.3.4.5.6"), now));
        assert!(refusals.is_news(&refused("$JS.ACK.INFER_BULK.digits__low.1.3.4.5.6"), now));
        assert!(refusals.is_news("maximum connections exceeded", now));
        assert!(!refusals.is_news("maximum connections exceeded", now));
        assert!(refusals.is_news(&refused("infer.results.c"), now + TOLD_FOR));
    }
}
