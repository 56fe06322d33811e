//! Byte sizes as people type them: `512MiB`, `1GB`, `4096`.

use std::{fmt, str::FromStr};

use serde::Serialize;

/// A number of bytes. Reads `4096`, `64KiB`, `512MiB`, `2GiB` and the decimal `kB`, `MB`, `GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ByteSize(u64);

/// The text is not a byte size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size; write bytes or a unit, such as 4096, 64KiB, 512MiB or 2GiB")]
pub struct SizeError(String);

/// Longest names first, so that `MiB` is not read as `B`.
const UNITS: [(&str, u64); 10] = [
    ("tib", 1 << 40),
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("tb", 1_000_000_000_000),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("b", 1),
    ("", 1),
];

/// What sizes are printed in, where one fits exactly.
const PRINTED: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

impl ByteSize {
    /// So many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many binary megabytes.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let lower = text.trim().to_ascii_lowercase();
        let problem = || SizeError(text.to_owned());
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| lower.strip_suffix(name).map(|digits| (digits, *unit)))
            .ok_or_else(problem)?;
        let count: u64 = digits.trim_end().parse().map_err(|_| problem())?;
        count.checked_mul(unit).map(Self).ok_or_else(problem)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = PRINTED
            .iter()
            .find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        let text = exact.map_or_else(
            || format!("{}B", self.0),
            |(name, unit)| format!("{}{name}", self.0 / unit),
        );
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64KiB", 65_536),
            ("512 mib", 512 << 20),
            ("2GiB", 2 << 30),
            ("1MB", 1_000_000),
            ("7b", 7),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        for bytes in [0, 1, 1023, 1024, 1536, 1 << 20, 3 << 30, 5 << 40] {
            let size = ByteSize(bytes);
            assert_eq!(size.to_string().parse(), Ok(size), "{size}");
        }
        assert_eq!(ByteSize::mib(512).to_string(), "512MiB");
    }

    #[test]
    fn nonsense_and_overflow_are_refused_with_an_example() {
        for text in ["", "MiB", "1.5GiB", "-1", "99999999999GiB", "12parsecs"] {
            let error = text.parse::<ByteSize>().expect_err(text);
            assert!(error.to_string().contains("512MiB"), "{error}");
        }
    }
}
