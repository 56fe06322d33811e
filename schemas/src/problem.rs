//! Why a body is not a request or a response we can use: every problem with its place.

use std::fmt;

use crate::error::{ErrorCode, Failure};

/// Problems that a message shows; the rest are counted.
const SHOWN: usize = 8;
/// Problems that are kept at all, so that a bad body of many rows costs little.
pub(crate) const MAX_PROBLEMS: usize = 64;

/// One thing wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The place, such as `inputs[0].data` or `instances[2].x`; empty for the body as a whole.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl Problem {
    /// A problem at a place.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// All that is wrong with a body, in the order it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestError {
    /// What is wrong; never empty.
    pub problems: Vec<Problem>,
    /// [`ErrorCode::BadInput`], or [`ErrorCode::TooLarge`] if the body is.
    pub code: ErrorCode,
}

impl RequestError {
    /// One problem.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Problem::new(path, message).into()
    }

    /// A body above the limit.
    pub(crate) fn too_large(bytes: usize, max: usize) -> Self {
        Self {
            code: ErrorCode::TooLarge,
            ..Self::new("", format!("body of {bytes} bytes, at most {max}"))
        }
    }
}

impl From<Problem> for RequestError {
    fn from(problem: Problem) -> Self {
        Self::from(vec![problem])
    }
}

impl From<Vec<Problem>> for RequestError {
    fn from(problems: Vec<Problem>) -> Self {
        Self {
            problems,
            code: ErrorCode::BadInput,
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().take(SHOWN).enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        match self.problems.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for RequestError {}

impl From<&RequestError> for Failure {
    fn from(error: &RequestError) -> Self {
        Self::new(error.code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shows_eight_problems_and_counts_the_rest() {
        let problems: Vec<_> = (0..10)
            .map(|row| Problem::new(format!("instances[{row}]"), "63 values"))
            .collect();
        let text = RequestError::from(problems).to_string();
        assert!(
            text.starts_with("instances[0]: 63 values; instances[1]: 63 values; "),
            "{text}"
        );
        assert!(
            text.ends_with("instances[7]: 63 values; and 2 more"),
            "{text}"
        );
        assert_eq!(RequestError::new("", "no body").to_string(), "no body");
    }
}
