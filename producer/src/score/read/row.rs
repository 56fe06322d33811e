//! One row as JSON, for those who look for what is wrong with it.

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};

use super::is_json;
use crate::score::write::value::{self, Style};

/// Row `row` of a batch as a JSON object, its members in the order of the columns; cells that are JSON
/// text as they are. What JSON has no way to write, such as bytes, is null.
///
/// # Panics
/// If the batch has no such row.
pub fn json_row(batch: &RecordBatch, row: usize) -> String {
    let mut json = vec![b'{'];
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if json.len() > 1 {
            json.push(b',');
        }
        value::text(field.name(), Style::Json, &mut json);
        json.push(b':');
        let text = column
            .as_string_opt::<i32>()
            .filter(|cells| is_json(field) && cells.is_valid(row));
        if let Some(cells) = text {
            json.extend_from_slice(cells.value(row).as_bytes());
        } else if value::is_writable(field.data_type()) {
            value::put(column, Style::Json)(row, &mut json);
        } else {
            json.extend_from_slice(b"null");
        }
    }
    json.push(b'}');
    // Only text was put together.
    String::from_utf8_lossy(&json).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, BinaryArray, Float32Array, StringArray};
    use arrow_schema::Schema;

    use super::*;
    use crate::score::read::types::{json_column, text_column};

    #[test]
    fn a_row_is_an_object_of_its_cells() {
        let raw: ArrayRef = Arc::new(BinaryArray::from_iter_values([b"a", b"b"]));
        let x: ArrayRef = Arc::new(Float32Array::from(vec![Some(f32::NAN), None]));
        let fields = vec![
            json_column("j"),
            text_column("t\n"),
            arrow_schema::Field::new("x", x.data_type().clone(), true),
            arrow_schema::Field::new("raw", raw.data_type().clone(), true),
        ];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("[1, \"a\"]"), None])),
            Arc::new(StringArray::from(vec!["[1]", "\""])),
            x,
            raw,
        ];
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("a batch");
        assert_eq!(
            json_row(&batch, 0),
            r#"{"j":[1, "a"],"t\n":"[1]","x":"NaN","raw":null}"#
        );
        assert_eq!(
            json_row(&batch, 1),
            r#"{"j":null,"t\n":"\"","x":null,"raw":null}"#
        );
    }
}
