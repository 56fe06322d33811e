//! The same jobs are published again and again: by clients that never saw an answer, and by some that
//! gave the server nothing to recognize them by.
//!
//! Invariant: one outcome each, and every publish is answered with that one.

use std::collections::HashMap;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use inferq::JobId;
use inferq_integration::{PATIENCE, plain, start};
use rand::seq::SliceRandom;

use crate::check::Watch;
use crate::load::{Load, slow};
use crate::random;

const JOBS: usize = 300;
/// Publishes of each job: as many that the server can tell to be one, and as many that it cannot.
const COPIES: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_published_many_times_ends_once_and_all_its_callers_hear_the_same()
-> Result<()> {
    let (load, stack) = (Load::new()?, start(slow(2)).await?);
    let nats = stack.client().nats();
    let watch = Watch::stack(&stack)?;
    let mut publishes: Vec<(usize, bool)> = (0..JOBS)
        .flat_map(|n| (0..COPIES).flat_map(move |_| [(n, true), (n, false)]))
        .collect();
    publishes.shuffle(&mut random()?);
    // Those that the server keeps apart; of the others it keeps the first and drops the rest.
    let answers = publishes.iter().map(|(n, recognized)| {
        let (id, body) = (format!("copy-{n}"), load.body(*n));
        let subject = "infer.jobs.digits.normal";
        async move {
            let mut headers = vec![("Infer-Job-Id", id.as_str()), ("Infer-Cache", "off")];
            if *recognized {
                headers.push(("Nats-Msg-Id", &id));
                plain::job(nats, subject, &headers, body).await?;
                return anyhow::Ok(None);
            }
            let reply = plain::job_with_reply(nats, subject, &headers, body, PATIENCE).await?;
            Ok(Some((*n, reply)))
        }
    });
    let answers: Vec<_> = stream::iter(answers).buffered(64).try_collect().await?;
    let mut heard: HashMap<usize, Vec<plain::Answer>> = HashMap::new();
    for (n, answer) in answers.into_iter().flatten() {
        heard.entry(n).or_default().push(answer);
    }
    for (n, answers) in &heard {
        assert_eq!(answers.len(), COPIES);
        let kept = plain::outcome(nats, &format!("copy-{n}"), PATIENCE).await?;
        for answer in answers {
            assert_eq!(answer.body, kept.body, "another answer to job {n}");
        }
    }
    let ids = (0..JOBS).map(|n| format!("copy-{n}").parse());
    let ids: Vec<JobId> = ids.collect::<Result<_, _>>().context("an id")?;
    watch.all_ended_once(stack.client(), &load, &ids).await?;
    Ok(stack.stop().await?)
}
