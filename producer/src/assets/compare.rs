//! Asked against answered, field by field.
//!
//! A server older than a field drops it in silence; a newer one adds fields of its own. So every
//! field that was asked for must come back, and what was not asked for is of no interest.

use std::fmt;

use serde_json::Value;

/// One field that is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The field's name in the server's JSON, such as `max_bytes`.
    pub field: String,
    /// What was asked for.
    pub wanted: Value,
    /// What the server has; `null` if it does not mention the field.
    pub found: Value,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {}, wanted {}",
            self.field, self.found, self.wanted
        )
    }
}

/// The fields of `wanted` that differ in `found`. Absent and zero are the same, for the server
/// leaves out what is zero.
pub(super) fn differences(wanted: &Value, found: &Value) -> Vec<Difference> {
    let Value::Object(fields) = wanted else {
        return Vec::new();
    };
    let missing = Value::Null;
    let differing = fields.iter().filter_map(|(field, wanted)| {
        let found = found.get(field).unwrap_or(&missing);
        let same = wanted == found || (is_zero(wanted) && is_zero(found));
        (!same).then(|| Difference {
            field: field.clone(),
            wanted: wanted.clone(),
            found: found.clone(),
        })
    });
    differing.collect()
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_that_did_not_come_back_is_named() {
        let wanted = json!({"name": "A", "filter_subjects": ["a", "b"], "max_age": 5});
        let found = json!({"name": "A", "max_age": 7});
        let named: Vec<String> = differences(&wanted, &found)
            .into_iter()
            .map(|difference| difference.field)
            .collect();
        assert_eq!(named, ["filter_subjects", "max_age"]);
    }

    #[test]
    fn fields_of_newer_servers_are_tolerated() {
        let wanted = json!({"name": "A", "deny_delete": false});
        let found = json!({"name": "A", "compression": "none", "metadata": {"_nats.level": "1"}});
        assert_eq!(differences(&wanted, &found), []);
    }

    #[test]
    fn zero_and_absent_are_the_same_but_minus_one_is_not() {
        assert_eq!(differences(&json!({"max_age": 0}), &json!({})), []);
        assert_eq!(differences(&json!({"max_msgs": -1}), &json!({})).len(), 1);
    }
}
