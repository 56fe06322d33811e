//! Jobs whose deadlines pass inside a worker while its only executor is busy: how late they are told.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use inferq::stack::StackOptions;
use inferq_integration::scrape::wait_for_metric;
use inferq_integration::{PATIENCE, digits, fixtures, hazards, plain, start};

use crate::Figure;

const ROUNDS: usize = 40;
/// Fewer than the room has, beside the one that runs.
const JOBS: usize = 50;
/// From submission to the first deadline of a round, in milliseconds, and from each to the next.
const FIRST_MS: u64 = 300;
const APART_MS: u64 = 10;
/// The bound, in milliseconds.
const BOUND_MS: f64 = 10.0;

pub(crate) async fn measure() -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    fixtures::add_digits(folder.path(), "digits")?;
    hazards::add(folder.path(), Duration::from_secs(300))?;
    let stack = start(StackOptions {
        worker_args: ["--executors", "1"].map(str::to_owned).to_vec(),
        ..StackOptions::new(folder.path())
    })
    .await?;
    let nats = stack.client().nats();
    stack.client().submit(hazards::endless()).await?;
    wait_for_metric(stack.client(), "worker-1", "inferq_inflight_jobs", 1.0).await?;
    let inbox = nats.new_inbox();
    let mut replies = nats.subscribe(inbox.clone()).await?;
    let body = digits::held_out()?[0].row_request();
    let mut late = Vec::new();
    for round in 0..ROUNDS {
        let mut deadlines = HashMap::new();
        let first = unix_ms() as u64 + FIRST_MS;
        for job in 0..JOBS {
            let (id, deadline) = (format!("{round}-{job}"), first + APART_MS * job as u64);
            let text = deadline.to_string();
            let headers = [
                ("Infer-Job-Id", id.as_str()),
                ("Infer-Reply-To", inbox.as_str()),
                ("Infer-Deadline", text.as_str()),
                ("Infer-Cache", "off"),
            ];
            plain::job(nats, "infer.jobs.digits.normal", &headers, body.clone()).await?;
            deadlines.insert(id, deadline);
        }
        ensure!(
            unix_ms() < first as f64,
            "the machine is too slow to submit before the first deadline"
        );
        while !deadlines.is_empty() {
            let reply = tokio::time::timeout(PATIENCE, replies.next()).await;
            let reply = reply.context("a job was never answered")?;
            let told = unix_ms();
            let headers = reply
                .and_then(|reply| reply.headers)
                .context("no headers")?;
            let header = |name: &str| headers.get(name).map(|value| value.as_str());
            ensure!(header("Infer-Status") == Some("expired"), "{headers:?}");
            let id = header("Infer-Job-Id").context("an id")?;
            let deadline = deadlines.remove(id).context("answered once")?;
            late.push(told - deadline as f64);
        }
    }
    drop(stack);
    late.sort_by(f64::total_cmp);
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    let p99 = at(0.99);
    let what = format!(
        "{} deadlines passed while the executor was busy, told after p50 {:.1}, p99 {p99:.1}, at most {:.1} ms (p99 within {BOUND_MS} ms)",
        late.len(),
        at(0.5),
        at(1.0),
    );
    Ok(vec![Figure::new(what, p99 <= BOUND_MS)])
}

fn unix_ms() -> f64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_secs_f64() * 1000.0
}
