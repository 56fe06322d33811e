//! Requests, the errors they can end in, and a job that is safe to send twice:
//! `cargo run --example errors`.

use std::error::Error;

use inferq::{CallError, Client, ErrorCode, Job, SubmitError};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("INFERQ_NATS").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned());
    let client = Client::connect(&url).await?;
    let request = |model: &str, image: Vec<f32>| -> Result<Job, inferq::NameError> {
        Ok(Job::new(model.parse()?, json!({ "instances": [image] })))
    };

    let answer = client.call(request("digits", vec![0.0; 64])?).await?;
    println!("answered: {}", answer.is_ok());

    // The input does not fit: the message names the place, and trying again cannot help.
    match client.call(request("digits", vec![0.0; 3])?).await {
        Err(CallError::Failed(failure)) => println!("{}: {}", failure.code, failure.message),
        other => println!("unexpected: {other:?}"),
    }

    // A misspelt model is refused before anything is sent.
    if let Err(error) = client.call(request("digit", vec![0.0; 64])?).await {
        println!("{}: {error}", error.code());
    }

    // The same key is the same job, so a program that is not sure may simply send it again.
    let order = |value: f32| {
        Ok::<_, inferq::NameError>(request("digits", vec![value; 64])?.key("order 17"))
    };
    let first = client.submit(order(1.0)?).await?;
    let again = client.submit(order(1.0)?).await?;
    println!(
        "queued twice, the same job: {}",
        first.id == again.id && again.duplicate
    );
    match client.submit(order(2.0)?).await {
        Err(error @ SubmitError::Conflict { .. }) => println!("{}: {error}", error.code()),
        other => println!("unexpected: {other:?}"),
    }

    // What to do is the same for every error of one code.
    let advice = |code: ErrorCode| match code {
        ErrorCode::Overloaded | ErrorCode::Unavailable | ErrorCode::Deadline => "try again later",
        ErrorCode::BadInput | ErrorCode::TooLarge => "mend the request",
        ErrorCode::NotFound => "look for the right name",
        ErrorCode::Conflict => "take a new id",
        ErrorCode::Model => "look at the dead letter",
    };
    println!("429 means: {}", advice(ErrorCode::Overloaded));
    client.close().await;
    Ok(())
}
