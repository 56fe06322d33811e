//! Queue groups are left without losing a request, however many are on their way.

use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::Client as Nats;
use inferq::stack::{Stack, StackOptions};
use inferq_integration::{PATIENCE, models_folder, start};
use inferq_schemas::Subjects;
use inferq_worker::ledger::Ledger;
use inferq_worker::pull::micro::Member;
use tokio::task::JoinHandle;

const SUBJECT: &str = "flood";
/// Published as fast as the server takes them.
const REQUESTS: u64 = 300_000;

async fn server_alone() -> Result<Stack> {
    start(StackOptions {
        workers: 0,
        ..StackOptions::new(models_folder())
    })
    .await
}

async fn connected(stack: &Stack) -> Result<Nats> {
    Ok(async_nats::connect(stack.nats_url()).await?)
}

/// Publishes all requests over a connection of its own, in the background.
fn flood(nats: Nats) -> JoinHandle<Result<()>> {
    tokio::spawn(async move {
        for _ in 0..REQUESTS {
            nats.publish(SUBJECT, "request".into()).await?;
        }
        Ok(nats.flush().await?)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_queue_group_in_a_flood_hears_all_that_it_was_picked_for() -> Result<()> {
    let stack = server_alone().await?;
    let mut stays = Member::join(&connected(&stack).await?, SUBJECT.to_owned()).await?;
    let nats = connected(&stack).await?;
    let ledger = Ledger::new(nats.clone(), Subjects::default());
    let mut goes = Member::join(&nats, SUBJECT.to_owned()).await?;
    ledger.barrier().await?;
    let flooding = flood(connected(&stack).await?);
    let rest = tokio::spawn(async move {
        let mut heard = 0;
        // The flood has pauses as long as its sender waits for the server.
        let quiet = Duration::from_secs(3);
        while let Ok(Some(_)) = tokio::time::timeout(quiet, stays.next()).await {
            heard += 1;
        }
        heard
    });
    let (mut heard, mut times_left) = (0, 0);
    while !flooding.is_finished() {
        for _ in 0..200 {
            let next = tokio::time::timeout(Duration::from_millis(100), goes.next()).await;
            heard += u64::from(matches!(next, Ok(Some(_))));
        }
        let mut last = goes.leave(&ledger).await?;
        while last.next().await.is_some() {
            heard += 1;
        }
        times_left += 1;
        goes = Member::join(&nats, SUBJECT.to_owned()).await?;
    }
    flooding.await??;
    let mut last = goes.leave(&ledger).await?;
    while last.next().await.is_some() {
        heard += 1;
    }
    let rest = tokio::time::timeout(PATIENCE, rest).await;
    let rest: u64 = rest.context("the flood is over")??;
    assert!(times_left > 10, "it left {times_left} times");
    assert_eq!(heard + rest, REQUESTS, "left {times_left} times");
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_group_is_left_at_once_also_while_nobody_asks_anything() -> Result<()> {
    let stack = server_alone().await?;
    let nats = connected(&stack).await?;
    let ledger = Ledger::new(nats.clone(), Subjects::default());
    let goes = Member::join(&nats, SUBJECT.to_owned()).await?;
    let mut last = goes.leave(&ledger).await?;
    assert!(last.next().await.is_none());
    let asked = connected(&stack).await?.request(SUBJECT, "".into()).await;
    let error = asked.err().context("nobody is there")?;
    assert_eq!(error.kind(), async_nats::RequestErrorKind::NoResponders);
    Ok(stack.stop().await?)
}
