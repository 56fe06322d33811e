//! Queue groups are left without losing a request, however many are on their way.

use std::sync::Arc;

use anyhow::{Context, Result};
use async_nats::Client as Nats;
use inferq::stack::Stack;
use inferq_integration::{PATIENCE, stack};
use inferq_schemas::Subjects;
use inferq_worker::ledger::Ledger;
use inferq_worker::pull::micro::Member;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SUBJECT: &str = "flood";
const LAST: &str = "last request";
/// So often the group is left and joined again.
const TIMES: usize = 40;
/// Requests that are read in between.
const READ: usize = 200;
/// Requests on their way at once. More than leaving the group without care loses in one test, and few
/// enough that the server cuts off no reader for being slow.
const ON_THE_WAY: usize = 20_000;

async fn connected(stack: &Stack) -> Result<Nats> {
    // Nothing is dropped for want of room in the client, whoever reads it late.
    let options = async_nats::ConnectOptions::new().subscription_capacity(10_000_000);
    Ok(options.connect(stack.nats_url()).await?)
}

/// Publishes over a connection of its own, until `over`, as fast as there is `room`; how many.
fn flood(nats: Nats, room: Arc<Semaphore>, over: CancellationToken) -> JoinHandle<Result<u64>> {
    tokio::spawn(async move {
        let mut published = 0;
        loop {
            let room = tokio::select! {
                () = over.cancelled() => break,
                room = room.acquire() => room?,
            };
            room.forget();
            nats.publish(SUBJECT, "request".into()).await?;
            published += 1;
        }
        nats.publish(SUBJECT, LAST.into()).await?;
        nats.flush().await?;
        Ok(published)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_queue_group_in_a_flood_hears_all_that_it_was_picked_for() -> Result<()> {
    let stack = stack(0).await?;
    let mut stays = Member::join(&connected(&stack).await?, SUBJECT.to_owned()).await?;
    let nats = connected(&stack).await?;
    let ledger = Ledger::new(nats.clone(), Subjects::default());
    let mut goes = Member::join(&nats, SUBJECT.to_owned()).await?;
    ledger.barrier().await?;
    let (room, over) = (
        Arc::new(Semaphore::new(ON_THE_WAY)),
        CancellationToken::new(),
    );
    let more = room.clone();
    let rest = tokio::spawn(async move {
        let mut heard: u64 = 0;
        while let Some(request) = stays.next().await {
            if request.payload == LAST {
                break;
            }
            heard += 1;
            more.add_permits(1);
        }
        heard
    });
    // Kept until all is heard: a connection that is closed may take what it has just sent with it.
    let floods = connected(&stack).await?;
    let flooding = flood(floods.clone(), room.clone(), over.clone());
    let mut heard: u64 = 0;
    for time in 1.. {
        for _ in 0..READ {
            let next = tokio::time::timeout(PATIENCE, goes.next()).await;
            let next =
                next.context("nothing comes any more: so many were lost that there is no room")?;
            next.context("the connection closed")?;
            heard += 1;
            room.add_permits(1);
        }
        let mut last = goes.leave(&ledger).await?;
        while last.next().await.is_some() {
            heard += 1;
            room.add_permits(1);
        }
        if time == TIMES {
            break;
        }
        goes = Member::join(&nats, SUBJECT.to_owned()).await?;
    }
    // From now on the other one is alone, so the last request is its own.
    over.cancel();
    let published = flooding.await??;
    let rest = tokio::time::timeout(PATIENCE, rest).await;
    let rest: u64 = rest.with_context(|| {
        format!("the last request was not heard: {heard} of {published} by who left")
    })??;
    drop(floods);
    assert_eq!(heard + rest, published, "{heard} by who left");
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_group_is_left_at_once_also_while_nobody_asks_anything() -> Result<()> {
    let stack = stack(0).await?;
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
