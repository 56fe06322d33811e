//! A value of rows or columns into elements: its shape is that of its lists.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::leaf::special_float;
use crate::limits::Limits;
use crate::number::{Number, Rounding};
use crate::problem::Problem;
use crate::tensor::{DataType, push_element};

/// Appends the elements of `value` to `out` and gives the shape they came in. After a problem
/// `out` holds a part of them.
pub(super) fn read(
    value: &Value,
    datatype: DataType,
    path: &str,
    limits: &Limits,
    out: &mut Vec<u8>,
) -> Result<Vec<usize>, Problem> {
    let mut walk = Walk {
        datatype,
        max_rank: limits.max_rank,
        shape: Vec::new(),
        leaf_seen: false,
        indices: Vec::new(),
        out,
    };
    match walk.value(value) {
        Ok(()) => Ok(walk.shape),
        Err(message) => {
            let indices = walk.indices.iter();
            let place = indices.fold(path.to_owned(), |path, index| format!("{path}[{index}]"));
            Err(Problem::new(place, message))
        }
    }
}

/// Whether `value` is bytes as an object: its only member is `b64`.
pub(super) fn is_base64(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|object| object.len() == 1 && object.contains_key("b64"))
}

struct Walk<'a> {
    datatype: DataType,
    max_rank: usize,
    /// Lengths of the first list at each depth.
    shape: Vec<usize>,
    /// From the first leaf on, `shape` is complete.
    leaf_seen: bool,
    /// Where we are, for messages.
    indices: Vec<usize>,
    out: &'a mut Vec<u8>,
}

impl Walk<'_> {
    fn value(&mut self, value: &Value) -> Result<(), String> {
        let depth = self.indices.len();
        let Value::Array(items) = value else {
            if depth < self.shape.len() {
                return Err("a value where others have a list".to_owned());
            }
            self.leaf_seen = true;
            return self.leaf(value);
        };
        match self.shape.get(depth) {
            Some(first) if *first != items.len() => {
                let len = items.len();
                return Err(format!(
                    "{len} values where the first list there has {first}"
                ));
            }
            Some(_) => {}
            None if self.leaf_seen => return Err("a list where others have a value".to_owned()),
            None if depth == self.max_rank => {
                return Err(format!("nested deeper than {} axes", self.max_rank));
            }
            None => self.shape.push(items.len()),
        }
        for (index, item) in items.iter().enumerate() {
            self.indices.push(index);
            self.value(item)?;
            self.indices.pop();
        }
        Ok(())
    }

    fn leaf(&mut self, value: &Value) -> Result<(), String> {
        let number = match (value, self.datatype) {
            (Value::String(text), DataType::Bytes) => return self.bytes(text.as_bytes()),
            (Value::Object(object), DataType::Bytes) if is_base64(value) => {
                let text = object["b64"].as_str();
                let bytes = text.and_then(|text| STANDARD.decode(text).ok());
                return self.bytes(&bytes.ok_or("`b64` is not base64 text")?);
            }
            (_, DataType::Bytes) => None,
            (Value::Bool(flag), DataType::Bool) => Some(Number::Int(i128::from(*flag))),
            (_, DataType::Bool) => None,
            (Value::String(text), _) => special_float(text).map(Number::Float),
            (Value::Number(number), _) => number
                .as_i128()
                .map(Number::Int)
                .or_else(|| number.as_f64().map(Number::Float)),
            _ => None,
        };
        let number = number.ok_or_else(|| {
            let expected = match self.datatype {
                DataType::Bytes => "text or {\"b64\": \"...\"}",
                DataType::Bool => "true or false",
                _ => "a number",
            };
            format!("{} where {expected} is expected", kind(value))
        })?;
        number
            .write(self.datatype, Rounding::Nearest, self.out)
            .map_err(|misfit| misfit.to_string())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        if push_element(self.out, bytes) {
            return Ok(());
        }
        Err("4 GiB or more in one element".to_owned())
    }
}

/// What a value is, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_as(datatype: DataType, value: &Value) -> Result<(Vec<usize>, Vec<u8>), String> {
        let mut out = Vec::new();
        read(value, datatype, "x", &Limits::default(), &mut out)
            .map(|shape| (shape, out))
            .map_err(|problem| problem.to_string())
    }

    #[test]
    fn the_shape_is_that_of_the_lists() {
        let read = |value| read_as(DataType::Int8, &value);
        assert_eq!(
            read(json!([[1, 2, 3], [4, 5, 6]])),
            Ok((vec![2, 3], vec![1, 2, 3, 4, 5, 6]))
        );
        assert_eq!(read(json!(7)), Ok((vec![], vec![7])));
        assert_eq!(read(json!([[], []])), Ok((vec![2, 0], vec![])));
    }

    #[test]
    fn ragged_lists_are_named_by_their_indices() {
        let read = |value| read_as(DataType::Int8, &value).expect_err("ragged");
        assert_eq!(
            read(json!([[1, 2], [3]])),
            "x[1]: 1 values where the first list there has 2"
        );
        assert_eq!(
            read(json!([[1, 2], 3])),
            "x[1]: a value where others have a list"
        );
        assert_eq!(
            read(json!([1, [2]])),
            "x[1]: a list where others have a value"
        );
        assert_eq!(
            read(json!([[], [1]])),
            "x[1]: 1 values where the first list there has 0"
        );
        let deep = json!([[[[[[[[[1]]]]]]]]]);
        assert_eq!(
            read(deep),
            "x[0][0][0][0][0][0][0][0]: nested deeper than 8 axes"
        );
    }

    #[test]
    fn values_must_be_of_the_datatype() {
        assert_eq!(
            read_as(DataType::Uint8, &json!([1, 300])),
            Err("x[1]: 300 does not fit UINT8".into())
        );
        assert_eq!(
            read_as(DataType::Fp32, &json!([null])),
            Err("x[0]: null where a number is expected".into())
        );
        assert!(read_as(DataType::Bool, &json!([1])).is_err());
        assert!(read_as(DataType::Bytes, &json!([1])).is_err());
        assert!(read_as(DataType::Bytes, &json!({"b64": "?"})).is_err());
        assert_eq!(
            read_as(DataType::Bytes, &json!({"b64": "AP8="})),
            Ok((vec![], vec![2, 0, 0, 0, 0, 255]))
        );
        assert_eq!(
            read_as(DataType::Uint64, &json!(u64::MAX)).map(|(_, bytes)| bytes),
            Ok(u64::MAX.to_le_bytes().to_vec())
        );
        assert_eq!(
            read_as(DataType::Fp32, &json!("Infinity")).map(|(_, bytes)| bytes),
            Ok(f32::INFINITY.to_le_bytes().to_vec())
        );
    }
}
