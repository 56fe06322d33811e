//! What is listed, shown and deleted.

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use futures::StreamExt;
use inferq::dead::DeadFilter;
use inferq::stack::{Stack, StackOptions};
use inferq::{AssetPlan, ErrorCode, JobId, Lane};
use inferq_integration::command::inferq;
use inferq_integration::{
    PATIENCE, digits, fixtures, job, messages_in, stack, start, wait_until_empty,
};

use crate::{CUT, letter, mend, misfit, outcome, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_failed_is_listed_shown_mended_and_replayed_by_the_command_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = misfit(folder.path()).await?;
    let client = stack.client();
    let image = &digits::held_out()?[0];
    let failing = job("mended", image.row_request()).tenant("acme");
    let (id, failed) = run(client, failing).await?;
    assert_eq!(
        failed.failure().context("it failed")?.code,
        ErrorCode::BadInput
    );
    let (_, old) = outcome(client, &id).await?;

    let listed = inferq(&stack, "dead ls --json").await?.lines()?;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0]["job"], id.as_str());
    assert_eq!(listed[0]["status"], "error");
    assert_eq!(listed[0]["code"], 400);
    assert_eq!(listed[0]["outcome"], old);
    let shown = inferq(&stack, &format!("dead show {id} --json")).await?;
    let shown = &shown.lines()?[0];
    assert_eq!(shown["attempts"], 1);
    let pixels = image.pixels.iter().map(|pixel| serde_json::json!(pixel));
    let sent: Vec<_> = pixels.collect();
    assert_eq!(shown["body"]["instances"][0].as_array(), Some(&sent));
    let for_people = inferq(&stack, &format!("dead show {id}")).await?.out;
    for said in [
        "mended, lane normal",
        "Infer-Tenant: acme",
        "error 400",
        "takes 4",
    ] {
        assert!(for_people.contains(said), "no {said} in\n{for_people}");
    }
    assert!(for_people.ends_with(&format!("{}\n", image.row_request())));

    mend(&stack, folder.path()).await?;
    let replayed = inferq(&stack, &format!("dead replay {id} --wait --json")).await?;
    assert!(replayed.well, "{replayed:?}");
    let told = replayed.lines()?;
    assert_eq!(
        (&told[0]["done"], &told[1]["status"]),
        (&"replayed".into(), &"ok".into())
    );
    wait_until_empty(client, "INFER_JOBS").await?;
    let (mended, new) = outcome(client, &id).await?;
    assert!(mended.is_ok(), "{}", mended.text());
    assert!(new > old);
    let label = &mended.json().context("JSON")?["predictions"][0]["label"];
    assert_eq!(*label, image.label);
    assert_eq!(messages_in(client, "INFER_DEAD").await?, 0);
    assert_eq!(messages_in(client, "INFER_RESULTS").await?, 1);

    let gone = inferq(&stack, &format!("dead replay {id}")).await?;
    assert!(
        !gone.well && gone.err.contains("has no dead letter"),
        "{gone:?}"
    );
    Ok(stack.stop().await?)
}

/// Makes a job die of too many deliveries: taken once and given back by nobody in particular.
async fn dead_of_attempts(stack: &Stack) -> Result<JobId> {
    let client = stack.client();
    let image = &digits::held_out()?[0];
    let submitted = client
        .submit(job("digits", image.row_request()).max_attempts(1))
        .await?;
    let server = jetstream::new(client.nats().clone());
    let consumer: jetstream::consumer::PullConsumer = server
        .get_consumer_from_stream("digits__normal", "INFER_JOBS")
        .await?;
    let mut batch = consumer
        .batch()
        .max_messages(1)
        .expires(PATIENCE)
        .messages()
        .await?;
    let message = batch.next().await.context("a delivery")?;
    let message = message.map_err(|error| anyhow::anyhow!(error))?;
    message
        .ack_with(jetstream::AckKind::Nak(None))
        .await
        .map_err(|error| anyhow::anyhow!(error))?;
    Ok(submitted.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_found_by_model_lane_code_status_age_and_id_and_purged_by_the_same()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    fixtures::add_digits(folder.path(), "digits")?;
    fixtures::add_digits(folder.path(), "other")?;
    let stack = start(StackOptions {
        workers: 0,
        ..StackOptions::new(folder.path())
    })
    .await?;
    let client = stack.client().clone();
    let admin = client.admin(AssetPlan::default());
    for model in ["digits", "other"] {
        admin.ensure_model(&model.parse()?).await?;
    }
    let spent = dead_of_attempts(&stack).await?;
    stack.start_worker().await?;
    client.result(&spent, PATIENCE).await?;
    wait_until_empty(&client, "INFER_JOBS").await?;
    let (input, _) = run(&client, job("digits", CUT).lane(Lane::Low)).await?;
    let (version, _) = run(&client, job("other", CUT).version(9)).await?;

    let ids = async |arguments: &str| -> Result<Vec<String>> {
        let listed = inferq(&stack, &format!("dead ls --json {arguments}")).await?;
        ensure!(listed.well, "{listed:?}");
        let ids = listed
            .lines()?
            .into_iter()
            .map(|line| line["job"].to_string());
        Ok(ids.map(|id| id.trim_matches('"').to_owned()).collect())
    };
    let named =
        |jobs: &[&JobId]| -> Vec<String> { jobs.iter().map(|job| job.to_string()).collect() };
    assert_eq!(ids("--since 1h").await?, named(&[&spent, &input, &version]));
    assert_eq!(ids("--until 1h").await?, named(&[]));
    assert_eq!(ids("--model digits").await?, named(&[&spent, &input]));
    assert_eq!(ids("--lane low").await?, named(&[&input]));
    assert_eq!(ids("--model other --lane low").await?, named(&[]));
    assert_eq!(ids("--code 404").await?, named(&[&version]));
    assert_eq!(ids("--status dead").await?, named(&[&spent]));
    assert_eq!(ids("--status error --limit 1").await?, named(&[&version]));
    assert_eq!(
        ids(&format!("{input} {spent}")).await?,
        named(&[&spent, &input])
    );
    let between = DeadFilter {
        since: Some(letter(&client, &input).await?.stored),
        until: Some(letter(&client, &version).await?.stored),
        ..DeadFilter::default()
    };
    let found = client.dead().list(&between).await?;
    assert_eq!(found.letters, [letter(&client, &input).await?]);

    let unasked = inferq(&stack, "dead purge --all --model digits").await?;
    assert!(
        !unasked.well && unasked.err.contains("--yes"),
        "{unasked:?}"
    );
    let unnamed = inferq(&stack, "dead purge --yes").await?;
    assert!(
        !unnamed.well && unnamed.err.contains("--all"),
        "{unnamed:?}"
    );
    assert_eq!(messages_in(&client, "INFER_DEAD").await?, 3);
    let purged = inferq(&stack, "dead purge --all --model digits --yes --json").await?;
    let purged = purged.lines()?;
    assert!(
        purged.iter().all(|line| line["done"] == "purged"),
        "{purged:?}"
    );
    assert_eq!((purged.len(), ids("").await?), (2, named(&[&version])));
    assert_eq!(
        messages_in(&client, "INFER_RESULTS").await?,
        3,
        "outcomes stay"
    );
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_job_has_failed_there_is_nothing_to_list_or_show() -> Result<()> {
    let stack = stack(0).await?;
    let listed = inferq(&stack, "dead ls").await?;
    assert!(
        listed.well && listed.err.contains("no dead letter matches"),
        "{listed:?}"
    );
    let none = inferq(&stack, "dead show no-such-job").await?;
    assert!(
        !none.well && none.err.contains("has no dead letter"),
        "{none:?}"
    );
    Ok(stack.stop().await?)
}
