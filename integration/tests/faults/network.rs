//! The network between a worker, or a client, and nats-server is slow, silent, or cut.
//!
//! Invariant: what was accepted ends once and rightly; work goes on by itself once the network does.

use std::time::Duration;

use anyhow::Result;
use inferq::Client;
use inferq::stack::StackOptions;
use inferq_integration::link::{Link, Wire};
use inferq_integration::lone::{Lone, LoneWorker};
use inferq_integration::proxy::{Proxy, Side};
use inferq_integration::{digits, redeliver_after, stack, start, submit_all, uncached};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::check::Watch;
use crate::load::{Load, slow, slowly};
use crate::{outcomes, random};

/// How often the network fails in one run.
const FAILURES: usize = 3;

async fn fail_again_and_again(link: &Link, random: &mut StdRng) {
    for _ in 0..FAILURES {
        let mut ms = |range| Duration::from_millis(random.random_range(range));
        let (silent, away, between) = (ms(0..800), ms(0..800), ms(200..600));
        link.fail(silent, away).await;
        tokio::time::sleep(between).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_connection_is_cut_again_and_again_loses_no_job() -> Result<()> {
    let mut random = random()?;
    let (load, stack) = (Load::new()?, start(slow(0)).await?);
    let client = stack.client();
    // What was on its way to the worker when the wire was cut comes again after this.
    redeliver_after(client, "digits", Duration::from_secs(3)).await?;
    let lone = || Lone {
        args: slowly(),
        ..Lone::default()
    };
    let link = Link::before(stack.nats_url()).await?;
    let workers = [
        LoneWorker::start_as(client, &link.url(), "far", lone()).await?,
        LoneWorker::start_as(client, stack.nats_url(), "near", lone()).await?,
    ];
    let watch = Watch::lone(&workers)?;
    let submitting = load.submitting(client);
    outcomes(client, 20).await?;
    fail_again_and_again(&link, &mut random).await;
    let accepted = submitting.accepted().await?;
    watch.all_ended_once(client, &load, &accepted).await?;
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_connection_is_cut_again_and_again_queues_each_job_once() -> Result<()> {
    let mut random = random()?;
    let (load, stack) = (Load::new()?, start(slow(2)).await?);
    let watch = Watch::stack(&stack)?;
    let link = Link::before(stack.nats_url()).await?;
    let far = Client::connect(&link.url()).await?;
    let submitting = load.submitting(&far);
    outcomes(stack.client(), 20).await?;
    fail_again_and_again(&link, &mut random).await;
    let accepted = submitting.accepted().await?;
    watch
        .all_ended_once(stack.client(), &load, &accepted)
        .await?;
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_on_both_sides_delays_jobs_and_nothing_else() -> Result<()> {
    const EACH_WAY: Duration = Duration::from_millis(60);
    const JOBS: usize = 300;
    let load = Load::new()?;
    let link = Link::listen().await?;
    let stack = start(StackOptions {
        worker_nats: Some(link.url()),
        workers: 0,
        ..slow(0)
    })
    .await?;
    link.towards(stack.nats_url())?;
    stack.start_worker().await?;
    stack.wait_ready(inferq_integration::PATIENCE).await?;
    let watch = Watch::stack(&stack)?;
    link.set(Wire::Open(EACH_WAY));
    let far = Client::connect(&link.url()).await?;
    let accepted = submit_all(&far, (0..JOBS).map(|n| load.job(n)).collect()).await?;
    let called = far.call(load.job(0)).await?;
    assert!(called.is_ok(), "{}", called.text());
    watch
        .all_ended_once(stack.client(), &load, &accepted)
        .await?;
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_answered_while_the_connection_for_jobs_brings_nothing() -> Result<()> {
    let stack = stack(0).await?;
    let proxy = Proxy::start(stack.nats_url()).await?;
    let _worker = LoneWorker::start(stack.client(), &proxy.url(), "lone").await?;
    proxy.hold_connection(Side::Before, "$JS.API.CONSUMER.MSG.NEXT.");
    proxy.held().await?;
    let image = &digits::held_out()?[0];
    let outcome = stack.client().call(uncached(image)).await?;
    assert!(outcome.is_ok(), "{:?}", outcome.failure());
    Ok(stack.stop().await?)
}
