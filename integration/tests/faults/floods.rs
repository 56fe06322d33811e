//! Malformed and oversize messages on every subject that a worker listens to: jobs, requests, queued
//! requests, cancellations, and the inbox at which the queue answers it.
//!
//! Invariant: each of them that can be answered is answered with a typed error, each job of them ends as
//! `error` with a dead letter, memory stays flat, and good jobs beside them lose nothing.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use inferq::Lane;
use inferq_integration::count::Beside;
use inferq_integration::{PATIENCE, plain, start};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::check::Watch;
use crate::load::{Load, slow};
use crate::{outcomes, random};

/// Almost all that a message may have.
const OVERSIZE: usize = 900 * 1024;
/// Messages of each flood, one in [`OVERSIZE_EACH`] of them oversize.
const FLOOD: usize = 600;
const OVERSIZE_EACH: usize = 8;
/// Messages of a flood under way at a time.
const AT_ONCE: usize = 32;

/// A body that no model takes.
fn malformed(random: &mut StdRng, n: usize) -> Bytes {
    if n.is_multiple_of(OVERSIZE_EACH) {
        let mut noise = vec![b'{'; OVERSIZE];
        random.fill_bytes(&mut noise[1..4096]);
        return noise.into();
    }
    match random.random_range(0..7) {
        0 => Bytes::new(),
        1 => Bytes::from_static(b"{\"instances\": [["),
        2 => "[".repeat(10_000).into(),
        // CBOR: an array of 2^32 - 1 items, of which none follows; a byte string without an end.
        3 => Bytes::from_static(b"\x9a\xff\xff\xff\xff"),
        4 => Bytes::from_static(b"\x5f\x41\x00"),
        5 => Bytes::from_static(
            br#"{"inputs":[{"name":"input","datatype":"FP32","shape":[4294967295,4294967295],"data":[]}]}"#,
        ),
        _ => {
            let mut noise = vec![0; random.random_range(1..4096)];
            random.fill_bytes(&mut noise);
            noise.into()
        }
    }
}

/// Headers that mean nothing, or harm.
fn headers(random: &mut StdRng) -> Vec<(&'static str, &'static str)> {
    const ODD: [(&str, &str); 8] = [
        ("Infer-Deadline", "soon"),
        ("Infer-Timeout", "-1"),
        ("Infer-Job-Id", "infer.results.>"),
        ("Infer-Reply-To", "$JS.API.STREAM.DELETE.INFER_JOBS"),
        ("Infer-Max-Attempts", "99999999999999999999"),
        ("Infer-Payload-Ref", "../../etc/passwd"),
        ("Infer-Supersedes", "0x10"),
        ("Content-Type", "application/x-nothing"),
    ];
    let count = random.random_range(0..4);
    (0..count)
        .map(|_| ODD[random.random_range(0..ODD.len())])
        .collect()
}

/// Where the queue answers the workers: each of their requests names it.
async fn inbox(nats: &async_nats::Client) -> Result<String> {
    let mut requests = nats.subscribe("$JS.API.CONSUMER.MSG.NEXT.>").await?;
    let request = tokio::time::timeout(PATIENCE, requests.next()).await?;
    let request = request.context("the connection closed")?;
    Ok(request.reply.context("a reply address")?.to_string())
}

/// Publishes to subjects that a stream takes.
async fn flood_queue(
    nats: &async_nats::Client,
    mut random: StdRng,
    subject_of: fn(usize) -> String,
) -> Result<()> {
    let messages = (0..FLOOD).map(|n| {
        let (headers, body) = (headers(&mut random), malformed(&mut random, n));
        async move { plain::job(nats, &subject_of(n), &headers, body).await }
    });
    let stored: Vec<u64> = stream::iter(messages)
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    ensure!(stored.len() == FLOOD);
    Ok(())
}

/// How requests to `subject` are answered, by code.
async fn flood_requests(
    nats: &async_nats::Client,
    mut random: StdRng,
    subject_of: fn(usize) -> String,
) -> Result<BTreeMap<Option<u16>, usize>> {
    let requests = (0..FLOOD).map(|n| {
        let (headers, body) = (headers(&mut random), malformed(&mut random, n));
        async move { plain::request(nats, &subject_of(n), &headers, body).await }
    });
    let mut answers = stream::iter(requests).buffered(AT_ONCE);
    let mut codes = BTreeMap::new();
    while let Some(answer) = answers.next().await {
        *codes.entry(answer?.code()).or_default() += 1;
    }
    Ok(codes)
}

async fn flood_inbox(nats: &async_nats::Client, mut random: StdRng, inbox: &str) -> Result<()> {
    for n in 0..FLOOD {
        nats.publish(inbox.to_owned(), malformed(&mut random, n))
            .await?;
    }
    Ok(nats.flush().await?)
}

const JOB: fn(usize) -> String = |n| {
    let lane = Lane::ALL[n % Lane::ALL.len()];
    format!("infer.jobs.digits.{lane}")
};
const QUEUED_REQUEST: fn(usize) -> String = |_| "infer.rpcq.digits.high".to_owned();
const REQUEST: fn(usize) -> String = |_| "infer.rpc.digits".to_owned();
/// No job can have such an id, so nothing is ever written for it.
const CANCELLATION: fn(usize) -> String = |n| format!("infer.cancel.{n:0>65}");

/// Every one of `codes` is an error that tells the caller what is wrong: with the request, or for now.
fn all_are_typed(codes: &BTreeMap<Option<u16>, usize>) -> bool {
    let typed = |code: &Option<u16>| matches!(code, Some(400 | 408 | 413 | 429 | 503));
    codes.keys().all(typed) && codes.get(&Some(400)).is_some_and(|count| *count > 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_what_makes_no_sense_leave_memory_flat_and_good_jobs_alone() -> Result<()> {
    let mut random = random()?;
    let load = Load::new()?;
    let mut options = slow(2);
    let bytes = ["--max-inflight-bytes", "32MiB"].map(str::to_owned);
    options.worker_args.extend(bytes);
    let stack = start(options).await?;
    let nats = stack.client().nats();
    let watch = Watch::stack(&stack)?;
    let inbox = inbox(nats).await?;
    let submitting = load.submitting(stack.client());
    outcomes(stack.client(), 20).await?;
    let mut seed = || StdRng::seed_from_u64(random.random());
    let (requests, cancellations, ..) = tokio::try_join!(
        flood_requests(nats, seed(), REQUEST),
        flood_requests(nats, seed(), CANCELLATION),
        flood_queue(nats, seed(), JOB),
        flood_queue(nats, seed(), QUEUED_REQUEST),
        flood_inbox(nats, seed(), &inbox),
    )?;
    ensure!(all_are_typed(&requests), "{requests:?}");
    ensure!(all_are_typed(&cancellations), "{cancellations:?}");
    let accepted = submitting.accepted().await?;
    let failed = FLOOD as u64;
    let beside = Beside {
        outcomes: failed,
        letters: failed,
    };
    watch
        .ended_once_beside(stack.client(), &load, &accepted, beside)
        .await?;
    Ok(stack.stop().await?)
}
