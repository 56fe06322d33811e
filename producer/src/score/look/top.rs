//! The most frequent values of a column.

use std::collections::HashMap;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use inferq_schemas::shorten;

use super::SHOWN_CELL;

/// Values that are shown.
pub(super) const SHOWN: usize = 10;
/// With more different values than this, which of them is frequent says little.
const MOST_VALUES: usize = 1_000;

/// Counts values until there are too many different ones.
#[derive(Debug)]
pub(super) struct Top {
    counts: Option<HashMap<String, u64>>,
}

impl Default for Top {
    fn default() -> Self {
        let counts = Some(HashMap::new());
        Self { counts }
    }
}

impl Top {
    pub(super) fn add(&mut self, cells: &ArrayRef) {
        if let Some(texts) = cells.as_string_opt::<i32>() {
            self.count(texts.iter().flatten());
            return;
        }
        let options = FormatOptions::default();
        let Ok(formatter) = ArrayFormatter::try_new(cells, &options) else {
            return;
        };
        for row in (0..cells.len()).filter(|row| cells.is_valid(*row)) {
            if self.counts.is_none() {
                return;
            }
            self.count([formatter.value(row).to_string().as_str()]);
        }
    }

    fn count<'a>(&mut self, values: impl IntoIterator<Item = &'a str>) {
        for value in values {
            let Some(counts) = &mut self.counts else {
                return;
            };
            // Long texts are kept short, or a thousand of them would fill the memory.
            let short = if value.len() > SHOWN_CELL {
                &shorten(value, SHOWN_CELL)
            } else {
                value
            };
            if let Some(count) = counts.get_mut(short) {
                *count += 1;
            } else if counts.len() < MOST_VALUES {
                counts.insert(short.to_owned(), 1);
            } else {
                self.counts = None;
            }
        }
    }

    /// The most frequent values, those of equal counts in the order of their text.
    pub(super) fn most(&self) -> Vec<(String, u64)> {
        let counts = self.counts.iter().flatten();
        let mut most: Vec<_> = counts
            .map(|(value, count)| (value.clone(), *count))
            .collect();
        most.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        most.truncate(SHOWN);
        most
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn too_many_different_values_have_no_most_frequent_one() {
        let mut top = Top::default();
        let labels = |n: i64| {
            Arc::new(Int64Array::from(
                (0..n).map(|n| n % 500).collect::<Vec<_>>(),
            )) as ArrayRef
        };
        top.add(&labels(600));
        assert_eq!(top.most()[0], ("0".to_owned(), 2));
        assert_eq!(top.most().len(), SHOWN);
        let keys: StringArray = (0..MOST_VALUES).map(|n| Some(format!("key {n}"))).collect();
        top.add(&(Arc::new(keys) as ArrayRef));
        assert!(top.most().is_empty());
    }
}
