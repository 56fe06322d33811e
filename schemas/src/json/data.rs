//! The `data` of a tensor: JSON text straight into little-endian bytes.
//!
//! `data` is flat, or nested exactly as the shape says. Memory is taken for as many elements as the
//! text can hold, never for what the shape claims.

use super::leaf::{self, ReadLeaf, base64_object};
use super::text;
use crate::problem::Problem;
use crate::tensor::{DataType, show_shape};
use crate::wire::Head;

/// Reads the valid JSON `json` as the elements of a tensor.
///
/// A fixed-size type also takes `{"b64": "..."}`: all of its bytes, little-endian and row-major.
pub(super) fn read(json: &str, head: &Head<'_>, path: &str) -> Result<Vec<u8>, Problem> {
    if json.starts_with('{') && head.datatype != DataType::Bytes {
        return base64_object(json).ok_or_else(|| {
            let message =
                "an object where a list, or {\"b64\": \"...\"} with the raw bytes, is expected";
            Problem::new(path, message)
        });
    }
    let mut walk = Walk::new(json.trim_ascii(), head, path);
    walk.run()?;
    walk.finish()
}

/// A walk over the brackets and leaves of `data`.
struct Walk<'a> {
    json: &'a str,
    at: usize,
    head: &'a Head<'a>,
    path: &'a str,
    read: ReadLeaf,
    out: Vec<u8>,
    /// Leaves found; those above the shape's number are counted, not kept.
    leaves: usize,
    /// Depth of the first leaf, which all others must share.
    leaf_depth: Option<usize>,
    /// For each open list the items seen so far.
    open: Vec<usize>,
    /// For each depth the length of the first list that was closed there.
    lengths: Vec<Option<usize>>,
}

impl<'a> Walk<'a> {
    fn new(json: &'a str, head: &'a Head<'a>, path: &'a str) -> Self {
        // An element takes a digit and a comma at least, whatever the shape claims.
        let possible = head.elements.min(json.len() / 2 + 1);
        let bytes = possible.saturating_mul(head.datatype.size().unwrap_or(4));
        Self {
            json,
            at: 0,
            head,
            path,
            read: leaf::reader(head.datatype),
            out: Vec::with_capacity(bytes),
            leaves: 0,
            leaf_depth: None,
            open: Vec::new(),
            lengths: Vec::new(),
        }
    }

    fn run(&mut self) -> Result<(), Problem> {
        let json = self.json.as_bytes();
        while let Some(next) = json.get(self.at) {
            match next {
                b' ' | b'\t' | b'\r' | b'\n' | b',' => self.at += 1,
                b'[' => {
                    self.count_item();
                    self.open_list()?;
                }
                b']' => self.close_list()?,
                _ => {
                    self.count_item();
                    self.leaf()?;
                }
            }
        }
        Ok(())
    }

    fn count_item(&mut self) {
        if let Some(items) = self.open.last_mut() {
            *items += 1;
        }
    }

    fn open_list(&mut self) -> Result<(), Problem> {
        let depth = self.open.len();
        if self.leaf_depth == Some(depth) {
            return Err(self.ragged("a list where others have a value"));
        }
        // One more than the rank, so that a scalar may come in a list.
        if depth > self.head.shape.len() {
            return Err(self.wrong_nesting(depth + 1));
        }
        self.open.push(0);
        self.at += 1;
        Ok(())
    }

    fn close_list(&mut self) -> Result<(), Problem> {
        let depth = self.open.len();
        let items = self.open.pop().unwrap_or_default();
        self.lengths.resize(self.lengths.len().max(depth), None);
        match self.lengths[depth - 1] {
            Some(first) if first != items => {
                let message = format!("{items} values where the first list there has {first}");
                return Err(self.ragged(&message));
            }
            _ => self.lengths[depth - 1] = Some(items),
        }
        self.at += 1;
        Ok(())
    }

    fn leaf(&mut self) -> Result<(), Problem> {
        let depth = self.open.len();
        if *self.leaf_depth.get_or_insert(depth) != depth {
            return Err(self.ragged("a value where others have a list"));
        }
        let end = self.at + text::leaf_end(&self.json.as_bytes()[self.at..]);
        if self.leaves < self.head.elements {
            let leaf = &self.json[self.at..end];
            (self.read)(self.head.datatype, leaf, &mut self.out)
                .map_err(|message| Problem::new(self.place(), message))?;
        }
        self.leaves += 1;
        self.at = end;
        Ok(())
    }

    /// The bytes, if their number and nesting are those of the shape.
    fn finish(self) -> Result<Vec<u8>, Problem> {
        let Head {
            shape, elements, ..
        } = *self.head;
        if self.leaves != elements {
            let message = format!("{} values for shape {}", self.leaves, show_shape(shape));
            return Err(Problem::new(self.path, message));
        }
        let nested: Vec<usize> = self.lengths.iter().map_while(|length| *length).collect();
        let flat = nested.len() <= 1;
        if flat || nested == shape || elements == 0 {
            return Ok(self.out);
        }
        let message = format!(
            "nested as {} for shape {}",
            show_shape(&nested),
            show_shape(shape)
        );
        Err(Problem::new(self.path, message))
    }

    fn wrong_nesting(&self, depth: usize) -> Problem {
        let shape = show_shape(self.head.shape);
        Problem::new(self.path, format!("nested {depth} deep for shape {shape}"))
    }

    fn ragged(&self, message: &str) -> Problem {
        Problem::new(self.place(), message)
    }

    /// The path of the item at hand: the count of each open list, less one.
    fn place(&self) -> String {
        let indices = self.open.iter().map(|items| items.saturating_sub(1));
        indices.fold(self.path.to_owned(), |path, index| {
            format!("{path}[{index}]")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(datatype: DataType, shape: &[usize], json: &str) -> Result<Vec<u8>, String> {
        let head = Head {
            datatype,
            shape,
            elements: shape.iter().product(),
        };
        read(json, &head, "d").map_err(|problem| problem.to_string())
    }

    #[test]
    fn flat_and_nested_data_are_the_same_bytes() {
        let flat = read_as(DataType::Int16, &[2, 2, 1], "[1,2, 3,-4]");
        let nested = read_as(DataType::Int16, &[2, 2, 1], " [[[1], [2]],\n[[3],[-4]]]");
        assert_eq!(flat, Ok(vec![1, 0, 2, 0, 3, 0, 0xfc, 0xff]));
        assert_eq!(nested, flat);
        assert_eq!(read_as(DataType::Int8, &[], "7"), Ok(vec![7]));
        assert_eq!(read_as(DataType::Int8, &[], "[7]"), Ok(vec![7]));
        assert_eq!(read_as(DataType::Int8, &[2, 0], "[[],[]]"), Ok(vec![]));
        assert_eq!(read_as(DataType::Int8, &[2, 0], "[]"), Ok(vec![]));
    }

    #[test]
    fn a_wrong_number_of_values_names_the_shape() {
        let row = format!("[[{}]]", vec!["0"; 63].join(","));
        for json in [&row, &row[1..row.len() - 1]] {
            assert_eq!(
                read_as(DataType::Fp32, &[1, 64], json),
                Err("d: 63 values for shape [1,64]".into())
            );
        }
        assert_eq!(
            read_as(DataType::Int8, &[1], "[1,2,\"x\"]"),
            Err("d: 3 values for shape [1]".into())
        );
    }

    #[test]
    fn ragged_lists_are_named_by_their_indices() {
        let read =
            |shape: &[usize], json| read_as(DataType::Int8, shape, json).expect_err("ragged");
        assert_eq!(
            read(&[3, 2], "[[1,2],[3,4],[5]]"),
            "d[2]: 1 values where the first list there has 2"
        );
        assert_eq!(
            read(&[2, 2], "[[1,2],3,4]"),
            "d[1]: a value where others have a list"
        );
        assert_eq!(
            read(&[2, 2], "[1,2,[3,4]]"),
            "d[2]: a list where others have a value"
        );
        assert_eq!(
            read(&[2, 2], "[[[1,2],[3,4]]]"),
            "d: nested as [1,2,2] for shape [2,2]"
        );
        assert_eq!(
            read(&[4, 1], "[[1,2,3,4]]"),
            "d: nested as [1,4] for shape [4,1]"
        );
        assert_eq!(read(&[1], "[[[[1]]]]"), "d: nested 3 deep for shape [1]");
    }

    #[test]
    fn integers_keep_all_their_bits() {
        let max = read_as(DataType::Uint64, &[1], "[18446744073709551615]");
        assert_eq!(max, Ok(u64::MAX.to_le_bytes().to_vec()));
        let near = read_as(DataType::Int64, &[1], "[9007199254740993]");
        assert_eq!(near, Ok(9_007_199_254_740_993_i64.to_le_bytes().to_vec()));
        assert_eq!(read_as(DataType::Int8, &[2], "[1.0, 2e1]"), Ok(vec![1, 20]));
        assert_eq!(
            read_as(DataType::Int64, &[2], "[1,1.5]"),
            Err("d[1]: 1.5 is not a whole number, which INT64 takes".into())
        );
        assert!(read_as(DataType::Uint8, &[1], "[256]").is_err());
        assert!(read_as(DataType::Uint8, &[1], "[-1]").is_err());
    }

    #[test]
    fn floats_are_the_nearest_and_never_infinite_by_accident() {
        let single = |json| read_as(DataType::Fp32, &[1], json);
        assert_eq!(single("[0.1]"), Ok(0.1_f32.to_le_bytes().to_vec()));
        // Rounded to f64 first, this decimal would fall on the midpoint and go down.
        assert_eq!(
            single("[1.00000005960464477540]"),
            Ok(1.000_000_1_f32.to_le_bytes().to_vec())
        );
        assert_eq!(single("[1e39]"), Err("d[0]: 1e39 is beyond FP32".into()));
        assert_eq!(
            single("[\"-Infinity\"]"),
            Ok(f32::NEG_INFINITY.to_le_bytes().to_vec())
        );
        assert!(single("[\"1\"]").is_err() && single("[null]").is_err());
        let half = read_as(DataType::Fp16, &[3], "[1.5, -2, \"NaN\"]").expect("all fit");
        assert_eq!(half[..4], [0, 0x3e, 0, 0xc0]);
        assert!(read_as(DataType::Fp16, &[1], "[70000]").is_err());
        assert_eq!(read_as(DataType::Bf16, &[1], "[1.5]"), Ok(vec![0xc0, 0x3f]));
    }

    #[test]
    fn bytes_are_text_or_base64() {
        let read = |json| read_as(DataType::Bytes, &[2], json);
        assert_eq!(
            read(r#"["a\u00e4", {"b64": "AP8="}]"#),
            Ok(b"\x03\0\0\0a\xc3\xa4\x02\0\0\0\x00\xff".to_vec())
        );
        assert!(read(r#"["a", 1]"#).is_err());
        assert!(read(r#"["a", {"b64": "?"}]"#).is_err());
        assert!(read(r#"["a", {"b64": "AP8=", "x": 1}]"#).is_err());
    }

    #[test]
    fn raw_bytes_may_come_as_base64() {
        assert_eq!(
            read_as(DataType::Bf16, &[1], r#"{"b64":"wD8="}"#),
            Ok(vec![0xc0, 0x3f])
        );
        assert!(read_as(DataType::Bf16, &[1], r#"{"raw":"wD8="}"#).is_err());
    }

    #[test]
    fn booleans_are_true_or_false() {
        assert_eq!(
            read_as(DataType::Bool, &[2], "[true,false]"),
            Ok(vec![1, 0])
        );
        assert_eq!(
            read_as(DataType::Bool, &[1], "[1]"),
            Err("d[0]: 1 where true or false is expected".into())
        );
    }
}
