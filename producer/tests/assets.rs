//! Streams, buckets and consumers on a real server.

mod common;

use inferq::{
    AssetPlan, ByteSize, Client,
    assets::{AssetError, Change},
    stack::nats::{NatsOptions, NatsServer},
};

use common::{deployment, digits, server};

#[tokio::test]
async fn everything_is_made_once_and_the_second_time_nothing_changes() {
    let (server, _data) = server().await;
    let client = Client::connect(server.url())
        .await
        .expect("the server answers");
    let admin = client.admin(AssetPlan::default());
    let made = admin.init().await.expect("the assets can be made");
    assert_eq!(made.len(), 10);
    assert!(
        made.iter().all(|change| change.change == Change::Created),
        "{made:?}"
    );
    // What the server does not know is left out, and nothing else.
    let knows_compression = client.nats().is_server_compatible(2, 10, 0);
    for change in &made {
        let lacks = change.asset == "INFER_DEAD" && !knows_compression;
        assert_eq!(!change.without.is_empty(), lacks, "{change:?}");
    }
    let consumers = admin
        .ensure_model(&digits())
        .await
        .expect("the consumers can be made");
    assert_eq!(consumers.len(), 6);
    let again = admin.init().await.expect("they are there");
    let more = admin.ensure_model(&digits()).await.expect("they are there");
    for change in again.iter().chain(&more) {
        assert_eq!(change.change, Change::Unchanged, "{}", change.asset);
    }
    assert_eq!(
        client.models().await.expect("the bucket is there"),
        ["digits"]
    );
}

#[tokio::test]
async fn another_size_updates_that_field_and_says_so() {
    let deployment = deployment(AssetPlan::default()).await;
    let larger = AssetPlan {
        dead_bytes: ByteSize::mib(129),
        ..AssetPlan::default()
    };
    let changes = deployment
        .client
        .admin(larger)
        .init()
        .await
        .expect("a size may change");
    let changed: Vec<String> = changes
        .iter()
        .filter(|change| change.change != Change::Unchanged)
        .map(|change| format!("{} {}", change.asset, change.change))
        .collect();
    assert_eq!(
        changed,
        ["INFER_DEAD updated: max_bytes 134217728 -> 135266304"]
    );
}

#[tokio::test]
async fn a_field_that_cannot_be_changed_is_an_error_that_names_it() {
    let deployment = deployment(AssetPlan::default()).await;
    let jetstream = async_nats::jetstream::new(deployment.client.nats().clone());
    let mut config = jetstream
        .get_stream("INFER_DEAD")
        .await
        .expect("it was made")
        .cached_info()
        .config
        .clone();
    jetstream
        .delete_stream("INFER_DEAD")
        .await
        .expect("it can go");
    config.retention = async_nats::jetstream::stream::RetentionPolicy::WorkQueue;
    jetstream
        .create_stream(config)
        .await
        .expect("another program makes it otherwise");
    let error = deployment.client.admin(AssetPlan::default()).init().await;
    let error = error.expect_err("retention cannot be changed");
    let text = error.to_string();
    assert!(
        text.contains("INFER_DEAD") && text.contains("retention"),
        "{text}"
    );
}

#[tokio::test]
async fn a_server_that_is_too_small_is_told_with_the_sum_it_must_hold() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let server = NatsServer::start(NatsOptions {
        max_file: ByteSize::mib(100),
        ..NatsOptions::new(data.path())
    });
    let server = server.await.expect("nats-server is installed");
    let client = Client::connect(server.url())
        .await
        .expect("the server answers");
    let plan = AssetPlan::default();
    let error = client
        .admin(plan.clone())
        .init()
        .await
        .expect_err("it does not fit");
    assert!(matches!(error, AssetError::NoRoom { .. }), "{error}");
    assert!(
        error.to_string().contains(&plan.file_bytes().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn the_streams_are_those_of_the_design() {
    use async_nats::jetstream::stream::{DiscardPolicy, RetentionPolicy, StorageType};
    let deployment = deployment(AssetPlan::default()).await;
    let jetstream = async_nats::jetstream::new(deployment.client.nats().clone());
    let config = async |name: &str| {
        let stream = jetstream.get_stream(name).await;
        stream
            .expect("the stream exists")
            .cached_info()
            .config
            .clone()
    };
    let jobs = config("INFER_JOBS").await;
    assert_eq!(jobs.subjects, ["infer.jobs.*.high", "infer.jobs.*.normal"]);
    assert_eq!(
        (jobs.retention, jobs.discard),
        (RetentionPolicy::WorkQueue, DiscardPolicy::New)
    );
    assert!(jobs.discard_new_per_subject && jobs.allow_direct);
    assert_eq!(jobs.max_messages_per_subject, 100_000);
    let rpc = config("INFER_RPC").await;
    assert_eq!(
        (rpc.storage, rpc.max_age.as_secs()),
        (StorageType::File, 60),
        "a single server would forget a stream in memory when it restarts"
    );
    let results = config("INFER_RESULTS").await;
    assert_eq!(
        (results.max_messages_per_subject, results.max_messages),
        (1, 4_000_000)
    );
    assert_eq!(config("KV_infer_workers").await.max_age.as_secs(), 20);
    assert_eq!(config("OBJ_infer_blobs").await.discard, DiscardPolicy::New);
    let stream = jetstream
        .get_stream("INFER_JOBS")
        .await
        .expect("the stream exists");
    let consumer = stream
        .consumer_info("digits__high")
        .await
        .expect("the consumer exists");
    assert_eq!(consumer.config.ack_wait.as_secs(), 30);
    assert_eq!(
        (consumer.config.max_deliver, consumer.config.max_ack_pending),
        (-1, 65_536)
    );
}
