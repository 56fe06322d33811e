//! A number of bytes as people write it: `512MiB`, `1GB`, `65536`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes, read from text such as `512MiB` and printed in the largest binary unit that divides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl ByteSize {
    /// `count` times 1 048 576 bytes.
    pub const fn mebibytes(count: u64) -> Self {
        Self(count * MIB)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// The text is not a number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a size; write a whole number with B, KiB, MiB, GiB (1024) or kB, MB, GB (1000), such as 512MiB"
)]
pub struct ByteSizeError(String);

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ByteSizeError(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let number: u64 = number.parse().map_err(|_| error())?;
        let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kib" => KIB,
            "mib" => MIB,
            "gib" => GIB,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            _ => return Err(error()),
        };
        number.checked_mul(factor).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (factor, unit) in [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")] {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(formatter, "{}{unit}", self.0 / factor);
            }
        }
        write!(formatter, "{}B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::ByteSize;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Option<u64> {
        text.parse::<ByteSize>().ok().map(ByteSize::bytes)
    }

    #[test]
    fn sizes_are_read_in_binary_and_decimal_units_in_any_case() {
        assert_eq!(parsed("65536"), Some(65_536));
        assert_eq!(parsed("1B"), Some(1));
        assert_eq!(parsed("4KiB"), Some(4_096));
        assert_eq!(parsed("512mib"), Some(536_870_912));
        assert_eq!(parsed(" 2 GiB "), Some(2_147_483_648));
        assert_eq!(parsed("3kB"), Some(3_000));
        assert_eq!(parsed("1GB"), Some(1_000_000_000));
    }

    #[test]
    fn what_is_no_size_is_refused_with_an_example() {
        for text in [
            "",
            "MiB",
            "-1",
            "1.5GiB",
            "10 potatoes",
            "99999999999999999999",
            "18446744073709551615KiB",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
        let error = "many".parse::<ByteSize>().expect_err("not a size");
        assert!(error.to_string().contains("512MiB"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_the_same(bytes: u64) {
            prop_assert_eq!(parsed(&ByteSize(bytes).to_string()), Some(bytes));
        }
    }
}
