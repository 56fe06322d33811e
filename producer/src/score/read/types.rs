//! The types a column may have once it is read: one way to write text, bytes and lists.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Schema, SchemaRef};

/// Metadata of a column whose text cells are JSON.
const CELLS: &str = "inferq.cells";

/// A column of text as it stands.
pub(super) fn text_column(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

/// A column of text that is JSON.
pub(super) fn json_column(name: &str) -> Field {
    let metadata = HashMap::from([(CELLS.to_owned(), "json".to_owned())]);
    text_column(name).with_metadata(metadata)
}

/// Whether the text cells of a column are JSON, such as `"a"`, `1` or `[1,2]`.
pub fn is_json(column: &Field) -> bool {
    column
        .metadata()
        .get(CELLS)
        .is_some_and(|cells| cells == "json")
}

/// The type that stands for `datatype`: without dictionaries, views and 64-bit offsets.
pub(super) fn plain(datatype: &DataType) -> DataType {
    match datatype {
        DataType::Dictionary(_, values) => plain(values),
        DataType::RunEndEncoded(_, values) => plain(values.data_type()),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => DataType::List(plain_item(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(plain_item(item), *size),
        other => other.clone(),
    }
}

fn plain_item(item: &FieldRef) -> FieldRef {
    Arc::new(Field::new_list_field(plain(item.data_type()), true))
}

/// The columns with plain types, all of which may have nulls.
pub(super) fn plain_schema(schema: &Schema) -> SchemaRef {
    let field = |field: &FieldRef| Field::new(field.name(), plain(field.data_type()), true);
    Arc::new(Schema::new(
        schema.fields().iter().map(field).collect::<Vec<_>>(),
    ))
}

/// The batch in the types of `schema`, which [`plain_schema`] made of its own.
pub(super) fn to_plain(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let arrays = batch.columns().iter().zip(schema.fields());
    let arrays = arrays.map(|(array, field)| {
        if array.data_type() == field.data_type() {
            Ok(array.clone())
        } else {
            cast(array, field.data_type())
        }
    });
    let arrays: Result<Vec<ArrayRef>, _> = arrays.collect();
    RecordBatch::try_new(schema.clone(), arrays?)
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Int8Type, Int32Type};
    use arrow_array::{DictionaryArray, LargeListArray};

    use super::*;

    #[test]
    fn dictionaries_and_long_lists_become_plain() {
        let words: DictionaryArray<Int8Type> =
            vec![Some("a"), None, Some("a")].into_iter().collect();
        let lists = LargeListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
        ]);
        let batch = RecordBatch::try_from_iter([
            ("words", Arc::new(words) as ArrayRef),
            ("lists", Arc::new(lists)),
        ])
        .expect("a batch");
        let schema = plain_schema(&batch.schema());
        let plain = to_plain(&schema, &batch).expect("castable");
        let words: Vec<_> = plain.column(0).as_string::<i32>().iter().collect();
        assert_eq!(words, [Some("a"), None, Some("a")]);
        let lists = plain.column(1).as_list::<i32>();
        assert_eq!(lists.value(0).len(), 2);
        assert!(lists.is_null(1) && lists.is_valid(2));
    }

    #[test]
    fn only_json_columns_are_json() {
        assert!(is_json(&json_column("a")));
        assert!(!is_json(&text_column("a")));
    }
}
