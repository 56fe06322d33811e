//! A job, a request and an error, as clients see them, in both encodings.

use anyhow::{Context, Result};
use inferq::{ContentType, InferRequest, JobId, ModelName};
use inferq_integration::{PATIENCE, digits, job, plain, stack, wait_until_empty};
use inferq_schemas::{Inputs, Tensor};

#[tokio::test]
async fn a_json_job_is_answered_as_the_engine_alone_would() -> Result<()> {
    let stack = stack(1).await?;
    let images = digits::held_out()?;
    let images = &images[..20];
    for (image, expected) in images.iter().zip(digits::expected(images)?) {
        let submitted = stack
            .client()
            .submit(job("digits", image.tensor_request()))
            .await?;
        let outcome = stack.client().wait(&submitted, PATIENCE).await?;
        assert!(outcome.is_ok(), "{:?}", outcome.failure());
        let response = outcome.response()?;
        let probabilities = response
            .outputs
            .iter()
            .find(|output| output.name == "probabilities")
            .context("an output")?;
        assert_eq!(probabilities.shape, [1, 10]);
        assert_eq!(probabilities.to_f32()?, expected);
    }
    wait_until_empty(stack.client(), "INFER_JOBS").await?;
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_cbor_job_has_a_cbor_answer_with_the_same_bits() -> Result<()> {
    let stack = stack(1).await?;
    let images = digits::held_out()?;
    let images = &images[..5];
    let expected = digits::expected(images)?;
    let pixels: Vec<f32> = images
        .iter()
        .flat_map(|image| image.pixels.iter().copied())
        .collect();
    let input = Tensor::from_f32("input", vec![images.len(), digits::PIXELS], &pixels)?;
    let request = InferRequest::new(Inputs::Tensors(vec![input]));
    let model = ModelName::new("digits")?;
    let submitted = stack
        .client()
        .submit(inferq::Job::new(model, request))
        .await?;
    let outcome = stack.client().wait(&submitted, PATIENCE).await?;
    assert_eq!(outcome.headers.content_type, ContentType::Cbor);
    let response = outcome.response()?;
    let probabilities = response
        .outputs
        .iter()
        .find(|output| output.name == "probabilities")
        .context("an output")?;
    assert_eq!(probabilities.to_f32()?, expected.concat());
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_plain_request_is_answered_with_predictions() -> Result<()> {
    let stack = stack(1).await?;
    let image = &digits::held_out()?[0];
    let answer = plain::request(
        stack.client().nats(),
        "infer.rpc.digits",
        &[],
        image.row_request(),
    )
    .await?;
    let predictions = answer.json()?["predictions"].clone();
    assert_eq!(
        predictions.as_array().context("an array")?.len(),
        1,
        "{predictions}"
    );
    assert_eq!(predictions[0]["label"], image.label);
    assert_eq!(
        (answer.code(), answer.header("Infer-Status")),
        (None, Some("ok"))
    );
    assert!(answer.header("Infer-Worker").is_some());
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_plain_job_is_replied_to_and_its_outcome_kept() -> Result<()> {
    let stack = stack(1).await?;
    let nats = stack.client().nats();
    let image = &digits::held_out()?[1];
    let headers = [("infer-job-id", "plain-1")];
    let reply = plain::job_with_reply(
        nats,
        "infer.jobs.digits.high",
        &headers,
        image.row_request(),
        PATIENCE,
    )
    .await?;
    assert_eq!(reply.json()?["predictions"][0]["label"], image.label);
    let kept = plain::outcome(nats, "plain-1", PATIENCE).await?;
    assert_eq!(kept.body, reply.body);
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_job_without_an_id_is_known_by_its_place_in_the_stream() -> Result<()> {
    let stack = stack(1).await?;
    let nats = stack.client().nats();
    let image = &digits::held_out()?[2];
    let sequence = plain::job(nats, "infer.jobs.digits.low", &[], image.row_request()).await?;
    let outcome = plain::outcome(nats, &format!("INFER_BULK-{sequence}"), PATIENCE).await?;
    assert_eq!(outcome.json()?["predictions"][0]["label"], image.label);
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn every_kind_of_wrong_input_is_refused_with_its_place() -> Result<()> {
    let stack = stack(1).await?;
    let nats = stack.client().nats();
    let row = |values: usize| serde_json::json!({ "instances": [vec![0; values]] }).to_string();
    let tensor = |datatype: &str, shape: &[usize], data: serde_json::Value| {
        let input = serde_json::json!({ "name": "input", "datatype": datatype, "shape": shape, "data": data });
        serde_json::json!({ "inputs": [input] }).to_string()
    };
    let cases = [
        (row(63), 400, "instances[0]"),
        (
            tensor("FP32", &[1, 64], serde_json::json!(vec![0; 63])),
            400,
            "inputs[0].data: 63 values for shape [1,64]",
        ),
        (
            tensor("FP32", &[1, 32], serde_json::json!(vec![0; 32])),
            400,
            "inputs[0].shape",
        ),
        (
            tensor("FP33", &[1, 64], serde_json::json!(vec![0; 64])),
            400,
            "inputs[0].datatype",
        ),
        (
            tensor("FP32", &[1, 64], serde_json::json!("text")),
            400,
            "inputs[0].data",
        ),
        ("{\"instances\": [[0, 0".to_owned(), 400, "line 1"),
        ("{\"instances\": []}".to_owned(), 400, "instances"),
        ("{}".to_owned(), 400, "inputs"),
        (String::new(), 400, ""),
        (r#"{"inputs": {"inputt": [[0]]}}"#.to_owned(), 400, "input"),
    ];
    for (body, code, place) in cases {
        let answer = plain::request(nats, "infer.rpc.digits", &[], body.clone()).await?;
        assert_eq!(answer.code(), Some(code), "{body}");
        let message = answer.json()?["error"]
            .as_str()
            .context("an error text")?
            .to_owned();
        assert!(
            message.contains(place),
            "{body} was refused with: {message}"
        );
        assert!(
            answer
                .header("Nats-Service-Error")
                .is_some_and(|header| !header.is_empty())
        );
    }
    let cbor = plain::request(
        nats,
        "infer.rpc.digits",
        &[("Content-Type", "application/cbor")],
        vec![0xbf, 0xff],
    )
    .await?;
    assert_eq!(
        (cbor.code(), cbor.header("Content-Type")),
        (Some(400), Some("application/cbor"))
    );
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn unreadable_headers_and_unknown_versions_end_in_an_outcome() -> Result<()> {
    let stack = stack(1).await?;
    let nats = stack.client().nats();
    let body = digits::held_out()?[0].row_request();
    let cases = [
        (("Infer-Max-Attempts", "none"), 400, "Infer-Max-Attempts"),
        (("Infer-Version", "9"), 404, "version 9"),
        (("Infer-Label", "canary"), 404, "label `canary`"),
        (("Infer-Timeout", "soon"), 400, "Infer-Timeout"),
    ];
    for (header, code, place) in cases {
        let answer = plain::job_with_reply(
            nats,
            "infer.jobs.digits.normal",
            &[header],
            body.clone(),
            PATIENCE,
        )
        .await?;
        assert_eq!(answer.code(), Some(code), "{header:?}");
        let message = answer.json()?["error"]
            .as_str()
            .context("an error text")?
            .to_owned();
        assert!(
            message.contains(place),
            "{header:?} was refused with: {message}"
        );
    }
    // Each of them is an `error`, so each has a dead letter.
    assert_eq!(
        inferq_integration::messages_in(stack.client(), "INFER_DEAD").await?,
        4
    );
    wait_until_empty(stack.client(), "INFER_JOBS").await?;
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn an_id_that_belongs_to_another_body_is_a_conflict() -> Result<()> {
    let stack = stack(1).await?;
    let nats = stack.client().nats();
    let images = digits::held_out()?;
    let headers = [("Infer-Job-Id", "twice")];
    let send = |image: usize| {
        plain::job_with_reply(
            nats,
            "infer.jobs.digits.normal",
            &headers,
            images[image].row_request(),
            PATIENCE,
        )
    };
    let first = send(0).await?;
    let same = send(0).await?;
    assert_eq!(
        (first.code(), same.code(), &same.body),
        (None, None, &first.body)
    );
    let other = send(1).await?;
    assert_eq!(other.code(), Some(409));
    assert!(
        other.json()?["error"]
            .as_str()
            .is_some_and(|error| error.contains("belongs to another body"))
    );
    let kept = plain::outcome(nats, "twice", PATIENCE).await?;
    assert_eq!(kept.body, first.body);
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_late_job_expires_without_being_run() -> Result<()> {
    let stack = stack(1).await?;
    let nats = stack.client().nats();
    let body = digits::held_out()?[0].row_request();
    let headers = [("Infer-Deadline", "1000"), ("Infer-Job-Id", "late")];
    let answer =
        plain::job_with_reply(nats, "infer.jobs.digits.normal", &headers, body, PATIENCE).await?;
    assert_eq!(
        (answer.code(), answer.header("Infer-Status")),
        (Some(408), Some("expired"))
    );
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_job_for_a_model_nobody_knows_ends_within_a_minute() -> Result<()> {
    let stack = stack(1).await?;
    let nats = stack.client().nats();
    let patience = std::time::Duration::from_secs(60);
    let headers = [("Infer-Job-Id", "lost")];
    let answer =
        plain::job_with_reply(nats, "infer.jobs.digit.normal", &headers, "{}", patience).await?;
    assert_eq!(
        (answer.code(), answer.header("Infer-Status")),
        (Some(404), Some("error"))
    );
    let message = answer.json()?["error"]
        .as_str()
        .context("an error text")?
        .to_owned();
    assert!(
        message.contains("digits"),
        "the nearest model is named: {message}"
    );
    assert_eq!(
        plain::outcome(nats, "lost", PATIENCE).await?.code(),
        Some(404)
    );
    wait_until_empty(stack.client(), "INFER_JOBS").await?;
    let refused = stack.client().submit(job("digit", "{}")).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("digits")));
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn reply_addresses_outside_the_allowed_prefixes_are_never_published_to() -> Result<()> {
    let stack = stack(1).await?;
    let nats = stack.client().nats();
    let body = digits::held_out()?[0].row_request();
    let headers = [
        ("Infer-Reply-To", "orders.delete.all"),
        ("Infer-Job-Id", "deputy"),
    ];
    plain::job(nats, "infer.jobs.digits.normal", &headers, body).await?;
    let outcome = plain::outcome(nats, "deputy", PATIENCE).await?;
    assert_eq!(outcome.code(), Some(400));
    assert!(
        outcome.json()?["error"]
            .as_str()
            .is_some_and(|error| error.contains("Infer-Reply-To"))
    );
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn service_discovery_shows_the_workers_and_their_counts() -> Result<()> {
    let stack = stack(2).await?;
    let nats = stack.client().nats();
    let image = &digits::held_out()?[0];
    for body in [image.row_request(), "{}".to_owned()] {
        plain::request(nats, "infer.rpc.digits", &[], body).await?;
    }
    let inbox = nats.new_inbox();
    let mut answers = nats.subscribe(inbox.clone()).await?;
    nats.publish_with_reply("$SRV.STATS.inferq", inbox, "".into())
        .await?;
    let (mut requests, mut errors) = (0, 0);
    for _ in 0..2 {
        let message = tokio::time::timeout(PATIENCE, futures::StreamExt::next(&mut answers))
            .await?
            .context("an answer")?;
        let stats: serde_json::Value = serde_json::from_slice(&message.payload)?;
        let endpoint = &stats["endpoints"][0];
        assert_eq!(endpoint["subject"], "infer.rpc.digits");
        requests += endpoint["num_requests"].as_u64().context("a count")?;
        errors += endpoint["num_errors"].as_u64().context("a count")?;
    }
    assert_eq!((requests, errors), (2, 1));
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_job_id_of_a_submitted_job_reads_its_outcome_later() -> Result<()> {
    let stack = stack(1).await?;
    let image = &digits::held_out()?[3];
    let id = JobId::random();
    stack
        .client()
        .submit(job("digits", image.row_request()).with_id(id.clone()))
        .await?;
    let outcome = stack.client().result(&id, PATIENCE).await?;
    assert!(outcome.is_ok());
    Ok(stack.stop().await?)
}
