//! A real nats-server with the streams of a deployment, on a free port, gone at the end.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::time::Duration;

use async_nats::HeaderMap;
use inferq::{
    AssetPlan, Body, Client, Job, JobId, ModelName,
    stack::nats::{NatsOptions, NatsServer},
};
use inferq_schemas::{ContentType, OutcomeHeaders, Status, body_digest};

pub(crate) struct Deployment {
    pub(crate) client: Client,
    pub(crate) server: NatsServer,
    // Dropped last: the server writes into it.
    _data: tempfile::TempDir,
}

/// A server without anything on it.
pub(crate) async fn server() -> (NatsServer, tempfile::TempDir) {
    let data = tempfile::tempdir().expect("a temporary folder");
    let server = NatsServer::start(NatsOptions::new(data.path())).await;
    (server.expect("nats-server is installed"), data)
}

/// A server with everything on it, and the model `digits`.
pub(crate) async fn deployment(plan: AssetPlan) -> Deployment {
    let (server, data) = server().await;
    let client = Client::connect(server.url())
        .await
        .expect("the server answers");
    let admin = client.admin(plan);
    admin.init().await.expect("the assets can be made");
    admin
        .ensure_model(&digits())
        .await
        .expect("the model can be made known");
    Deployment {
        client,
        server,
        _data: data,
    }
}

pub(crate) fn digits() -> ModelName {
    "digits".parse().expect("a valid name")
}

pub(crate) fn job(body: impl Into<Body>) -> Job {
    Job::new(digits(), body)
}

/// Writes the outcome of a job, as a worker would.
pub(crate) async fn answer(client: &Client, id: &JobId, request: &[u8], body: &str) {
    let headers = OutcomeHeaders {
        job_id: id.clone(),
        status: Status::Ok,
        failure: None,
        worker: "test".to_owned(),
        model_version: Some(1),
        attempt: 1,
        body_digest: Some(body_digest(&digits(), request)),
        payload_ref: None,
        content_type: ContentType::Json,
        traceparent: None,
    };
    let mut map = HeaderMap::new();
    for (name, value) in headers.pairs() {
        map.insert(name, value.as_str());
    }
    map.insert("Nats-Expected-Last-Subject-Sequence", "0");
    let jetstream = async_nats::jetstream::new(client.nats().clone());
    let subject = client.subjects().result(id);
    let sent = jetstream
        .publish_with_headers(subject, map, body.to_owned().into())
        .await;
    sent.expect("the server is there")
        .await
        .expect("it is the first outcome");
}

/// Messages in a stream.
pub(crate) async fn messages(client: &Client, stream: &str) -> u64 {
    let jetstream = async_nats::jetstream::new(client.nats().clone());
    let stream = jetstream
        .get_stream(stream)
        .await
        .expect("the stream exists");
    stream.cached_info().state.messages
}

pub(crate) const SOON: Duration = Duration::from_secs(10);
