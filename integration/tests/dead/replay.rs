//! What a replay does, whatever becomes of whoever asked for it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use futures::StreamExt;
use inferq::dead::{DeadEntry, ReplayError, ReplayOptions};
use inferq::stack::{Stack, StackOptions};
use inferq::{AssetPlan, Client, JobId, Status, SubmitError};
use inferq_integration::command::inferq;
use inferq_integration::{
    PATIENCE, digits, fixtures, job, messages_in, plain, stack, start, wait_until_empty,
};

use crate::{CUT, letter, letters, mend, misfit, outcome, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_fails_again_leaves_the_new_letter_and_no_other() -> Result<()> {
    let stack = stack(1).await?;
    let client = stack.client();
    let (id, _) = run(client, job("digits", CUT)).await?;
    let mut before = letter(client, &id).await?;
    for _ in 0..3 {
        let dead = client.dead();
        let replayed = dead.replay(&before, &ReplayOptions::default()).await?;
        let failed = dead.wait(&replayed, PATIENCE).await?;
        assert_eq!(failed.status(), Status::Error);
        wait_until_empty(client, "INFER_JOBS").await?;
        let after = letter(client, &id).await?;
        assert!(after.sequence > before.sequence);
        assert_eq!(after.reason.outcome, failed.sequence);
        assert_eq!(
            after.headers.len(),
            before.headers.len() + usize::from(before.header("Infer-Supersedes").is_none())
        );
        before = after;
    }
    Ok(stack.stop().await?)
}

/// Users of one account: the test itself may do everything, the operator not what is listed.
fn operator(denied: &str) -> String {
    format!(
        "no_auth_user: admin\n\
         authorization {{ users = [\n\
           {{ user: admin, password: a }}\n\
           {{ user: operator, password: o, permissions: {{ publish: {{ deny: [{denied}] }} }} }}\n\
         ] }}"
    )
}

async fn guarded(folder: &Path, denied: &str) -> Result<(Stack, Client)> {
    fixtures::add_model(folder, "mended", "mean_axis0.onnx")?;
    let stack = start(StackOptions {
        nats_config: operator(denied),
        ..StackOptions::new(folder)
    })
    .await?;
    let url = stack.nats_url().replace("nats://", "nats://operator:o@");
    let operator = Client::connect(&url).await?;
    Ok((stack, operator))
}

/// A replay by somebody who may not delete the letter, as one that ends half-way.
async fn replay_cut_short(operator: &Client, letter: &DeadEntry) -> Result<()> {
    let options = ReplayOptions::default();
    let cut_short = operator.dead().replay(letter, &options).await;
    let cut_short = cut_short.err().context("deleting is denied")?;
    let is_queued = matches!(cut_short, ReplayError::NotDeleted { .. });
    ensure!(is_queued, "{cut_short}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_replay_is_not_confirmed_stays() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (stack, operator) = guarded(folder.path(), "\"infer.jobs.>\"").await?;
    let client = stack.client();
    let (id, _) = run(client, job("mended", CUT)).await?;
    let kept = letter(&operator, &id).await?;
    let refused = operator
        .dead()
        .replay(&kept, &ReplayOptions::default())
        .await;
    let refused = refused.err().context("it is denied")?;
    let is_denied = matches!(&refused, ReplayError::Submit(SubmitError::Denied(_)));
    assert!(is_denied, "{refused}");
    assert_eq!(letter(client, &id).await?, kept);
    assert_eq!(messages_in(client, "INFER_JOBS").await?, 0);
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_was_replayed_and_not_deleted_is_replayed_again_without_effect() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let denied = "\"$JS.API.STREAM.MSG.DELETE.INFER_DEAD\"";
    let (stack, operator) = guarded(folder.path(), denied).await?;
    let client = stack.client();
    let image = &digits::held_out()?[0];
    let (id, _) = run(client, job("mended", image.row_request())).await?;
    let kept = letter(client, &id).await?;
    mend(&stack, folder.path()).await?;
    replay_cut_short(&operator, &kept).await?;
    wait_until_empty(client, "INFER_JOBS").await?;
    let (mended, sequence) = outcome(client, &id).await?;
    assert!(mended.is_ok(), "{}", mended.text());
    assert_eq!(letter(client, &id).await?, kept, "both are there");

    // Within the two minutes that the server remembers the first one.
    let again = client
        .dead()
        .replay(&kept, &ReplayOptions::default())
        .await?;
    assert!(again.submitted.duplicate);
    assert_eq!(messages_in(client, "INFER_JOBS").await?, 0);
    assert_eq!(letters(client, &id).await?, []);
    assert_eq!(outcome(client, &id).await?.1, sequence);
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_replay_that_the_server_does_not_recognize_is_answered_with_the_first_outcome()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let denied = "\"$JS.API.STREAM.MSG.DELETE.INFER_DEAD\"";
    let (stack, operator) = guarded(folder.path(), denied).await?;
    let client = stack.client();
    let image = &digits::held_out()?[0];
    let inbox = client.nats().new_inbox();
    let mut replies = client.nats().subscribe(inbox.clone()).await?;
    let failing = job("mended", image.row_request()).reply_to(inbox);
    let (id, _) = run(client, failing).await?;
    let kept = letter(client, &id).await?;
    mend(&stack, folder.path()).await?;
    replay_cut_short(&operator, &kept).await?;
    wait_until_empty(client, "INFER_JOBS").await?;
    let (_, sequence) = outcome(client, &id).await?;

    // The server forgets what it has seen, as it does after two minutes.
    let server = jetstream::new(client.nats().clone());
    let mut config = server
        .get_stream("INFER_JOBS")
        .await?
        .cached_info()
        .config
        .clone();
    config.duplicate_window = Duration::from_millis(100);
    let begun = Instant::now();
    let again = loop {
        // A server may look through what it has seen just before it takes over the new window, and
        // then not again within the old one, unless the window changes once more.
        config.duplicate_window += Duration::from_millis(1);
        server.update_stream(config.clone()).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let publish = plain_replay(client, &kept, image).await?;
        if !publish.duplicate {
            break publish;
        }
        ensure!(begun.elapsed() < PATIENCE, "it is always recognized");
    };
    assert_eq!(again.stream, "INFER_JOBS");
    wait_until_empty(client, "INFER_JOBS").await?;
    assert_eq!(
        outcome(client, &id).await?.1,
        sequence,
        "it is the same outcome"
    );
    let mut told = Vec::new();
    while told.len() < 3 {
        let reply = tokio::time::timeout(PATIENCE, replies.next()).await?;
        let headers = reply.context("connected")?.headers.context("headers")?;
        let header = |name: &str| headers.get(name).map(ToString::to_string);
        told.push((header("Infer-Status"), header("Infer-Attempt")));
    }
    let ok = Some("ok".to_owned());
    assert_eq!(told[0].0.as_deref(), Some("error"));
    assert_eq!((&told[1].0, &told[2].0), (&ok, &ok));
    // Left by the operator who could not delete it; purging it changes no outcome.
    assert!(client.dead().purge(&kept).await?);
    assert!(!client.dead().purge(&kept).await?);
    assert_eq!(outcome(client, &id).await?.1, sequence);
    Ok(stack.stop().await?)
}

/// The same replay as of the library, without deleting the letter.
async fn plain_replay(
    client: &Client,
    letter: &DeadEntry,
    image: &digits::Digit,
) -> Result<jetstream::publish::PublishAck> {
    let own = letter.headers.iter();
    let own = own.map(|(name, value)| (name.as_str(), value.as_str()));
    let outcome = letter.reason.outcome.context("it names its outcome")?;
    let mut headers = async_nats::HeaderMap::new();
    for (name, value) in inferq_schemas::headers::dead::replay(own, letter.sequence, outcome) {
        headers.insert(name.as_str(), value.as_str());
    }
    let server = jetstream::new(client.nats().clone());
    let body = image.row_request().into();
    let subject = "infer.jobs.mended.normal";
    Ok(server
        .publish_with_headers(subject, headers, body)
        .await?
        .await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_again_before_its_letter_is_deleted_keeps_the_new_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let denied = "\"$JS.API.STREAM.MSG.DELETE.INFER_DEAD\"";
    let (stack, operator) = guarded(folder.path(), denied).await?;
    let client = stack.client();
    let (id, _) = run(client, job("mended", CUT)).await?;
    let old = letter(client, &id).await?;
    replay_cut_short(&operator, &old).await?;
    wait_until_empty(client, "INFER_JOBS").await?;
    let both = letters(client, &id).await?;
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(client.dead().purge(&old).await?);
    let new = letter(client, &id).await?;
    assert_eq!(new.reason.outcome, Some(outcome(client, &id).await?.1));
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_letters_are_replayed_at_once_through_a_queue_with_little_room() -> Result<()> {
    const JOBS: usize = 60;
    let folder = tempfile::tempdir()?;
    fixtures::add_model(folder.path(), "mended", "mean_axis0.onnx")?;
    let stack = start(StackOptions {
        plan: AssetPlan {
            queue_depth: std::num::NonZeroUsize::new(5).context("not zero")?,
            ..AssetPlan::default()
        },
        ..StackOptions::new(folder.path())
    })
    .await?;
    let client = stack.client();
    let images = digits::held_out()?;
    let failing = images[..JOBS]
        .iter()
        .map(|image| job("mended", image.row_request()));
    let ids = inferq_integration::submit_all(client, failing.collect()).await?;
    wait_until_empty(client, "INFER_JOBS").await?;
    assert_eq!(messages_in(client, "INFER_DEAD").await?, JOBS as u64);
    mend(&stack, folder.path()).await?;
    let replayed = inferq(&stack, "dead replay --all --model mended --json").await?;
    assert!(replayed.well, "{replayed:?}");
    assert_eq!(replayed.lines()?.len(), JOBS);
    wait_until_empty(client, "INFER_JOBS").await?;
    for (id, image) in ids.iter().zip(&images) {
        let (mended, _) = outcome(client, id).await?;
        let json = mended.json().context("JSON")?;
        assert_eq!(json["predictions"][0]["label"], image.label, "{json}");
    }
    assert_eq!(messages_in(client, "INFER_DEAD").await?, 0);
    assert_eq!(messages_in(client, "INFER_RESULTS").await?, JOBS as u64);
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_past_its_deadline_or_without_its_body_is_not_replayed_in_vain() -> Result<()> {
    let stack = stack(1).await?;
    let client = stack.client();
    let soon = std::time::SystemTime::now() + Duration::from_secs(2);
    let (late, _) = run(client, job("digits", CUT).deadline(soon)).await?;
    let kept = letter(client, &late).await?;
    while std::time::SystemTime::now() < soon {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let options = ReplayOptions::default();
    let refused = client.dead().replay(&kept, &options).await;
    let refused = refused.err().context("nobody would run it")?;
    assert!(matches!(refused, ReplayError::Deadline { .. }), "{refused}");
    let options = ReplayOptions {
        timeout: Some(PATIENCE),
    };
    client.dead().replay(&kept, &options).await?;
    wait_until_empty(client, "INFER_JOBS").await?;
    assert_eq!(
        outcome(client, &late).await?.0.status(),
        Status::Error,
        "run, not expired"
    );

    // As large as a message may be, so that the reason does not fit beside it.
    let max_payload = client.nats().server_info().max_payload;
    let large = format!(r#"{{"instances": [[1{}]]}}"#, " ".repeat(max_payload - 200));
    let headers = [("Infer-Job-Id", "large")];
    plain::job(client.nats(), "infer.jobs.digits.normal", &headers, large).await?;
    wait_until_empty(client, "INFER_JOBS").await?;
    let cut = letter(client, &JobId::new("large")?).await?;
    assert!(cut.reason.without_body && cut.bytes == 0, "{cut:?}");
    let refused = client.dead().replay(&cut, &options).await;
    let refused = refused.err().context("there is nothing to send")?;
    assert!(
        matches!(refused, ReplayError::Incomplete { part: "body", .. }),
        "{refused}"
    );
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_replaces_an_outcome_that_has_left_by_age() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = misfit(folder.path()).await?;
    let client = stack.client();
    let image = &digits::held_out()?[0];
    let (id, _) = run(client, job("mended", image.row_request())).await?;
    let kept = letter(client, &id).await?;
    let server = jetstream::new(client.nats().clone());
    server.get_stream("INFER_RESULTS").await?.purge().await?;
    mend(&stack, folder.path()).await?;
    client
        .dead()
        .replay(&kept, &ReplayOptions::default())
        .await?;
    wait_until_empty(client, "INFER_JOBS").await?;
    assert!(outcome(client, &id).await?.0.is_ok());
    assert_eq!(letters(client, &id).await?, []);
    Ok(stack.stop().await?)
}
