//! A thousand jobs in a window, their outcomes as they come: `cargo run --example many_jobs`.

use std::error::Error;

use futures::{StreamExt, stream};
use inferq::{Client, Job, ModelName};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("INFERQ_NATS").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned());
    let client = Client::connect(&url).await?;
    let model: ModelName = "digits".parse()?;
    let jobs = (0..1_000).map(|n| {
        let image = vec![(n % 17) as f32; 64];
        Job::new(model.clone(), serde_json::json!({ "instances": [image] }))
    });

    // A full queue is waited for, so this submits as fast as the workers can follow.
    let mut submitted = std::pin::pin!(client.submit_many(stream::iter(jobs)));
    let mut ids = Vec::new();
    while let Some(job) = submitted.next().await {
        ids.push(job?.id);
    }

    // The outcomes are kept for a day; read them now, 32 at a time.
    let outcomes =
        stream::iter(&ids).map(|id| client.result(id, std::time::Duration::from_secs(60)));
    let outcomes: Vec<_> = outcomes.buffered(32).collect().await;
    let mut answered = 0;
    for outcome in outcomes {
        answered += usize::from(outcome?.is_ok());
    }
    println!("{answered} of {} jobs were answered", ids.len());
    client.close().await;
    Ok(())
}
