//! Answers that are known are not computed again: whole jobs, single rows, across workers.

use anyhow::{Context, Result};
use inferq::stack::{RedisChoice, Stack, StackOptions};
use inferq_integration::digits::{self, Digit};
use inferq_integration::{PATIENCE, fixtures, job, models_folder, start};
use serde_json::Value;

async fn with_redis(workers: usize) -> Result<Stack> {
    let stack = start(StackOptions {
        workers,
        redis: RedisChoice::Auto,
        ..StackOptions::new(models_folder())
    })
    .await?;
    assert!(
        stack.redis().is_some(),
        "redis-server is missing; deploy/setup.sh installs it"
    );
    Ok(stack)
}

/// Parameters and first output of a job with these rows.
async fn parameters(stack: &Stack, digits: &[Digit]) -> Result<(Value, Value)> {
    let submitted = stack
        .client()
        .submit(job("digits", digits::tensor_request(digits)))
        .await?;
    let outcome = stack.client().wait(&submitted, PATIENCE).await?;
    let json = outcome.json().context("JSON")?;
    assert!(outcome.is_ok(), "{json}");
    Ok((json["parameters"].clone(), json["outputs"].clone()))
}

#[tokio::test]
async fn the_same_job_again_is_a_hit_with_the_same_answer() -> Result<()> {
    let stack = with_redis(1).await?;
    let digits = digits::held_out()?;
    let (first, answer) = parameters(&stack, &digits[..1]).await?;
    let (second, again) = parameters(&stack, &digits[..1]).await?;
    assert_eq!(
        (&first["cache"], &second["cache"]),
        (&"miss".into(), &"hit".into())
    );
    assert_eq!(answer, again);
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn of_thirty_two_rows_with_thirty_one_known_one_is_computed() -> Result<()> {
    let stack = with_redis(1).await?;
    let digits = digits::held_out()?;
    let (known, _) = parameters(&stack, &digits[..31]).await?;
    assert_eq!(known["batch_rows"], 31);
    let (mixed, outputs) = parameters(&stack, &digits[..32]).await?;
    assert_eq!(
        (&mixed["batch_rows"], &mixed["cache"]),
        (&1.into(), &"miss".into())
    );
    let expected = digits::expected(&digits[..32])?.concat();
    let probabilities = outputs
        .as_array()
        .context("outputs")?
        .iter()
        .find(|output| output["name"] == "probabilities");
    let answered = probabilities.context("probabilities")?["data"]
        .as_array()
        .context("data")?;
    let answered: Vec<f32> = answered
        .iter()
        .filter_map(Value::as_f64)
        .map(|value| value as f32)
        .collect();
    assert_eq!(answered, expected);
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn answers_one_worker_computed_are_hits_at_another() -> Result<()> {
    let stack = with_redis(1).await?;
    let digits = digits::held_out()?;
    let digits = &digits[..20];
    for digit in digits {
        parameters(&stack, std::slice::from_ref(digit)).await?;
    }
    // The cache is written beside the answer, not before it.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let first = stack.worker(0).context("worker 0")?;
    stack.start_worker().await?;
    stack.wait_ready(PATIENCE).await?;
    first.terminate();
    first.wait(PATIENCE).await.context("it drains")?;
    let mut hits = 0;
    for digit in digits {
        let (parameters, _) = parameters(&stack, std::slice::from_ref(digit)).await?;
        hits += usize::from(parameters["cache"] == "hit");
    }
    // A lookup that takes over 5 ms counts as a miss, which a busy machine may cause now and then.
    assert!(hits >= digits.len() / 2, "{hits} hits of {}", digits.len());
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_job_that_asks_for_no_cache_is_computed() -> Result<()> {
    let stack = with_redis(1).await?;
    let digits = digits::held_out()?;
    parameters(&stack, &digits[..1]).await?;
    let submitted = stack
        .client()
        .submit(job("digits", digits[0].tensor_request()).no_cache())
        .await?;
    let outcome = stack.client().wait(&submitted, PATIENCE).await?;
    assert_eq!(
        outcome.json().context("JSON")?["parameters"]["cache"],
        "miss"
    );
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn redis_down_costs_hits_but_no_job() -> Result<()> {
    let stack = with_redis(2).await?;
    let digits = digits::held_out()?;
    parameters(&stack, &digits[..8]).await?;
    stack.redis().context("a Redis")?.kill().await;
    for digit in &digits[..40] {
        parameters(&stack, std::slice::from_ref(digit)).await?;
    }
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn redis_that_was_never_there_costs_no_job() -> Result<()> {
    let nowhere = RedisChoice::Url("redis://127.0.0.1:9".to_owned());
    let stack = start(StackOptions {
        redis: nowhere,
        ..StackOptions::new(models_folder())
    })
    .await?;
    parameters(&stack, &digits::held_out()?[..8]).await?;
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_model_without_batch_proof_is_cached_as_a_whole() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fixtures::add_model(folder.path(), "mean", "mean_axis0.onnx")?;
    let stack = start(StackOptions::new(folder.path())).await?;
    let ask = async |rows: Value| -> Result<Value> {
        let submitted = stack
            .client()
            .submit(job(
                "mean",
                serde_json::json!({ "inputs": rows }).to_string(),
            ))
            .await?;
        let outcome = stack.client().wait(&submitted, PATIENCE).await?;
        anyhow::ensure!(outcome.is_ok(), "{}", outcome.text());
        Ok(outcome.json().context("JSON")?["outputs"].clone())
    };
    let columns = inferq_integration::fixtures::columns(folder.path(), "mean")?;
    let row = |value: f32| vec![value; columns];
    let two = ask(serde_json::json!([row(1.0), row(3.0)])).await?;
    // A row of the job before, alone: its mean is its own.
    let one = ask(serde_json::json!([row(3.0)])).await?;
    assert_ne!(two, one);
    assert_eq!(ask(serde_json::json!([row(1.0), row(3.0)])).await?, two);
    Ok(stack.stop().await?)
}
