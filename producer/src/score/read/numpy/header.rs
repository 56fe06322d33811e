//! The header of a `.npy` file, versions 1 to 3: a Python dictionary of three entries.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use std::io::Read;

/// What an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Signed,
    Unsigned,
    Float,
}

/// What the bytes after the header are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Bytes of an element: 1, 2, 4 or 8.
    pub(super) size: usize,
    pub(super) big_endian: bool,
    pub(super) rows: u64,
    /// Elements of a row; `None` if rows are no lists, as the array has one axis.
    pub(super) list: Option<usize>,
}

/// More than numpy's own limit for the header of any array that is no record.
const MAX_HEADER: usize = 64 << 10;
/// Most bytes of a row, so that no header makes us allocate what no file holds.
const MAX_ROW: usize = 1 << 30;

impl Header {
    pub(super) fn row_bytes(&self) -> usize {
        self.list.unwrap_or(1) * self.size
    }
}

/// Reads up to the first element.
pub(super) fn read(bytes: &mut dyn Read) -> Result<Header, String> {
    let short = |_| "it ends within its header".to_owned();
    let mut start = [0; 8];
    bytes.read_exact(&mut start).map_err(short)?;
    let Some([major, _]) = start.strip_prefix(b"\x93NUMPY") else {
        return Err("it does not start as an array of NumPy does".to_owned());
    };
    let length = match major {
        1 => {
            let mut length = [0; 2];
            bytes.read_exact(&mut length).map_err(short)?;
            usize::from(u16::from_le_bytes(length))
        }
        2 | 3 => {
            let mut length = [0; 4];
            bytes.read_exact(&mut length).map_err(short)?;
            u32::from_le_bytes(length) as usize
        }
        other => return Err(format!("version {other} of the format is not known")),
    };
    if length > MAX_HEADER {
        return Err(format!(
            "a header of {length} bytes; arrays of numbers have short ones"
        ));
    }
    let mut text = vec![0; length];
    bytes.read_exact(&mut text).map_err(short)?;
    let text = std::str::from_utf8(&text).map_err(|_| "its header is no text".to_owned())?;
    parse(text)
}

fn parse(text: &str) -> Result<Header, String> {
    let odd = || format!("its header is not understood: {}", text.trim());
    let mut left = text.trim().strip_prefix('{').ok_or_else(odd)?;
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    loop {
        left = left.trim_start_matches([' ', ',']);
        if left == "}" {
            break;
        }
        let (key, rest) = quoted(left).ok_or_else(odd)?;
        left = rest
            .trim_start()
            .strip_prefix(':')
            .ok_or_else(odd)?
            .trim_start();
        match key {
            "descr" if left.starts_with('[') => {
                return Err("its elements are records; save each field as an array".to_owned());
            }
            "descr" => {
                let (name, rest) = quoted(left).ok_or_else(odd)?;
                (descr, left) = (Some(name), rest);
            }
            "fortran_order" => {
                let end = left.find([',', '}']).ok_or_else(odd)?;
                fortran = Some(left[..end].trim() == "True");
                left = &left[end..];
            }
            "shape" => {
                let inner = left.strip_prefix('(').ok_or_else(odd)?;
                let (numbers, rest) = inner.split_once(')').ok_or_else(odd)?;
                let sizes = numbers
                    .split(',')
                    .map(str::trim)
                    .filter(|size| !size.is_empty());
                // Python 2 wrote long integers with an L.
                let sizes = sizes.map(|size| size.trim_end_matches('L').parse::<u64>());
                let sizes: Result<Vec<u64>, _> = sizes.collect();
                shape = Some(sizes.map_err(|_| odd())?);
                left = rest;
            }
            _ => return Err(odd()),
        }
    }
    let (Some(descr), Some(fortran), Some(shape)) = (descr, fortran, shape) else {
        return Err(odd());
    };
    let (kind, size, big_endian) = element(descr)?;
    let (rows, list) = rows(&shape, size)?;
    if fortran && list.is_some() {
        return Err("it is in Fortran order; save np.ascontiguousarray(it)".to_owned());
    }
    Ok(Header {
        kind,
        size,
        big_endian,
        rows,
        list,
    })
}

/// The text in quotes at the start, and what comes after.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

fn element(descr: &str) -> Result<(Kind, usize, bool), String> {
    let (order, name) = match descr.as_bytes().first() {
        Some(b'<' | b'>' | b'=' | b'|') => descr.split_at(1),
        _ => ("=", descr),
    };
    let (kind, size) = match name {
        "b1" | "?" => (Kind::Bool, 1),
        "i1" => (Kind::Signed, 1),
        "i2" => (Kind::Signed, 2),
        "i4" => (Kind::Signed, 4),
        "i8" => (Kind::Signed, 8),
        "u1" => (Kind::Unsigned, 1),
        "u2" => (Kind::Unsigned, 2),
        "u4" => (Kind::Unsigned, 4),
        "u8" => (Kind::Unsigned, 8),
        "f2" => (Kind::Float, 2),
        "f4" => (Kind::Float, 4),
        "f8" => (Kind::Float, 8),
        "O" => return Err("its elements are Python objects, which are not read".to_owned()),
        _ => {
            let known = "it takes bool, int8 to int64, uint8 to uint64, float16 to float64";
            return Err(format!("its elements are `{descr}`; {known}"));
        }
    };
    Ok((kind, size, order == ">"))
}

/// Rows, and elements of a row if it is a list.
fn rows(shape: &[u64], size: usize) -> Result<(u64, Option<usize>), String> {
    let Some((rows, rest)) = shape.split_first() else {
        return Err("it is a single number without rows".to_owned());
    };
    if rest.is_empty() {
        return Ok((*rows, None));
    }
    let elements = rest
        .iter()
        .try_fold(1_u64, |all, size| all.checked_mul(*size));
    let elements = elements.and_then(|elements| usize::try_from(elements).ok());
    match elements {
        Some(0) => Err("its rows have no elements".to_owned()),
        Some(elements) if elements <= MAX_ROW / size => Ok((*rows, Some(elements))),
        _ => Err("a row of it has more than 1 GiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(major: u8, text: &str) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY".to_vec();
        bytes.extend([major, 0]);
        match major {
            1 => bytes.extend((text.len() as u16).to_le_bytes()),
            _ => bytes.extend((text.len() as u32).to_le_bytes()),
        }
        bytes.extend(text.as_bytes());
        bytes
    }

    #[test]
    fn headers_of_all_versions_are_read() {
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4, 2), }          \n";
        let expected = Header {
            kind: Kind::Float,
            size: 4,
            big_endian: false,
            rows: 3,
            list: Some(8),
        };
        for major in 1..=3 {
            let mut bytes = &header(major, text)[..];
            assert_eq!(read(&mut bytes), Ok(expected.clone()));
            assert!(bytes.is_empty());
        }
        let odd = r#"{"shape":(7L,),"descr":">i8","fortran_order":True}"#;
        let read = read(&mut &header(1, odd)[..]).expect("one axis has one order");
        assert_eq!(
            (read.kind, read.size, read.big_endian),
            (Kind::Signed, 8, true)
        );
        assert_eq!((read.rows, read.list), (7, None));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_reason() {
        let whole = |descr: &str, fortran: &str, shape: &str| {
            format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}}}")
        };
        for (text, reason) in [
            (whole("'|O'", "False", "(3,)"), "Python objects"),
            (whole("'<U8'", "False", "(3,)"), "`<U8`"),
            (whole("[('a', '<f4')]", "False", "(3,)"), "records"),
            (whole("'<f4'", "True", "(3, 2)"), "Fortran"),
            (whole("'<f4'", "False", "()"), "single number"),
            (whole("'<f4'", "False", "(3, 0)"), "no elements"),
            (whole("'<f4'", "False", "(1, 99999999999)"), "1 GiB"),
            (
                whole("'<f4'", "False", "(1, 99999999999, 99999999999)"),
                "1 GiB",
            ),
            (whole("'<f4'", "False", "(-1,)"), "not understood"),
            ("{'descr': '<f4'}".to_owned(), "not understood"),
            ("{'descr'".to_owned(), "not understood"),
            ("(1, 2)".to_owned(), "not understood"),
        ] {
            let error = read(&mut &header(1, &text)[..]).expect_err("unreadable");
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(read(&mut &b"PK\x03\x04 no array"[..]).is_err());
        assert!(
            read(&mut &header(4, "{}")[..])
                .expect_err("unknown")
                .contains("version 4")
        );
        assert!(
            read(&mut &header(1, "{}")[..9])
                .expect_err("short")
                .contains("ends within")
        );
        let long = " ".repeat(MAX_HEADER + 1);
        assert!(
            read(&mut &header(2, &long)[..])
                .expect_err("long")
                .contains("65537 bytes")
        );
    }
}
