//! 200 MB there and back, several at once, through a worker that holds one of them at a time.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use inferq::stack::StackOptions;
use inferq::{AssetPlan, ByteSize, Job};
use inferq_integration::memory::peak;
use inferq_integration::{fixtures, start};

use crate::{model, request};

/// Values of one tensor: 200 MB.
const VALUES: usize = 50_000_000;
const BYTES: usize = VALUES * 4;
/// Jobs sent at the same time.
const JOBS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn three_tensors_of_200_mb_at_once_come_back_and_are_in_memory_one_after_the_other()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    fixtures::add_passing(folder.path(), "pass")?;
    let stack = start(StackOptions {
        plan: AssetPlan {
            blobs_bytes: ByteSize::mib(2_048),
            ..AssetPlan::default()
        },
        worker_args: ["--max-inflight-bytes", "256MiB", "--executors", "2"]
            .map(str::to_owned)
            .to_vec(),
        ..StackOptions::new(folder.path())
    })
    .await?;
    let client = stack.client();
    let pid = stack.worker(0).context("one worker")?.pid();
    let before = peak(pid)?;
    let values: Vec<f32> = (0..VALUES).map(|n| (n % 10_007) as f32).collect();
    let body = request(&values)?.encode(inferq::ContentType::Cbor)?;
    drop(values);
    let one = |n: usize| {
        let job = Job::new(model()?, body.clone()).key(format!("job {n}"));
        anyhow::Ok(async move {
            let outcome = client.run(job).await?;
            ensure!(outcome.is_ok(), "{}", outcome.text());
            let response = outcome.response()?;
            let output = response.outputs.first().context("one output")?;
            ensure!(output.data.len() == BYTES, "{} bytes", output.data.len());
            let (floats, _) = output.data.as_chunks::<4>();
            let mut floats = floats.iter().map(|float| f32::from_le_bytes(*float));
            ensure!((0..VALUES).all(|n| floats.next() == Some((n % 10_007) as f32)));
            anyhow::Ok(())
        })
    };
    one(0)?.await?;
    let of_one = peak(pid)? - before;
    let all = (1..=JOBS).map(one).collect::<Result<Vec<_>>>()?;
    let all = futures::future::try_join_all(all);
    tokio::time::timeout(Duration::from_secs(300), all).await??;
    let of_many = peak(pid)? - before;
    println!(
        "peak of one: {} MB, of {JOBS} at once: {} MB",
        of_one / 1_000_000,
        of_many / 1_000_000
    );
    ensure!(of_one < 5 * BYTES, "{of_one} bytes for a body of {BYTES}");
    ensure!(
        of_many < of_one + BYTES,
        "{of_many} bytes of many, {of_one} of one"
    );
    Ok(stack.stop().await?)
}
