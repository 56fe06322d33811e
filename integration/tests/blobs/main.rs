//! Bodies too large for a message: they travel beside it, both ways, and are never taken for another.

mod crash;
mod memory;
mod plain_clients;
mod purge;
mod refused;
mod replay;
mod round_trip;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use async_nats::jetstream::object_store::ObjectStore;
use futures::TryStreamExt;
use inferq::stack::{Stack, StackOptions};
use inferq::{Client, InferRequest, Job, ModelName, Outcome};
use inferq_integration::{PATIENCE, fixtures, start};
use inferq_schemas::blob::BlobRecord;
use inferq_schemas::{Inputs, Tensor};

/// The bucket that bodies are in.
pub(crate) const BUCKET: &str = "infer_blobs";
/// Values of 4 bytes that are too many for a message of 1 MiB.
pub(crate) const LARGE: usize = 500_000;

/// A stack with the model `pass`, which hands on what it is given.
pub(crate) async fn passing(folder: &Path, workers: usize) -> Result<Stack> {
    fixtures::add_passing(folder, "pass")?;
    start(StackOptions {
        workers,
        ..StackOptions::new(folder)
    })
    .await
}

pub(crate) fn model() -> Result<ModelName> {
    Ok(ModelName::new("pass")?)
}

/// Positive numbers, which no two seeds have in common.
pub(crate) fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count)
        .map(|n| (n % 997 + seed * 1_000) as f32)
        .collect()
}

/// One row of `values`.
pub(crate) fn request(values: &[f32]) -> Result<InferRequest> {
    let row = Tensor::from_f32("x", vec![1, values.len()], values)?;
    Ok(InferRequest::new(Inputs::Tensors(vec![row])))
}

pub(crate) fn large_job(seed: usize) -> Result<Job> {
    Ok(Job::new(model()?, request(&numbers(LARGE, seed))?))
}

/// Whether `outcome` is the answer to [`large_job`].
pub(crate) fn check(outcome: &Outcome, seed: usize) -> Result<()> {
    ensure!(outcome.is_ok(), "{}", outcome.text());
    let response = outcome.response()?;
    let output = response.outputs.first().context("one output")?;
    ensure!(output.to_f32()? == numbers(LARGE, seed), "another answer");
    Ok(())
}

pub(crate) async fn bucket(client: &Client) -> Result<ObjectStore> {
    let jetstream = jetstream::new(client.nats().clone());
    Ok(jetstream.get_object_store(BUCKET).await?)
}

/// The names of all objects. The client's own listing waits for ever for one that is deleted meanwhile.
pub(crate) async fn objects(client: &Client) -> Result<Vec<String>> {
    let jetstream = jetstream::new(client.nats().clone());
    let stream = jetstream.get_stream("OBJ_infer_blobs").await?;
    let mut subjects = stream.info_with_subjects("$O.infer_blobs.M.>").await?;
    let mut names = Vec::new();
    while let Some((subject, _)) = subjects.try_next().await? {
        if let Ok(message) = stream.direct_get_last_for_subject(subject).await {
            let record = BlobRecord::decode(&message.payload).context("a record")?;
            names.extend((!record.deleted).then_some(record.name));
        }
    }
    Ok(names)
}

/// Waits until there are so many objects, and returns their names.
pub(crate) async fn wait_for_objects(client: &Client, count: usize) -> Result<Vec<String>> {
    let begun = Instant::now();
    loop {
        let names = objects(client).await?;
        if names.len() == count {
            return Ok(names);
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "{count} expected, there are {names:?}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
