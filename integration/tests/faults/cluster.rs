//! Three servers hold each stream together, and the one that leads the jobs dies in mid-run (SIGKILL).
//!
//! Invariant: the two that are left elect another, clients and workers find it by themselves, and every
//! accepted job ends once and rightly; the dead one takes its place again when it is back.

use std::time::Duration;

use anyhow::{Context, Result};
use inferq::Client;
use inferq_integration::cluster::Cluster;
use inferq_integration::lone::{Lone, LoneWorker};
use inferq_integration::redeliver_after;
use rand::RngExt;

use crate::check::Watch;
use crate::load::{Load, slowly};
use crate::{outcomes, random};

const SERVERS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_loses_the_leader_of_the_jobs_loses_none_and_repeats_none() -> Result<()> {
    let mut random = random()?;
    let (load, cluster) = (Load::new()?, Cluster::start(SERVERS).await?);
    let admin = cluster.init().await?;
    admin
        .admin(cluster.plan())
        .ensure_model(&"digits".parse()?)
        .await?;
    // What the dead server had handed out and nobody got comes again after this.
    redeliver_after(&admin, "digits", Duration::from_secs(3)).await?;
    let leader = cluster.leader(&admin, "INFER_JOBS").await?;
    let other = (leader + 1) % SERVERS;
    let lone = || Lone {
        args: slowly(),
        ..Lone::default()
    };
    // One of the workers, and the client that submits, are connected to the server that dies.
    let workers = [
        LoneWorker::start_as(&admin, cluster.url(leader), "beside", lone()).await?,
        LoneWorker::start_as(&admin, cluster.url(other), "apart", lone()).await?,
    ];
    let watch = Watch::lone(&workers)?;
    let client = Client::connect(cluster.url(leader)).await?;
    let observer = Client::connect(cluster.url(other)).await?;
    let submitting = load.submitting(&client);
    outcomes(&observer, random.random_range(20..200)).await?;
    cluster.server(leader).kill().await;
    let accepted = submitting.accepted().await?;
    watch.all_ended_once(&observer, &load, &accepted).await?;
    cluster.server(leader).restart().await?;
    cluster.in_step(&observer, "INFER_JOBS").await?;
    cluster.in_step(&observer, "INFER_RESULTS").await?;
    let after = client.run(load.job(0)).await?;
    assert!(after.is_ok(), "{}", after.text());
    drop(workers);
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_not_taken_for_missing_while_its_leader_is_elected() -> Result<()> {
    let cluster = Cluster::start(SERVERS).await?;
    let admin = cluster.init().await?;
    admin
        .admin(cluster.plan())
        .ensure_model(&"digits".parse()?)
        .await?;
    let leader = cluster.leader(&admin, "INFER_JOBS").await?;
    let client = Client::connect(cluster.url((leader + 1) % SERVERS)).await?;
    client.submit(Load::new()?.job(0)).await?;
    cluster.server(leader).kill().await;
    let queued = client.submit(Load::new()?.job(1)).await;
    let queued = queued.context("a submit has more patience than an election takes")?;
    assert_eq!(queued.stream, "INFER_JOBS");
    cluster.stop().await;
    Ok(())
}
