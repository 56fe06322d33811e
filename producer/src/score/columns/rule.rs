//! `--map`: columns for an input, by hand.

use std::str::FromStr;

/// Columns that make an input, in order: `a,b=input`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapRule {
    /// The columns.
    pub columns: Vec<String>,
    /// The input.
    pub input: String,
}

/// Not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` maps nothing; write COLUMN=INPUT or COLUMN,COLUMN,..=INPUT")]
pub struct MapRuleError(String);

impl FromStr for MapRule {
    type Err = MapRuleError;

    fn from_str(text: &str) -> Result<Self, MapRuleError> {
        let error = || MapRuleError(text.to_owned());
        // Inputs of exported models may hold `:` and `/`, hardly a `=`; columns may hold anything.
        let (columns, input) = text.rsplit_once('=').ok_or_else(error)?;
        let columns: Vec<String> = columns
            .split(',')
            .map(|name| name.trim().to_owned())
            .collect();
        let input = input.trim().to_owned();
        if input.is_empty() || columns.iter().any(String::is_empty) {
            return Err(error());
        }
        Ok(Self { columns, input })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_columns_and_an_input() {
        let rule: MapRule = "a, b=c=x:0".parse().expect("a rule");
        assert_eq!(rule.columns, ["a", "b=c"]);
        assert_eq!(rule.input, "x:0");
        for bad in ["", "a", "=x", "a=", "a,,b=x"] {
            assert!(bad.parse::<MapRule>().is_err(), "{bad}");
        }
    }
}
