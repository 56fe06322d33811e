//! Models of all kinds: copied in while running, and those whose rows must not be mixed.

use std::path::Path;

use anyhow::{Context, Result};
use futures::{StreamExt, stream};
use inferq::stack::{Stack, StackOptions};
use inferq_engine::{LoadLimits, Model, Tensor};
use inferq_integration::{PATIENCE, digits, fixtures, job, plain, start};
use serde_json::Value;

#[tokio::test]
async fn a_model_copied_in_serves_jobs_without_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fixtures::add_digits(folder.path(), "digits")?;
    let stack = start(StackOptions {
        workers: 2,
        ..StackOptions::new(folder.path())
    })
    .await?;
    fixtures::add_digits(folder.path(), "newcomer")?;
    let image = &digits::held_out()?[0];
    let nats = stack.client().nats();
    // A plain client needs not know when: its job waits until the model is there.
    let served = async {
        loop {
            if let Ok(submitted) = stack
                .client()
                .submit(job("newcomer", image.row_request()))
                .await
            {
                return stack.client().wait(&submitted, PATIENCE).await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, served)
        .await
        .context("never served")??;
    assert!(outcome.is_ok(), "{}", outcome.text());
    let answer = plain::request(nats, "infer.rpc.newcomer", &[], image.row_request()).await?;
    assert_eq!(answer.json()?["predictions"][0]["label"], image.label);
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_broken_model_disturbs_no_other() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fixtures::add_digits(folder.path(), "digits")?;
    fixtures::add_model(folder.path(), "broken", "unknown_operator.onnx")?;
    let expect = Some(vec![inferq::ModelName::new("digits")?]);
    let stack = start(StackOptions {
        expect,
        ..StackOptions::new(folder.path())
    })
    .await?;
    let image = &digits::held_out()?[0];
    let answer = plain::request(
        stack.client().nats(),
        "infer.rpc.digits",
        &[],
        image.row_request(),
    )
    .await?;
    assert_eq!(answer.json()?["predictions"][0]["label"], image.label);
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn dense_parts_on_a_card_give_the_same_labels_and_the_outcome_says_where() -> Result<()> {
    let stack = start(StackOptions {
        worker_args: ["--gpu", "force"].map(str::to_owned).to_vec(),
        ..StackOptions::new(inferq_integration::models_folder())
    })
    .await
    .context("needs a graphics card or Mesa's software Vulkan; deploy/setup.sh installs it")?;
    let images = &digits::held_out()?[..40];
    for (image, expected) in images.iter().zip(digits::expected(images)?) {
        let request = || job("digits", image.tensor_request());
        let first = stack.client().call(request()).await?.response()?;
        let again = stack.client().call(request()).await?.response()?;
        let device = &first.parameters.device;
        assert!(device.starts_with("gpu:"), "{device}");
        assert_eq!(again.parameters.device, *device, "a cached answer too");
        assert_eq!(first.outputs, again.outputs);
        let label = first.outputs.iter().find(|output| output.name == "label");
        let label = label.context("a label")?.data.first().copied();
        assert_eq!(label.map(i64::from), digits::best(&expected));
    }
    Ok(stack.stop().await?)
}

/// What 64 callers at once ask of a model without batch proof, each with a body of its own.
async fn asked_by_many(model: &str, file: &str, rows: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    fixtures::add_model(folder.path(), model, file)?;
    let stack = start(StackOptions {
        workers: 2,
        ..StackOptions::new(folder.path())
    })
    .await?;
    let path = folder.path().join(model).join("1/model.onnx");
    let calls = stream::iter(0..64).map(|caller| one_caller(&stack, &path, model, rows, caller));
    let answered: Vec<Result<()>> = calls.buffer_unordered(64).collect().await;
    for answer in answered {
        answer?;
    }
    Ok(stack.stop().await?)
}

async fn one_caller(
    stack: &Stack,
    path: &Path,
    model: &str,
    rows: usize,
    caller: u16,
) -> Result<()> {
    let columns = fixtures::columns(
        path.parent()
            .and_then(Path::parent)
            .and_then(Path::parent)
            .context("a folder")?,
        model,
    )?;
    let values: Vec<f32> = (0..rows * columns)
        .map(|place| f32::from(caller) / 7.0 - place as f32 / 3.0)
        .collect();
    let expected = alone(path, &[rows, columns], &values)?;
    let (specs, _) = specs(path)?;
    let input = serde_json::json!({ "name": specs, "datatype": "FP32", "shape": [rows, columns], "data": values });
    let answer = stack
        .client()
        .call(job(
            model,
            serde_json::json!({ "inputs": [input] }).to_string(),
        ))
        .await?;
    let json = answer.json().context("JSON")?;
    anyhow::ensure!(answer.is_ok(), "{json}");
    let data = json["outputs"][0]["data"].as_array().context("data")?;
    let data: Vec<f32> = data
        .iter()
        .filter_map(Value::as_f64)
        .map(|value| value as f32)
        .collect();
    assert_eq!(data, expected, "caller {caller}");
    Ok(())
}

fn specs(path: &Path) -> Result<(String, usize)> {
    let model = inferq_engine::load_file(path, &LoadLimits::default())?;
    Ok((model.inputs()[0].name.clone(), model.outputs().len()))
}

/// What the engine says when nobody else is there.
fn alone(path: &Path, shape: &[usize], values: &[f32]) -> Result<Vec<f32>> {
    let model = inferq_engine::load_file(path, &LoadLimits::default())?;
    anyhow::ensure!(
        !model.batch_proof().is_proven(),
        "this model may be batched, so it tests nothing"
    );
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let input = Tensor::stack(model.inputs()[0].element, shape, &[&bytes])?;
    let outputs = model.session()?.run(vec![input])?;
    let bytes = outputs[0].bytes();
    let (values, _) = bytes.as_chunks::<4>();
    Ok(values
        .iter()
        .map(|value| f32::from_le_bytes(*value))
        .collect())
}

#[tokio::test]
async fn softmax_over_the_rows_is_right_under_many_callers() -> Result<()> {
    asked_by_many("softmax", "softmax_axis0.onnx", 3).await
}

#[tokio::test]
async fn mean_over_the_rows_is_right_under_many_callers() -> Result<()> {
    asked_by_many("mean", "mean_axis0.onnx", 5).await
}

#[tokio::test]
async fn a_fixed_number_of_rows_is_right_under_many_callers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fixtures::add_model(folder.path(), "fixed", "fixed_batch.onnx")?;
    let rows = fixtures::rows(folder.path(), "fixed")?;
    asked_by_many("fixed", "fixed_batch.onnx", rows).await
}

#[tokio::test]
async fn an_output_without_rows_is_right_under_many_callers() -> Result<()> {
    asked_by_many("sum", "sum_without_batch.onnx", 4).await
}
