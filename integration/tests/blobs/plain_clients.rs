//! Clients that know nothing of inferq: told where a large answer is, and able to send a large body.

use anyhow::{Context, Result, ensure};
use inferq::{Client, ContentType};
use inferq_integration::plain::Answer;
use inferq_integration::{PATIENCE, plain, wait_until_empty};
use inferq_schemas::{Digest, PayloadRef};
use tokio::io::AsyncReadExt;

use crate::{BUCKET, LARGE, bucket, numbers, passing, request, wait_for_objects};

/// Rows whose answer is about twice as long, since `1` comes back as `1.0`.
fn short_request() -> String {
    format!(r#"{{"instances": [[1{}]]}}"#, ",1".repeat(399_999))
}

fn long_answer() -> String {
    format!(r#"{{"predictions":[[1.0{}]]}}"#, ",1.0".repeat(399_999))
}

/// Reads what an answer refers to as any client does: by its name, from the bucket.
async fn read(client: &Client, answer: &Answer) -> Result<Vec<u8>> {
    let reference = answer.header("Infer-Payload-Ref").context("a reference")?;
    let parts: Vec<&str> = reference.split(';').collect();
    let [name, size, digest] = parts.as_slice() else {
        anyhow::bail!("{reference}");
    };
    let mut body = Vec::new();
    let mut object = bucket(client).await?.get(name).await?;
    // The client checks the digest that the bucket keeps.
    object.read_to_end(&mut body).await?;
    ensure!(*size == format!("size={}", body.len()), "{reference}");
    ensure!(
        *digest == format!("blake3={}", Digest::of(&body)),
        "{reference}"
    );
    Ok(body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_follow_references_is_told_413_and_where_the_answer_is() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let stack = passing(folder.path(), 1).await?;
    let (client, nats) = (stack.client(), stack.client().nats());
    let called = plain::request(nats, "infer.rpc.pass", &[], short_request()).await?;
    let id = [("Infer-Job-Id", "told")];
    let subject = "infer.jobs.pass.normal";
    let told = plain::job_with_reply(nats, subject, &id, short_request(), PATIENCE).await?;
    for answer in [&called, &told] {
        assert_eq!(answer.code(), Some(413), "{:?}", answer.headers);
        assert_eq!(answer.header("Infer-Status"), Some("error"));
        let message = answer.json()?;
        let message = message["error"].as_str().context("an error")?;
        assert!(
            message.contains(BUCKET) && message.contains("Infer-Accept"),
            "{message}"
        );
        assert!(read(client, answer).await? == long_answer().as_bytes());
    }
    // The outcome itself is the answer, and there is no dead letter.
    let record = plain::outcome(nats, "told", PATIENCE).await?;
    assert_eq!(
        (record.header("Infer-Status"), record.code()),
        (Some("ok"), None)
    );
    assert_eq!(
        record.header("Infer-Payload-Ref"),
        told.header("Infer-Payload-Ref")
    );
    assert_eq!(
        inferq_integration::messages_in(client, "INFER_DEAD").await?,
        0
    );
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_follows_references_is_given_the_reference_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = passing(folder.path(), 1).await?;
    let (client, nats) = (stack.client(), stack.client().nats());
    let accepts = [("Infer-Accept", "ref")];
    let called = plain::request(nats, "infer.rpc.pass", &accepts, short_request()).await?;
    let subject = "infer.jobs.pass.normal";
    let told = plain::job_with_reply(nats, subject, &accepts, short_request(), PATIENCE).await?;
    for answer in [&called, &told] {
        assert_eq!(answer.header("Infer-Status"), Some("ok"));
        assert_eq!((answer.code(), answer.body.len()), (None, 0));
        assert!(read(client, answer).await? == long_answer().as_bytes());
    }
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_stored_by_any_client_is_run_and_deleted_and_is_the_same_body_as_in_a_message()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = passing(folder.path(), 1).await?;
    let (client, nats) = (stack.client(), stack.client().nats());
    let subject = "infer.jobs.pass.normal";
    let send = async |name: &str, body: &[u8]| {
        bucket(client).await?.put(name, &mut &*body).await?;
        let reference = format!("{name};size={};blake3={}", body.len(), Digest::of(body));
        let headers = [
            ("Infer-Job-Id", "mine"),
            ("Infer-Payload-Ref", reference.as_str()),
        ];
        plain::job_with_reply(nats, subject, &headers, "", PATIENCE).await
    };
    let small = br#"{"instances": [[1, 2]]}"#;
    let first = send("by-reference", small).await?;
    assert_eq!(
        first.json()?["predictions"][0],
        serde_json::json!([1.0, 2.0])
    );
    wait_until_empty(client, "INFER_JOBS").await?;
    wait_for_objects(client, 0).await?;

    // The same id with the same body in the message is answered alike, with another it is a conflict.
    let id = [("Infer-Job-Id", "mine")];
    let same = plain::job_with_reply(nats, subject, &id, &small[..], PATIENCE).await?;
    assert_eq!(
        same.header("Infer-Body-Digest"),
        first.header("Infer-Body-Digest")
    );
    assert_eq!(same.body, first.body);
    let other = send("another", br#"{"instances": [[1, 3]]}"#).await?;
    assert_eq!(other.code(), Some(409), "{other:?}");
    Ok(stack.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_by_reference_is_answered_like_any_other() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = passing(folder.path(), 1).await?;
    let (client, nats) = (stack.client(), stack.client().nats());
    let values = numbers(LARGE, 1);
    let body = request(&values)?.encode(ContentType::Cbor)?;
    let reference = PayloadRef::fresh(&body);
    let bucket = bucket(client).await?;
    bucket.put(reference.name(), &mut body.as_ref()).await?;
    let reference = reference.to_string();
    let headers = [
        ("Infer-Payload-Ref", reference.as_str()),
        ("Infer-Accept", "ref"),
    ];
    let answer = plain::request(nats, "infer.rpc.pass", &headers, "").await?;
    // Without a Content-Type it is recognized once it is fetched.
    assert_eq!(answer.header("Content-Type"), Some("application/cbor"));
    let body = read(client, &answer).await?.into();
    let limits = inferq_schemas::Limits::default();
    let response = inferq::InferResponse::decode(&body, ContentType::Cbor, &limits)?;
    assert!(response.outputs[0].to_f32()? == values);
    Ok(stack.stop().await?)
}
