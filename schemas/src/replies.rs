//! Where replies may go: a worker sends to nobody outside of the configured prefixes.

use crate::error::shorten;
use crate::subjects::{SubjectError, check_subject};

/// The subjects a worker may send replies to: each is a prefix of whole tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyPrefixes(Vec<String>);

impl Default for ReplyPrefixes {
    /// `_INBOX` and `infer.reply`.
    fn default() -> Self {
        Self(vec!["_INBOX".to_owned(), "infer.reply".to_owned()])
    }
}

impl ReplyPrefixes {
    /// Checks each prefix against the grammar of subjects.
    ///
    /// # Errors
    /// The first prefix that breaks the grammar.
    pub fn new<S: Into<String>>(
        prefixes: impl IntoIterator<Item = S>,
    ) -> Result<Self, SubjectError> {
        let prefixes: Vec<String> = prefixes.into_iter().map(Into::into).collect();
        prefixes
            .iter()
            .try_for_each(|prefix| check_subject(prefix))?;
        Ok(Self(prefixes))
    }

    /// Whether a reply may be sent to `subject`.
    ///
    /// # Errors
    /// [`SubjectError::OutsidePrefixes`], or what the grammar says against it.
    pub fn allows(&self, subject: &str) -> Result<(), SubjectError> {
        check_subject(subject)?;
        let below = |prefix: &String| {
            subject
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.starts_with('.'))
        };
        if self.0.iter().any(below) {
            return Ok(());
        }
        Err(SubjectError::OutsidePrefixes {
            subject: shorten(subject, 80),
            allowed: self.0.join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_prefixes_compare_whole_tokens() {
        let replies = ReplyPrefixes::default();
        assert_eq!(replies.allows("_INBOX.abc.1"), Ok(()));
        assert_eq!(replies.allows("infer.reply.x"), Ok(()));
        for outside in [
            "_INBOXES.abc",
            "infer.replyx.a",
            "infer.jobs.digits.high",
            "_INBOX",
        ] {
            assert!(
                matches!(
                    replies.allows(outside),
                    Err(SubjectError::OutsidePrefixes { .. })
                ),
                "{outside}"
            );
        }
    }

    #[test]
    fn a_reply_address_must_be_a_subject() {
        let replies = ReplyPrefixes::default();
        let long = format!("_INBOX.{}", "a".repeat(250));
        for bad in [
            "_INBOX.>",
            "_INBOX.*.a",
            "_INBOX..a",
            "_INBOX.a.",
            "_INBOX.a b",
            "_INBOX.a\r\nPUB",
            &long,
        ] {
            assert!(replies.allows(bad).is_err(), "{bad}");
        }
        assert!(ReplyPrefixes::new(["a..b"]).is_err());
    }
}
