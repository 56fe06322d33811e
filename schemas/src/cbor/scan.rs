//! One walk over CBOR bytes before anything is decoded.
//!
//! Passes only what the decoder is safe with: one item that fills the input, every length definite
//! and within what is left, depth and number of items within the limits, maps with text keys and no
//! key twice, no tags, and of the simple values only true, false, null and floats. It does not
//! recurse and takes memory only for items that are really there.

use crate::error::shorten;
use crate::limits::Limits;

/// Why a scan stopped, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why} at byte {at}")]
pub(super) struct ScanError {
    why: String,
    at: usize,
}

/// Members of one map, whose names are compared with each other.
const MAX_KEYS: usize = crate::wire::MAX_MEMBERS;

/// A list or map that is not at its end.
struct Open {
    /// Items still to come; a map's key and value are two.
    left: u64,
    /// Of a map: where its keys start in the stack of keys.
    keys_from: Option<usize>,
}

/// Checks `bytes`, which are at most as many as [`Limits::max_body_bytes`] by now.
pub(super) fn scan(bytes: &[u8], limits: &Limits) -> Result<(), ScanError> {
    Scan {
        bytes,
        at: 0,
        items: 0,
        open: Vec::new(),
        keys: Vec::new(),
    }
    .run(limits)
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    items: usize,
    open: Vec<Open>,
    /// The keys so far of every open map, the innermost last.
    keys: Vec<&'a [u8]>,
}

impl Scan<'_> {
    fn run(mut self, limits: &Limits) -> Result<(), ScanError> {
        let max_items = limits.max_cbor_items();
        loop {
            self.items += 1;
            if self.items > max_items {
                return Err(self.error(format!("more than {max_items} items")));
            }
            self.item()?;
            if self.open.len() > limits.max_depth {
                return Err(self.error(format!("nested deeper than {}", limits.max_depth)));
            }
            self.close_full();
            let Some(open) = self.open.last_mut() else {
                break;
            };
            open.left -= 1;
        }
        if self.at < self.bytes.len() {
            return Err(self.error("more bytes after the end of the body".to_owned()));
        }
        Ok(())
    }

    /// Steps over the head of one item and what it holds itself; a list or map is opened.
    fn item(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        let head = self.byte()?;
        let (major, info) = (head >> 5, head & 0x1f);
        let is_key = self
            .open
            .last()
            .is_some_and(|open| open.keys_from.is_some() && open.left % 2 == 1);
        if is_key && major != 3 {
            self.at = start;
            return Err(self.error("a map key that is not text".to_owned()));
        }
        if major == 7 {
            return self.simple(start, info);
        }
        let argument = self.argument(start, info)?;
        match major {
            0 | 1 => Ok(()),
            2 => self.skip(start, argument).map(drop),
            3 if is_key => self.key(start, argument),
            3 => self.skip(start, argument).map(drop),
            4 => self.open(start, argument, None),
            5 => {
                let items = argument
                    .checked_mul(2)
                    .ok_or_else(|| self.too_long(start))?;
                self.open(start, items, Some(self.keys.len()))
            }
            _ => Err(self.error_at(start, "a tag")),
        }
    }

    /// The number in or after a head.
    fn argument(&mut self, start: usize, info: u8) -> Result<u64, ScanError> {
        let size = match info {
            0..=23 => return Ok(info.into()),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            31 => return Err(self.error_at(start, "an indefinite length")),
            _ => return Err(self.error_at(start, "a reserved head")),
        };
        let bytes = self.skip(start, size)?;
        Ok(bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn simple(&mut self, start: usize, info: u8) -> Result<(), ScanError> {
        let size = match info {
            20..=22 => 0,
            25 => 2,
            26 => 4,
            27 => 8,
            31 => return Err(self.error_at(start, "an indefinite length")),
            _ => {
                return Err(self.error_at(
                    start,
                    "a simple value other than true, false, null or a float",
                ));
            }
        };
        self.skip(start, size).map(drop)
    }

    /// Opens a list or map, of which each item takes at least one byte.
    fn open(&mut self, start: usize, left: u64, keys_from: Option<usize>) -> Result<(), ScanError> {
        let rest = self.bytes.len() - self.at;
        if usize::try_from(left).is_ok_and(|left| left <= rest) {
            self.open.push(Open { left, keys_from });
            return Ok(());
        }
        Err(self.too_long(start))
    }

    /// Closes every list and map that is at its end and forgets their keys.
    fn close_full(&mut self) {
        while let Some(open) = self.open.pop_if(|open| open.left == 0) {
            self.keys
                .truncate(open.keys_from.unwrap_or(self.keys.len()));
        }
    }

    /// Steps over `length` bytes, if there are so many.
    fn skip(&mut self, start: usize, length: u64) -> Result<&[u8], ScanError> {
        let bytes = self.bytes;
        let rest = &bytes[self.at..];
        match usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(..length))
        {
            Some(skipped) => {
                self.at += skipped.len();
                Ok(skipped)
            }
            None => Err(self.too_long(start)),
        }
    }

    /// Steps over a map's key and holds it against those before it.
    fn key(&mut self, start: usize, length: u64) -> Result<(), ScanError> {
        let from = self.at;
        self.skip(start, length)?;
        let bytes = self.bytes;
        let key = &bytes[from..self.at];
        let keys_from = self.open.last().and_then(|open| open.keys_from);
        let keys = &self.keys[keys_from.unwrap_or(self.keys.len())..];
        if keys.contains(&key) {
            let name = shorten(&String::from_utf8_lossy(&key[..key.len().min(80)]), 80);
            return Err(self.error_at(start, &format!("the key `{name}` twice in one map")));
        }
        if keys.len() >= MAX_KEYS {
            return Err(self.error_at(start, &format!("more than {MAX_KEYS} keys in one map")));
        }
        self.keys.push(key);
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, ScanError> {
        let byte = self.bytes.get(self.at).copied();
        let byte = byte.ok_or_else(|| self.error("the body ends too early".to_owned()))?;
        self.at += 1;
        Ok(byte)
    }

    fn too_long(&self, start: usize) -> ScanError {
        self.error_at(start, "a length beyond the end of the body")
    }

    fn error(&self, why: String) -> ScanError {
        ScanError { why, at: self.at }
    }

    fn error_at(&self, at: usize, why: &str) -> ScanError {
        ScanError {
            why: why.to_owned(),
            at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(bytes: &[u8]) -> String {
        let limits = Limits {
            max_depth: 3,
            ..Limits::default()
        };
        match scan(bytes, &limits) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn sound_items_pass() {
        for bytes in [
            &b"\xa0"[..],
            b"\x80",
            b"\x00",
            b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x43abc",
            b"\x63abc",
            b"\xf6",
            b"\xfa\0\0\0\0",
            b"\xa2\x61a\x82\x01\xa1\x61a\x02\x61b\x80",
            b"\x82\xa1\x61a\x01\xa1\x61a\x01",
        ] {
            assert_eq!(why(bytes), "", "{bytes:x?}");
        }
    }

    #[test]
    fn each_danger_is_refused_where_it_lies() {
        for (bytes, expected) in [
            (&b""[..], "the body ends too early at byte 0"),
            (b"\xa1\x61a", "the body ends too early at byte 3"),
            (b"\xa2\x61a\x01\x61b", "the body ends too early at byte 6"),
            (b"\x9f\xff", "an indefinite length at byte 0"),
            (b"\x81\x5f\x41a\xff", "an indefinite length at byte 1"),
            (b"\xff", "an indefinite length at byte 0"),
            (b"\xc0\x01", "a tag at byte 0"),
            (b"\xa1\x01\x01", "a map key that is not text at byte 1"),
            (b"\xa1\x80\x01", "a map key that is not text at byte 1"),
            (
                b"\xa2\x61a\x01\x61a\x02",
                "the key `a` twice in one map at byte 4",
            ),
            (
                b"\x01\x01",
                "more bytes after the end of the body at byte 1",
            ),
            (b"\x81\x81\x81\x80", "nested deeper than 3 at byte 4"),
            (b"\x1c", "a reserved head at byte 0"),
            (b"\x44abc", "a length beyond the end of the body at byte 0"),
            (
                b"\xf7",
                "a simple value other than true, false, null or a float at byte 0",
            ),
        ] {
            assert_eq!(why(bytes), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn claimed_lengths_never_pass_what_is_there() {
        for major in [2_u8, 3, 4, 5] {
            let mut bytes = vec![major << 5 | 27];
            bytes.extend(u64::MAX.to_be_bytes());
            assert!(why(&bytes).starts_with("a length beyond"), "major {major}");
            let mut bytes = vec![0x81, major << 5 | 26];
            bytes.extend((1_u32 << 31).to_be_bytes());
            assert!(why(&bytes).starts_with("a length beyond"), "major {major}");
        }
    }

    #[test]
    fn items_are_counted() {
        let items = Limits::default().max_cbor_items();
        let mut bytes = vec![0x9a];
        bytes.extend((items as u32).to_be_bytes());
        bytes.resize(bytes.len() + items, 0);
        assert!(why(&bytes).starts_with("more than"), "{}", why(&bytes));
    }
}
