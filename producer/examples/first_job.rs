//! A durable job and its outcome: `cargo run --example first_job`, beside `inferq up`.

use std::{error::Error, time::Duration};

use inferq::{Client, Job};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("INFERQ_NATS").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned());
    let client = Client::connect(&url).await?;

    let image = vec![0.0_f32; 64];
    let job = Job::new(
        "digits".parse()?,
        serde_json::json!({ "instances": [image] }),
    )
    .timeout(Duration::from_secs(60));
    let submitted = client.submit(job).await?;
    println!("queued as {} in {}", submitted.id, submitted.stream);

    let outcome = client.wait(&submitted, Duration::from_secs(60)).await?;
    println!("{}: {}", outcome.status(), outcome.text());

    // Sends what is still buffered. A program that only reads may simply end.
    client.close().await;
    Ok(())
}
