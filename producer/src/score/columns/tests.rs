use std::sync::Arc;

use arrow_array::types::Float32Type;
use arrow_array::{
    ArrayRef, BooleanArray, FixedSizeListArray, Float64Array, Int64Array, ListArray, StringArray,
};
use inferq_schemas::Dim;

use super::*;

fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
    let dim = |size: &i64| usize::try_from(*size).map_or(Dim::Any, Dim::Fixed);
    TensorSpec {
        name: name.to_owned(),
        datatype,
        shape: shape.iter().map(dim).collect(),
    }
}

fn text(cells: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(cells.to_vec()))
}

fn records(columns: Vec<(&str, ArrayRef)>) -> Records {
    Records {
        first_row: 0,
        batch: RecordBatch::try_from_iter_with_nullable(
            columns
                .into_iter()
                .map(|(name, column)| (name, column, true)),
        )
        .expect("columns of one length"),
        problems: Vec::new(),
    }
}

/// Decides with the records as the sample, and no rules.
fn decide(records: &Records, specs: &[TensorSpec]) -> Result<Mapping, MappingError> {
    decide_with(records, specs, &[], &[])
}

fn decide_with(
    records: &Records,
    specs: &[TensorSpec],
    maps: &[&str],
    declared: &[(&str, &[&str])],
) -> Result<Mapping, MappingError> {
    let maps: Vec<MapRule> = maps
        .iter()
        .map(|rule| rule.parse().expect("a rule"))
        .collect();
    let declared = declared.iter().map(|(input, columns)| {
        let columns = columns.iter().map(|column| column.to_string());
        (input.to_string(), columns.collect())
    });
    let (batch, declared) = (&records.batch, declared.collect());
    Mapping::decide(batch.schema_ref(), specs, &maps, &declared, Some(batch))
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.to_f32().expect("FP32")
}

#[test]
fn each_way_to_find_columns_comes_before_the_next() {
    let table = records(vec![
        ("m", text(&["1"])),
        ("t", text(&["2"])),
        ("x", text(&["3"])),
        ("x_0", text(&["4"])),
        ("y_0", text(&["5"])),
        ("y_1", text(&["6"])),
        ("y_3", text(&["7"])),
    ]);
    let x = [spec("x", DataType::Fp32, &[-1, 1])];
    let first = |maps: &[&str], declared: &[(&str, &[&str])]| {
        let mapping = decide_with(&table, &x, maps, declared).expect("columns");
        let note = mapping.describe();
        (
            floats(&mapping.tensors(&table).tensors[0]),
            note.inputs[0].by,
        )
    };
    assert_eq!(first(&["m=x"], &[("x", &["t"])]), (vec![1.0], By::Map));
    assert_eq!(first(&[], &[("x", &["t"])]), (vec![2.0], By::ModelToml));
    assert_eq!(first(&[], &[]), (vec![3.0], By::Name));
    let mapping = decide(&table, &[spec("y", DataType::Fp32, &[-1, 2])]).expect("columns");
    assert_eq!(floats(&mapping.tensors(&table).tensors[0]), [5.0, 6.0]);
    assert_eq!(mapping.describe().ignored, ["m", "t", "x", "x_0", "y_3"]);
    let mapping = decide(&table, &[spec("z", DataType::Fp32, &[-1, 7])]).expect("columns");
    let note = mapping.describe();
    assert_eq!(note.inputs[0].by, By::All);
    assert_eq!(
        note.to_string(),
        "z (FP32) from `m`, `t`, `x`, `x_0`, `y_0`, `y_1`, `y_3`, which fit"
    );
    let json = serde_json::to_string(&note).expect("JSON");
    assert_eq!(
        serde_json::from_str::<MappingNote>(&json).expect("the same"),
        note
    );
}

#[test]
fn the_only_input_takes_all_columns_of_its_kind_or_the_only_list() {
    let list = ListArray::from_iter_primitive::<Float32Type, _, _>([Some(vec![Some(1.0); 3])]);
    let table = records(vec![
        ("id", text(&["a7"])),
        ("b", Arc::new(BooleanArray::from(vec![true]))),
        ("n", Arc::new(Int64Array::from(vec![2]))),
        ("f", Arc::new(Float64Array::from(vec![0.5]))),
    ]);
    let mapping = decide(&table, &[spec("in", DataType::Fp32, &[-1, 3])]).expect("three numbers");
    assert_eq!(floats(&mapping.tensors(&table).tensors[0]), [1.0, 2.0, 0.5]);
    assert_eq!(mapping.describe().ignored, ["id"]);
    let mapping = decide(&table, &[spec("in", DataType::Bytes, &[-1])]).expect("one text");
    let tensors = mapping.tensors(&table).tensors;
    assert_eq!(tensors[0].to_strings().expect("text"), ["a7"]);
    let with_list = records(vec![("n", text(&["1"])), ("emb", Arc::new(list))]);
    let mapping = decide(&with_list, &[spec("in", DataType::Fp32, &[-1, 3])]).expect("a list");
    assert_eq!(floats(&mapping.tensors(&with_list).tensors[0]), [1.0; 3]);
    let error = decide(&table, &[spec("in", DataType::Fp32, &[-1, 4])]).expect_err("three");
    assert!(
        error.to_string().contains("there are 3 number columns"),
        "{error}"
    );
}

#[test]
fn errors_name_every_input_without_columns_and_what_is_near() {
    let table = records(vec![
        ("imput_ids", text(&["1"])),
        ("x_0", text(&["1"])),
        ("x_1", text(&["1"])),
    ]);
    let specs = [
        spec("input_ids", DataType::Int64, &[-1, -1]),
        spec("mask", DataType::Int64, &[-1, 4, -1]),
        spec("x", DataType::Fp32, &[-1, 3]),
    ];
    let error = decide(&table, &specs)
        .expect_err("nothing fits")
        .to_string();
    for part in [
        "input_ids: INT64[?,?] takes a list of numbers per row; the nearest column is `imput_ids`",
        "mask: INT64[?,4,?] takes a list of numbers, a multiple of 4 per row",
        "x: FP32[?,3] takes 3 numbers per row; there are `x_0` to `x_1` only",
        "The input has `imput_ids`, `x_0`, `x_1`.",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    let x = [spec("x", DataType::Fp32, &[-1, 2])];
    let with = |maps: &[&str], declared: &[(&str, &[&str])]| {
        decide_with(&table, &x, maps, declared)
            .expect_err("a mistake")
            .to_string()
    };
    assert!(with(&["x_0,x_9=x"], &[]).contains("--map names column `x_9`"));
    assert!(with(&["x_0=y"], &[]).contains("--map names input `y`"));
    assert!(with(&[], &[("x", &["x_0"])]).contains("model.toml gives 1 columns"));
    assert!(with(&["x_0,x_1=x", "x_0=x"], &[]).contains("twice"));
    let none = decide(&table, &[spec("s", DataType::Fp32, &[])]).expect_err("no rows");
    assert!(none.to_string().contains("no axis for rows"));
}

#[test]
fn a_bad_cell_costs_its_row_and_names_column_value_and_type() {
    let mut table = records(vec![
        ("a", text(&["1", "x", "3", "", "5"])),
        (
            "b",
            Arc::new(Int64Array::from(vec![
                Some(1),
                Some(2),
                None,
                Some(4),
                Some(5),
            ])),
        ),
    ]);
    table.first_row = 100;
    table.problems.push(RowProblem {
        row: 104,
        message: "unreadable".to_owned(),
    });
    let specs = [
        spec("a", DataType::Fp32, &[-1]),
        spec("b", DataType::Int8, &[-1, 1]),
    ];
    let mapped = decide(&table, &specs).expect("columns").tensors(&table);
    assert_eq!(mapped.rows, [100]);
    assert_eq!(mapped.tensors[0].shape, [1]);
    assert_eq!(mapped.tensors[1].shape, [1, 1]);
    assert_eq!(&mapped.tensors[1].data[..], &[1]);
    let problems: Vec<_> = mapped
        .problems
        .iter()
        .map(|p| (p.row, p.message.as_str()))
        .collect();
    assert_eq!(
        problems,
        [
            (101, "column `a`: `x` where FP32 is expected"),
            (102, "column `b`: null where INT8 is expected"),
            (103, "column `a`: empty where FP32 is expected"),
            (104, "unreadable"),
        ]
    );
    let none = records(vec![("a", text(&["x"])), ("b", text(&["1"]))]);
    let mapped = decide(&none, &specs).expect("columns").tensors(&none);
    assert!(mapped.tensors.is_empty() && mapped.rows.is_empty() && mapped.problems.len() == 1);
}

#[test]
fn the_first_good_row_settles_a_free_axis_for_the_run() {
    let first = records(vec![(
        "ids",
        text(&["[1, x]", "[1, 2, 3]", "[4,5,6]", "[7,8]", "9", "[]"]),
    )]);
    let specs = [spec("ids", DataType::Int64, &[-1, -1])];
    let mapping = decide(&first, &specs).expect("a column");
    let mapped = mapping.tensors(&first);
    assert_eq!(mapped.tensors[0].shape, [2, 3]);
    assert_eq!(mapped.rows, [1, 2]);
    assert!(
        mapped.problems[1]
            .message
            .contains("a row of [2] where the first row of the run has [3]; pad")
    );
    let later = records(vec![("ids", text(&["[1,2]", "[1,2,3]"]))]);
    assert_eq!(mapping.tensors(&later).rows, [1]);
    let columns = records(vec![("ids_0", text(&["1"])), ("ids_1", text(&["2"]))]);
    let mapped = decide(&columns, &specs).expect("columns").tensors(&columns);
    assert_eq!(mapped.tensors[0].shape, [1, 2]);
}

#[test]
fn lists_of_lists_have_the_shape_of_the_input_and_flat_ones_are_folded() {
    let nested = records(vec![(
        "x",
        text(&[
            "[[1,2],[3,4],[5,6]]",
            "[1,2,3,4,5,6]",
            "[[1,2,3],[4,5,6]]",
            "[1,2]",
        ]),
    )]);
    let mapped = decide(&nested, &[spec("x", DataType::Fp32, &[-1, 3, 2])])
        .expect("a column")
        .tensors(&nested);
    assert_eq!(mapped.rows, [0, 1]);
    assert_eq!(mapped.tensors[0].shape, [2, 3, 2]);
    assert!(
        mapped.problems[0]
            .message
            .contains("a list of [2, 3] where x: FP32[?,3,2]")
    );
    let mapped = decide(&nested, &[spec("x", DataType::Fp32, &[-1, -1, 2])])
        .expect("a column")
        .tensors(&nested);
    assert_eq!(mapped.rows, [0, 1]);
    let two_free = decide(&nested, &[spec("x", DataType::Fp32, &[-1, -1, -1])]).expect("a column");
    assert!(
        two_free.tensors(&nested).problems[0]
            .message
            .contains("nest the lists")
    );
}

#[test]
fn typed_lists_are_copied_and_a_null_in_one_is_found() {
    let values = Float64Array::from(vec![
        Some(0.0),
        Some(1.5),
        Some(2.5),
        None,
        Some(4.0),
        Some(1e300),
    ]);
    let item = Arc::new(arrow_schema::Field::new_list_field(
        arrow_schema::DataType::Float64,
        true,
    ));
    let lists = FixedSizeListArray::try_new(item, 2, Arc::new(values), None).expect("pairs");
    let all = records(vec![("x", Arc::new(lists))]);
    let specs = [spec("x", DataType::Fp32, &[-1, 2])];
    let mapping = decide(&all, &specs).expect("a column");
    let mapped = mapping.tensors(&all);
    assert_eq!(floats(&mapped.tensors[0]), [0.0, 1.5]);
    assert!(mapped.problems[0].message.contains("null"));
    assert!(mapped.problems[1].message.contains("1e300 is beyond FP32"));
    // A slice has its own first row.
    let tail = Records {
        first_row: 1,
        batch: all.batch.slice(1, 2),
        problems: Vec::new(),
    };
    assert_eq!(mapping.tensors(&tail).problems.len(), 2);
    let list = ListArray::from_iter_primitive::<Float32Type, _, _>([
        Some(vec![Some(1.0), Some(2.0)]),
        None,
        Some(vec![Some(3.0)]),
    ]);
    let ragged = records(vec![("x", Arc::new(list))]);
    let mapped = decide(&ragged, &specs).expect("a column").tensors(&ragged);
    assert_eq!(mapped.rows, [0]);
    assert!(
        mapped.problems[1].message.contains("[1]"),
        "{}",
        mapped.problems[1].message
    );
}

#[test]
fn columns_of_other_types_are_refused_at_once() {
    let dates: ArrayRef = Arc::new(arrow_array::Date32Array::from(vec![1]));
    let table = records(vec![("x", dates)]);
    let error = decide_with(&table, &[spec("x", DataType::Fp32, &[-1])], &["x=x"], &[]);
    assert!(
        error
            .expect_err("a date")
            .to_string()
            .contains("column `x` is Date32")
    );
    let number = records(vec![("x", Arc::new(Int64Array::from(vec![1])))]);
    let error = decide_with(&number, &[spec("x", DataType::Bytes, &[-1])], &["x=x"], &[]);
    assert!(
        error
            .expect_err("a number")
            .to_string()
            .contains("does not become BYTES")
    );
}

#[test]
fn a_column_is_what_most_of_its_cells_are() {
    let table = records(vec![
        ("name", text(&["a", "7", "c", "d"])),
        ("x", text(&["1", "n/a", "", "2"])),
        ("y", text(&["n/a", "5", "6", "\"NaN\""])),
    ]);
    let mapping = decide(&table, &[spec("in", DataType::Fp32, &[-1, 2])]).expect("two numbers");
    let mapped = mapping.tensors(&table);
    assert_eq!(mapping.describe().inputs[0].columns, ["x", "y"]);
    assert!(mapped.rows.is_empty() && mapped.problems.len() == 4);
    let mapping = decide(&table, &[spec("in", DataType::Bytes, &[-1])]).expect("one text");
    assert_eq!(mapping.describe().inputs[0].columns, ["name"]);
}
