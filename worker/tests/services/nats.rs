//! A nats-server of our own on a free port, with the streams and buckets that `inferq init` makes.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy};
use async_nats::jetstream::{self, consumer::pull, kv};
use inferq_schemas::Assets;
use inferq_schemas::subjects::{Lane, ModelName, Subjects};

/// A running server with JetStream and no assets yet.
pub(crate) struct Nats {
    process: Child,
    _folder: tempfile::TempDir,
    pub(crate) url: String,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) subjects: Subjects,
    pub(crate) assets: Assets,
}

impl Nats {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let named = std::env::var_os("NATS_SERVER").filter(|name| !name.is_empty());
        let mut command = Command::new(named.unwrap_or_else(|| "nats-server".into()));
        command
            .args(["-a", "127.0.0.1", "-p", "-1", "-js", "-sd"])
            .arg(folder.path().join("store"));
        command
            .arg("--ports_file_dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command
            .spawn()
            .expect("nats-server is on PATH; deploy/setup.sh installs it");
        let ports = folder
            .path()
            .join(format!("nats-server_{}.ports", process.id()));
        let begun = Instant::now();
        let url = loop {
            let text = std::fs::read_to_string(&ports).unwrap_or_default();
            if let Ok(ports) = serde_json::from_str::<serde_json::Value>(&text) {
                break ports["nats"][0]
                    .as_str()
                    .expect("it names its address")
                    .to_owned();
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "nats-server does not listen"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let client = async_nats::connect(&url).await.expect("it listens");
        let subjects = Subjects::default();
        let assets = Assets::new(&subjects);
        Self {
            process,
            _folder: folder,
            url,
            jetstream: jetstream::new(client),
            subjects,
            assets,
        }
    }

    /// A server with the streams of jobs and outcomes and the workers' bucket.
    pub(crate) async fn with_assets() -> Self {
        let nats = Self::start().await;
        let (assets, queue) = (&nats.assets, RetentionPolicy::WorkQueue);
        nats.add_stream(assets.jobs(), assets.jobs_subjects(), queue)
            .await;
        nats.add_stream(assets.bulk(), assets.bulk_subjects(), queue)
            .await;
        nats.add_stream(
            assets.results(),
            assets.results_subjects(),
            RetentionPolicy::Limits,
        )
        .await;
        nats.add_workers_bucket().await;
        nats
    }

    async fn add_stream(&self, name: &str, subjects: Vec<String>, retention: RetentionPolicy) {
        let config = Config {
            name: name.to_owned(),
            subjects,
            retention,
            discard: DiscardPolicy::New,
            allow_direct: true,
            ..Config::default()
        };
        self.jetstream
            .create_stream(config)
            .await
            .expect("a stream");
    }

    /// The helper of the client library fails on old servers, so the bucket is made as the stream it is.
    pub(crate) async fn add_workers_bucket(&self) {
        let bucket = self.assets.workers_kv();
        let config = Config {
            name: format!("KV_{bucket}"),
            subjects: vec![format!("$KV.{bucket}.>")],
            max_messages_per_subject: 1,
            max_age: Duration::from_secs(20),
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            ..Config::default()
        };
        self.jetstream
            .create_stream(config)
            .await
            .expect("a bucket");
    }

    pub(crate) async fn workers(&self) -> kv::Store {
        self.jetstream
            .get_key_value(self.assets.workers_kv())
            .await
            .expect("the bucket is there")
    }

    /// Makes `model` known on one lane.
    pub(crate) async fn add_consumer(&self, model: &str, lane: Lane) {
        let model = ModelName::new(model).expect("a good name");
        let stream = self
            .jetstream
            .get_stream(self.assets.stream_of(lane))
            .await
            .expect("the stream is there");
        let config = pull::Config {
            durable_name: Some(self.assets.consumer(&model, lane)),
            filter_subject: self.subjects.job(&model, lane),
            ..pull::Config::default()
        };
        stream.create_consumer(config).await.expect("a consumer");
    }

    /// Publishes a job and waits until it is stored.
    pub(crate) async fn publish(&self, subject: &str, body: &str) {
        let stored = self
            .jetstream
            .publish(subject.to_owned(), body.to_owned().into())
            .await
            .expect("published");
        stored.await.expect("stored");
    }

    /// Messages in a stream.
    pub(crate) async fn stored(&self, stream: &str) -> u64 {
        let stream = self
            .jetstream
            .get_stream(stream)
            .await
            .expect("the stream is there");
        stream.get_info().await.expect("it answers").state.messages
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until `holds`, and fails with `what` if it never does.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "not within 30 s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
