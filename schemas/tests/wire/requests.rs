//! What a request may say in JSON, and what its sender hears if it says something else.

use bytes::Bytes;
use inferq_schemas::{
    ContentType, DataType, Dim, ErrorCode, Form, InferRequest, Limits, Parameter, Tensor,
    TensorSpec,
};
use serde_json::{Value, json};

fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
    let dim = |size: &i64| usize::try_from(*size).map_or(Dim::Any, Dim::Fixed);
    TensorSpec {
        name: name.to_owned(),
        datatype,
        shape: shape.iter().map(dim).collect(),
    }
}

/// The model of handwritten digits: one input of 64 pixels.
fn digits() -> Vec<TensorSpec> {
    vec![spec("pixels", DataType::Fp32, &[-1, 64])]
}

/// A model with two inputs.
fn people() -> Vec<TensorSpec> {
    vec![
        spec("age", DataType::Int64, &[-1]),
        spec("city", DataType::Bytes, &[-1]),
    ]
}

fn decode(body: &Value) -> Result<InferRequest, String> {
    let body = Bytes::from(body.to_string());
    InferRequest::decode(&body, None, &Limits::default())
        .map(|decoded| decoded.request)
        .map_err(|error| error.to_string())
}

fn resolve(body: &Value, specs: &[TensorSpec]) -> Result<Vec<Tensor>, String> {
    decode(body)?
        .into_tensors(specs, &Limits::default())
        .map_err(|error| error.to_string())
}

fn refusal(body: &Value, specs: &[TensorSpec]) -> String {
    resolve(body, specs).expect_err("it is refused")
}

#[test]
fn rows_of_one_input_may_be_bare_or_named() {
    let row = vec![0.5; 64];
    let bare = resolve(&json!({"instances": [row, row]}), &digits()).expect("it fits");
    let named = json!({"instances": [{"pixels": row}, {"pixels": row}]});
    assert_eq!(resolve(&named, &digits()), Ok(bare.clone()));
    assert_eq!(bare[0].shape, [2, 64]);
    assert_eq!(bare[0].to_f32().expect("FP32"), vec![0.5; 128]);
}

#[test]
fn rows_and_columns_of_several_inputs_give_the_same_tensors() {
    let rows = json!({"instances": [{"age": 41, "city": "Oslo"}, {"city": {"b64": "QmVybg=="}, "age": 19}]});
    let columns = json!({"inputs": {"city": ["Oslo", "Bern"], "age": [41, 19]}});
    let tensors = json!({"inputs": [
        {"name": "city", "datatype": "BYTES", "shape": [2], "data": ["Oslo", "Bern"]},
        {"data": [41, 19], "shape": [2], "datatype": "INT64", "name": "age"}]});
    let expected = resolve(&rows, &people()).expect("it fits");
    assert_eq!(expected[1].to_strings().expect("text"), ["Oslo", "Bern"]);
    assert_eq!(resolve(&columns, &people()), Ok(expected.clone()));
    assert_eq!(resolve(&tensors, &people()), Ok(expected));
}

#[test]
fn a_list_whose_first_item_has_no_name_is_a_column() {
    for (inputs, form) in [
        (json!([[1, 2]]), Form::Columns),
        (json!([{"b64": "AA=="}]), Form::Columns),
        (json!({"x": [1]}), Form::Columns),
        (json!(1), Form::Columns),
        (json!([]), Form::Tensors),
        (
            json!([{"name": "x", "datatype": "INT8", "shape": [], "data": 1}]),
            Form::Tensors,
        ),
    ] {
        let request = decode(&json!({"inputs": inputs})).expect("readable");
        assert_eq!(request.inputs.form(), form, "{inputs}");
    }
    let text = [spec("s", DataType::Bytes, &[-1])];
    let column = resolve(&json!({"inputs": [{"b64": "YQ=="}]}), &text).expect("it fits");
    assert_eq!(column[0].to_strings().expect("text"), ["a"]);
}

#[test]
fn each_wrong_row_is_named() {
    let (good, short) = (vec![0.0; 64], vec![0.0; 63]);
    assert_eq!(
        refusal(&json!({"instances": [short, good, short]}), &digits()),
        "instances[0]: 63 values, the model's input `pixels` takes 64; \
         instances[2]: 63 values, the model's input `pixels` takes 64"
    );
    assert_eq!(
        refusal(&json!({"instances": [{"pixels": short}]}), &digits()),
        "instances[0].pixels: 63 values, the model's input `pixels` takes 64"
    );
    assert_eq!(
        refusal(&json!({"instances": [1, [[1]]]}), &digits()),
        "instances[0]: one value, the model's input `pixels` takes 64; \
         instances[1]: shape [1,1], the model's input `pixels` takes [64]"
    );
    let people = refusal(
        &json!({"instances": [{"age": 1.5, "city": "a"}, {"age": 1, "citty": "b"}, 3]}),
        &people(),
    );
    assert_eq!(
        people,
        "instances[0].age: 1.5 is not a whole number, which INT64 takes; \
         instances[1]: the model has no input `citty`; did you mean `city`?; \
         instances[1]: the model's input `city` is missing; \
         instances[2]: a number where an object with the model's inputs (age, city) is expected"
    );
}

#[test]
fn many_problems_are_counted() {
    let rows = vec![json!([1]); 100];
    let message = refusal(&json!({"instances": rows}), &digits());
    assert!(message.ends_with("; and 56 more"), "{message}");
}

#[test]
fn rows_of_a_free_axis_must_agree() {
    let ragged = [spec("x", DataType::Fp32, &[-1, -1])];
    assert_eq!(
        refusal(&json!({"instances": [[1, 2], [3]]}), &ragged),
        "instances[1]: shape [1], but instances[0] has [2]"
    );
    assert_eq!(
        refusal(&json!({"instances": [[]]}), &ragged),
        "instances[0]: 0 values, the model's input `x` takes ?"
    );
    let two = [spec("x", DataType::Fp32, &[2])];
    assert_eq!(
        refusal(&json!({"instances": [1, 2, 3]}), &two),
        "instances: 3 rows, the model's input `x` takes [2]"
    );
    let scalar = [spec("x", DataType::Fp32, &[])];
    assert_eq!(
        refusal(&json!({"instances": [1]}), &scalar),
        "instances: the model's input `x` has no rows; send `inputs` instead"
    );
}

#[test]
fn wrong_columns_are_named() {
    assert_eq!(
        refusal(&json!({"inputs": {"age": [[1]], "citi": ["a"]}}), &people()),
        "inputs: the model has no input `citi`; did you mean `city`?; \
         inputs.age: shape [1,1], the model's input `age` takes [?]; \
         inputs: the model's input `city` is missing"
    );
    assert_eq!(
        refusal(&json!({"inputs": [1, 2]}), &people()),
        "inputs: a list where an object with the model's inputs (age, city) is expected"
    );
    assert_eq!(
        refusal(&json!({"inputs": {"pixels": [[1], [1, 2]]}}), &digits()),
        "inputs.pixels[1]: 2 values where the first list there has 1"
    );
}

#[test]
fn wrong_tensors_are_named() {
    let tensor = |name, datatype, shape: &[i64], data: Value| json!({"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}]});
    let cases = [
        (
            tensor("pixels", "FP32", &[1, 64], json!(vec![0; 63])),
            "inputs[0].data: 63 values for shape [1,64]",
        ),
        (
            tensor("pixels", "FP32", &[2, 2], json!([[1, 2], [3]])),
            "inputs[0].data[1]: 1 values where the first list there has 2",
        ),
        (
            tensor("pixels", "FP32", &[1, 63], json!(vec![0; 63])),
            "inputs[0].shape: [1,63], the model's input `pixels` takes [?,64]",
        ),
        (
            tensor("pixels", "FP32", &[0, 64], json!([])),
            "inputs[0].shape: [0,64], the model's input `pixels` takes [?,64]",
        ),
        (
            tensor("pixel", "FP32", &[1, 64], json!(vec![0; 64])),
            "inputs[0].name: the model has no input `pixel`; did you mean `pixels`?; \
             inputs: the model's input `pixels` is missing",
        ),
        (
            tensor("pixels", "BYTES", &[1, 64], json!(vec![""; 64])),
            "inputs[0].datatype: BYTES, the model's input `pixels` takes FP32",
        ),
        (
            tensor("pixels", "FP64", &[1, 64], json!(vec![0.1; 64])),
            "inputs[0].data[0]: 0.1 is not exactly FP32; the model's input `pixels` takes FP32",
        ),
        (
            tensor("pixels", "float", &[1], json!([1])),
            "inputs[0].datatype: `float` is not a datatype: it must be BOOL, UINT8-64, INT8-64, \
             FP16, BF16, FP32, FP64 or BYTES (in capitals)",
        ),
        (
            tensor("pixels", "FP32", &[-1, 64], json!([1])),
            "inputs[0].shape[0]: a number where a whole number from 0 is expected",
        ),
        (
            tensor("pixels", "FP32", &[1; 9], json!([1])),
            "inputs[0].shape: more than 8 items",
        ),
        (
            tensor("pixels", "FP32", &[1 << 40], json!([1])),
            "inputs[0].shape: [1099511627776] has more than 2147483647 elements",
        ),
        (
            tensor("pixels", "FP32", &[i64::MAX, i64::MAX, 0], json!([])),
            "inputs[0].shape: [9223372036854775807,9223372036854775807,0] has more than 2147483647 elements",
        ),
        (
            json!({"inputs": [{"name": "a", "datatype": "INT8", "shape": []}, {"name": 3}]}),
            "inputs[0]: `data` is missing; inputs[1].name: a number where text is expected",
        ),
        (
            json!({"inputs": [{"name": "x", "datatype": "INT8", "shape": [], "data": 1},
                              {"name": "x", "datatype": "INT8", "shape": [], "data": 1}]}),
            "inputs[1].name: `x` is given twice",
        ),
    ];
    for (body, message) in cases {
        assert_eq!(refusal(&body, &digits()), message, "{body}");
    }
}

#[test]
fn a_request_is_refused_as_a_whole_where_it_must_be() {
    for (body, message) in [
        ("{}", "Missing 'inputs' or 'instances' key"),
        (
            r#"{"instances":[1],"inputs":[1]}"#,
            "`instances` and `inputs` are both given; send one of them",
        ),
        (
            r#"{"instances":[]}"#,
            "instances: an empty list; send at least one row",
        ),
        (
            r#"{"instances":1}"#,
            "instances: must be a list with one item per row",
        ),
        (
            r#"{"instances":[1],"instances":[2]}"#,
            "instances: given twice",
        ),
        (
            r#"{"inputs":[1],"id":1}"#,
            "id: a number where text is expected",
        ),
        (
            r#"{"inputs":[1],"parameters":{"a":null}}"#,
            "parameters.a: null where text, true, false, or a number that fits 64 bits, is expected",
        ),
        (
            r#"{"inputs":[1],"parameters":{"a":18446744073709551615}}"#,
            "parameters.a: a number where text, true, false, or a number that fits 64 bits, is expected",
        ),
        (
            r#"{"inputs":[1],"outputs":["y",{"name":"y"}]}"#,
            "outputs[1]: `y` is asked for twice",
        ),
    ] {
        let body = Bytes::from_static(body.as_bytes());
        let error = InferRequest::decode(&body, None, &Limits::default()).expect_err("refused");
        assert_eq!(error.to_string(), message);
        assert_eq!(error.code, ErrorCode::BadInput);
    }
}

#[test]
fn text_that_is_not_json_is_refused_with_the_place() {
    for body in [
        r#"{"inputs":[1}"#,
        "{",
        "[1]",
        r#"{"inputs":[NaN]}"#,
        "{} x",
        "",
        "nothing",
    ] {
        let body = Bytes::from_static(body.as_bytes());
        let decoded = InferRequest::decode(&body, Some(ContentType::Json), &Limits::default());
        let message = decoded.expect_err("refused").to_string();
        assert!(message.starts_with("not a JSON object: "), "{message}");
        assert!(message.contains("line 1 column"), "{message}");
    }
}

#[test]
fn members_that_other_servers_know_are_passed_over() {
    let request = decode(&json!({
        "model_name": "digits", "signature_name": "serving_default", "id": null, "outputs": null,
        "parameters": null,
        "inputs": [{"name": "x", "datatype": "INT8", "shape": [1], "data": [1], "parameters": {"a": 1}}],
    }))
    .expect("tolerated");
    assert_eq!((request.id, request.outputs.len()), (None, 0));
}

#[test]
fn id_outputs_and_parameters_come_through() {
    let request = decode(&json!({
        "inputs": [1], "id": "r", "outputs": [{"name": "y", "parameters": {}}, "z"],
        "parameters": {"a": 1, "b": 1.0, "c": true, "d": "x", "e": -5},
    }))
    .expect("readable");
    assert_eq!(request.id.as_deref(), Some("r"));
    assert_eq!(request.outputs, ["y", "z"]);
    let values: Vec<Parameter> = request.parameters.into_values().collect();
    let text = Parameter::String("x".to_owned());
    let expected = [
        Parameter::Int(1),
        Parameter::Float(1.0),
        Parameter::Bool(true),
        text,
        Parameter::Int(-5),
    ];
    assert_eq!(values, expected);
}

#[test]
fn datatypes_change_only_where_no_value_does() {
    let ints = json!({"inputs": [{"name": "pixels", "datatype": "INT64", "shape": [1, 64], "data": vec![7; 64]}]});
    let tensors = resolve(&ints, &digits()).expect("7 is an FP32");
    assert_eq!(tensors[0].datatype, DataType::Fp32);
    assert_eq!(tensors[0].to_f32().expect("FP32"), vec![7.0; 64]);
    let large = json!({"inputs": [{"name": "pixels", "datatype": "INT64", "shape": [1, 64], "data": vec![16_777_217; 64]}]});
    assert_eq!(
        refusal(&large, &digits()),
        "inputs[0].data[0]: 16777217 is not exactly FP32; the model's input `pixels` takes FP32"
    );
}

#[test]
fn integers_keep_64_bits_in_every_form() {
    let model = [spec("n", DataType::Uint64, &[-1])];
    let expected = u64::MAX.to_le_bytes();
    for body in [
        r#"{"instances":[18446744073709551615]}"#,
        r#"{"inputs":[18446744073709551615]}"#,
        r#"{"inputs":[{"name":"n","shape":[1],"datatype":"UINT64","data":[18446744073709551615]}]}"#,
    ] {
        let body = serde_json::from_str(body).expect("JSON");
        assert_eq!(
            resolve(&body, &model).expect("it fits")[0].data,
            expected[..]
        );
    }
}
