//! What is told of a job on its way: by workers, by the library, and by `inferq submit --follow`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use inferq::stack::{Stack, StackOptions};
use inferq::{AssetPlan, Client, Event, Events, ModelName, Status};
use inferq_integration::command::inferq;
use inferq_integration::lone::LoneWorker;
use inferq_integration::scrape::wait_for_metric;
use inferq_integration::{
    PATIENCE, digits, fixtures, hazards, models_folder, plain, stack, start, uncached,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// A second or two of one core.
const A_WHILE: u32 = 125_000;

/// One thread with room for two jobs, and the model `spin` to keep it busy.
async fn busy_stack(folder: &Path, run_timeout: Duration) -> Result<Stack> {
    fixtures::add_digits(folder, "digits")?;
    hazards::add(folder, run_timeout)?;
    let arguments = ["--executors", "1", "--max-batch-rows", "1"];
    let stack = start(StackOptions {
        worker_args: arguments.map(str::to_owned).to_vec(),
        expect: Some(vec![ModelName::new("spin")?]),
        ..StackOptions::new(folder)
    })
    .await?;
    stack.wait_ready(PATIENCE).await?;
    Ok(stack)
}

/// The thread has it, so that nothing else runs before it.
async fn wait_until_it_runs(stack: &Stack) -> Result<()> {
    let begun = r#"inferq_batch_seconds_count{model="spin"}"#;
    wait_for_metric(stack.client(), "worker-1", begun, 1.0).await
}

async fn next(events: &mut Events) -> Result<Event> {
    let event = tokio::time::timeout(PATIENCE, events.next()).await;
    Ok(event
        .context("nothing is told")?
        .context("it is the end")??)
}

/// Everything up to the outcome, and how that is.
async fn to_the_end(events: &mut Events) -> Result<(Vec<Event>, Status)> {
    let mut told = Vec::new();
    loop {
        match next(events).await? {
            Event::Done(outcome) => break Ok((told, outcome.status())),
            event => told.push(event),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_behind_others_is_queued_then_running_then_done() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = busy_stack(folder.path(), Duration::from_secs(300)).await?;
    let client = stack.client();
    client.submit(hazards::spin(A_WHILE)).await?;
    wait_until_it_runs(&stack).await?;
    for _ in 0..5 {
        client.submit(hazards::spin(A_WHILE / 4)).await?;
    }
    let (_, mut events) = client.follow(hazards::spin(1), PATIENCE).await?;
    let (told, status) = to_the_end(&mut events).await?;
    assert_eq!(status, Status::Ok);
    assert!(events.next().await.is_none());
    let mut positions = Vec::new();
    for event in &told[..told.len() - 1] {
        match event {
            Event::Queued { position, .. } => positions.push(*position),
            _ => bail!("only its running comes after the queue: {told:?}"),
        }
    }
    assert!(positions[0] >= 2, "workers hold no more than two: {told:?}");
    assert!(positions.is_sorted_by(|one, next| one > next), "{told:?}");
    let last = told.last().context("something")?;
    let Event::Running {
        worker,
        attempt,
        model_version,
    } = last
    else {
        bail!("it ran before it ended: {told:?}");
    };
    assert_eq!(
        (worker.as_str(), *attempt, *model_version),
        ("worker-1", 1, 1)
    );
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_and_an_expired_one_end_without_having_run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = busy_stack(folder.path(), Duration::from_secs(300)).await?;
    let client = stack.client();
    let endless = client.submit(hazards::endless()).await?.id;
    wait_until_it_runs(&stack).await?;
    let image = &digits::held_out()?[0];
    let soon = uncached(image).timeout(Duration::from_secs(1));
    let (_, mut expires) = client.follow(soon, PATIENCE).await?;
    let (told, status) = to_the_end(&mut expires).await?;
    assert_eq!(status, Status::Expired);
    assert!(
        told.iter()
            .all(|event| matches!(event, Event::Queued { .. })),
        "{told:?}"
    );
    let (waits, mut cancelled) = client.follow(uncached(image), PATIENCE).await?;
    assert!(matches!(
        next(&mut cancelled).await?,
        Event::Queued { position: 0, .. }
    ));
    client.cancel(&waits.id).await?;
    let (told, status) = to_the_end(&mut cancelled).await?;
    assert_eq!(status, Status::Cancelled);
    assert!(told.is_empty(), "{told:?}");
    client.cancel(&endless).await?;
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_tried_again_says_why() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = busy_stack(folder.path(), Duration::from_secs(1)).await?;
    let once = hazards::endless().max_attempts(1);
    let (_, mut events) = stack.client().follow(once, PATIENCE).await?;
    let (told, status) = to_the_end(&mut events).await?;
    assert_eq!(status, Status::Dead);
    let [
        ..,
        Event::Running { attempt: 1, .. },
        Event::Retrying {
            attempt: 1,
            reason,
            delay,
            ..
        },
    ] = told.as_slice()
    else {
        bail!("it ran and was given back: {told:?}");
    };
    assert!(reason.contains("limits.run_timeout"), "{reason}");
    assert!(*delay >= Duration::from_millis(500), "{delay:?}");
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_plain_client_hears_of_jobs_that_ask_for_it_and_of_no_others() -> Result<()> {
    let stack = stack(1).await?;
    let nats = stack.client().nats();
    let mut told = nats.subscribe("infer.events.*").await?;
    let image = &digits::held_out()?[0];
    let send = async |job: &str, asks: bool| {
        let mut headers = vec![("Infer-Job-Id", job), ("Infer-Cache", "off")];
        headers.extend(asks.then_some(("Infer-Events", "1")));
        let sent = plain::job(
            nats,
            "infer.jobs.digits.normal",
            &headers,
            image.row_request(),
        );
        sent.await?;
        plain::outcome(nats, job, PATIENCE).await
    };
    send("order-1", false).await?;
    let events = [("Infer-Events", "1"), ("Infer-Job-Id", "order-2")];
    plain::request(nats, "infer.rpc.digits", &events, image.row_request()).await?;
    send("order-3", true).await?;
    let running =
        json!({"event": "running", "worker": "worker-1", "attempt": 1, "model_version": 1});
    let done = json!({"event": "done", "status": "ok"});
    for expected in [running, done] {
        let message = tokio::time::timeout(PATIENCE, told.next()).await?;
        let message = message.context("connected")?;
        assert_eq!(message.subject.as_str(), "infer.events.order-3");
        let document: Value = serde_json::from_slice(&message.payload)?;
        assert_eq!(document, expected);
    }
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outcome_comes_although_workers_may_not_tell_and_nobody_may_ask() -> Result<()> {
    let permissions = "no_auth_user: worker\n\
        authorization { users = [\n\
          { user: worker, password: w, permissions: { publish: { deny: [\"infer.events.>\"] } } }\n\
          { user: asks, password: a, permissions: { publish: { deny: [\"$JS.API.CONSUMER.INFO.>\"] } } }\n\
        ] }";
    let stack = start(StackOptions {
        nats_config: permissions.to_owned(),
        ..StackOptions::new(models_folder())
    })
    .await?;
    let asks = stack.nats_url().replace("nats://", "nats://asks:a@");
    let client = Client::connect(&asks).await?;
    let image = &digits::held_out()?[0];
    let (_, mut events) = client.follow(uncached(image), PATIENCE).await?;
    let (told, status) = to_the_end(&mut events).await?;
    assert_eq!(status, Status::Ok);
    assert!(told.is_empty(), "{told:?}");
    Ok(stack.stop().await?)
}

/// `inferq submit --follow` of `digits`, while it runs.
struct Follows {
    process: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
}

impl Follows {
    fn start(stack: &Stack, body: &str, flags: &[&str]) -> Result<Self> {
        let program = inferq::stack::worker_program(None)?.with_file_name("inferq");
        let mut process = Command::new(program)
            .args(["--nats", stack.nats_url(), "submit", "digits", body])
            .args(["--no-cache", "--follow"])
            .args(flags)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (out, err) = (process.stdout.take(), process.stderr.take());
        Ok(Self {
            out: BufReader::new(out.context("piped")?).lines(),
            err: BufReader::new(err.context("piped")?).lines(),
            process,
        })
    }

    /// What it says from here to its end on both streams, and whether it ends well.
    async fn rest(mut self) -> Result<(Vec<String>, Vec<String>, bool)> {
        let all = async {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            while let Some(line) = self.out.next_line().await? {
                out.push(line);
            }
            while let Some(line) = self.err.next_line().await? {
                err.push(line);
            }
            Ok((out, err, self.process.wait().await?.success()))
        };
        tokio::time::timeout(PATIENCE, all).await?
    }
}

async fn line<R: AsyncBufRead + Unpin>(lines: &mut Lines<R>) -> Result<String> {
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await??;
    line.context("it has ended")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_tells_each_event_and_then_the_outcome() -> Result<()> {
    let stack = stack(0).await?;
    let client = stack.client();
    let digits = ModelName::new("digits")?;
    client
        .admin(AssetPlan::default())
        .ensure_model(&digits)
        .await?;
    let folder = tempfile::tempdir()?;
    let body = folder.path().join("job.json");
    std::fs::write(&body, digits::held_out()?[0].row_request())?;
    let body = format!("@{}", body.display());

    // Nobody runs it: the bound of the wait ends the command and not the job.
    let bounded = Follows::start(&stack, &body, &["--wait", "2s"])?;
    let (out, err, well) = bounded.rest().await?;
    assert!(!well && out.is_empty(), "{out:?}");
    let [_, queued, stays, error] = err.as_slice() else {
        bail!("where, what, and why not: {err:?}");
    };
    assert_eq!(queued, "queued, next");
    assert!(stays.contains("the job stays queued"), "{stays}");
    assert!(error.contains("has no outcome after"), "{error}");

    let mut json = Follows::start(&stack, &body, &["--json"])?;
    let first: Value = serde_json::from_str(&line(&mut json.out).await?)?;
    assert_eq!(
        (&first["event"], &first["position"]),
        (&"queued".into(), &1.into())
    );
    let mut people = Follows::start(&stack, &body, &[])?;
    line(&mut people.err).await?;
    assert_eq!(line(&mut people.err).await?, "queued, 2 jobs in front");
    let _late = LoneWorker::start(client, stack.nats_url(), "late").await?;

    let (out, _, well) = json.rest().await?;
    let lines: Vec<Value> = out
        .iter()
        .map(|line| serde_json::from_str(line))
        .collect::<Result<_, _>>()?;
    let [.., running, outcome] = lines.as_slice() else {
        bail!("it ran and ended: {lines:?}");
    };
    assert!(well, "{lines:?}");
    assert_eq!(
        (&running["event"], &running["worker"]),
        (&"running".into(), &"late".into())
    );
    assert_eq!(
        (&outcome["event"], &outcome["status"]),
        (&Value::Null, &"ok".into())
    );
    assert!(lines.iter().all(|line| line["job"] == first["job"]));
    let (out, err, well) = people.rest().await?;
    assert!(well && out.len() == 1, "the answer alone: {out:?}");
    assert!(out[0].contains("predictions"), "{out:?}");
    assert!(
        err.contains(&"running on late, version 1".to_owned()),
        "{err:?}"
    );

    let refused = inferq(&stack, "submit digits {} --follow --json").await?;
    assert!(!refused.well);
    let last = refused.lines()?.pop().context("the outcome")?;
    assert_eq!(
        (&last["status"], &last["code"]),
        (&"error".into(), &400.into())
    );
    Ok(stack.stop().await?)
}
