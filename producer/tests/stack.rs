//! The servers of a stack, and what happens without a worker program. Whole stacks with workers
//! are tested in `integration/`.

mod common;

use std::{net::TcpListener, path::PathBuf};

use inferq::stack::{
    DataFolder, Log, Port, RedisServer, Stack, StackError, StackOptions,
    nats::{NatsOptions, NatsServer},
};

use common::server;

#[tokio::test]
async fn servers_on_free_ports_never_meet() {
    let folders: Vec<_> = (0..4)
        .map(|_| tempfile::tempdir().expect("a temporary folder"))
        .collect();
    let starts = folders
        .iter()
        .map(|folder| NatsServer::start(NatsOptions::new(folder.path())));
    let servers: Vec<_> = futures::future::join_all(starts).await;
    let mut urls: Vec<_> = servers
        .iter()
        .map(|server| server.as_ref().expect("it starts").url())
        .collect();
    urls.sort_unstable();
    urls.dedup();
    assert_eq!(urls.len(), 4);
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_the_flag() {
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = held.local_addr().expect("it is bound").port();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = NatsOptions {
        port: Port::Fixed(port),
        ..NatsOptions::new(folder.path())
    };
    let error = NatsServer::start(options)
        .await
        .expect_err("the port is taken");
    assert!(error.to_string().contains("--port"), "{error}");
}

#[tokio::test]
async fn jobs_survive_a_restart_of_the_server_in_the_same_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = NatsServer::start(NatsOptions::new(folder.path()))
        .await
        .expect("it starts");
    let client = inferq::Client::connect(first.url())
        .await
        .expect("it answers");
    let admin = client.admin(inferq::AssetPlan::default());
    admin.init().await.expect("the assets can be made");
    admin
        .ensure_model(&common::digits())
        .await
        .expect("the model can be made known");
    client.submit(common::job("{}")).await.expect("it fits");
    first.stop().await;
    let second = NatsServer::start(NatsOptions::new(folder.path()))
        .await
        .expect("it starts again");
    let client = inferq::Client::connect(second.url())
        .await
        .expect("it answers");
    assert_eq!(common::messages(&client, "INFER_JOBS").await, 1);
}

#[tokio::test]
async fn redis_listens_on_a_socket_of_its_folder_and_on_no_port() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let redis = RedisServer::start(folder.path(), &Log::Quiet)
        .await
        .expect("it starts");
    let Some(redis) = redis else {
        panic!("this test needs redis-server; install it");
    };
    let socket = redis
        .url()
        .strip_prefix("redis+unix://")
        .expect("an address of a socket");
    assert!(PathBuf::from(socket).exists());
    redis.stop().await;
    assert!(tokio::net::UnixStream::connect(socket).await.is_err());
}

#[tokio::test]
async fn a_dropped_server_is_gone() {
    let (server, _data) = server().await;
    let address = server
        .url()
        .strip_prefix("nats://")
        .expect("an address")
        .to_owned();
    drop(server);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_stack_without_worker_program_or_models_says_so_before_it_starts_anything() {
    let models = tempfile::tempdir().expect("a temporary folder");
    let error = Stack::start(StackOptions {
        worker_bin: Some("/nowhere/inferq-worker".into()),
        ..StackOptions::new(models.path())
    });
    let error = error.await.expect_err("there is no such program");
    assert!(
        matches!(error, StackError::NoWorkerProgram { .. }),
        "{error}"
    );
    let error = Stack::start(StackOptions::new("/nowhere/models"))
        .await
        .expect_err("there is no such folder");
    assert!(error.to_string().contains("--models"), "{error}");
}

#[tokio::test]
async fn a_worker_that_ends_at_once_is_an_error_with_its_last_words() {
    let models = tempfile::tempdir().expect("a temporary folder");
    let program = models.path().join("broken-worker");
    std::fs::write(
        &program,
        "#!/bin/sh\necho no model could be loaded >&2\nexit 1\n",
    )
    .expect("writable");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
        .expect("our own file");
    let data = tempfile::tempdir().expect("a temporary folder");
    let error = Stack::start(StackOptions {
        worker_bin: Some(program),
        data: DataFolder::At(data.path().to_owned()),
        ..StackOptions::new(models.path())
    });
    let error = error.await.expect_err("the worker ends").to_string();
    assert!(
        error.contains("worker-1") && error.contains("no model could be loaded"),
        "{error}"
    );
    let again = StackOptions {
        workers: 0,
        worker_bin: Some("/bin/sh".into()),
        data: DataFolder::At(data.path().to_owned()),
        ..StackOptions::new(models.path())
    };
    let stack = Stack::start(again)
        .await
        .expect("nothing of the first one is left");
    stack.stop().await.expect("it stops");
}
