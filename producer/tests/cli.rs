//! The program as people and scripts see it: output and exit codes.

mod common;

use std::process::Output;

use tokio::process::Command;

use common::{answer, deployment, server};
use inferq::AssetPlan;

async fn inferq(url: &str, arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_inferq"))
        .args(["--nats", url])
        .args(arguments)
        .env_remove("RUST_LOG")
        .output();
    output.await.expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json_lines(output: &Output) -> Vec<serde_json::Value> {
    let lines = text(&output.stdout);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

#[tokio::test]
async fn init_twice_creates_and_then_leaves_everything_alone() {
    let (server, _data) = server().await;
    for change in ["created", "unchanged"] {
        let output = inferq(server.url(), &["init", "--model", "digits", "--json"]).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        let lines = json_lines(&output);
        assert_eq!(lines.len(), 16);
        assert!(
            lines.iter().all(|line| line["change"] == change),
            "{lines:?}"
        );
    }
    let people = inferq(server.url(), &["init"]).await;
    let shown = text(&people.stdout);
    assert!(
        shown.contains("INFER_JOBS") && !shown.contains('\u{1b}'),
        "{shown}"
    );
}

#[tokio::test]
async fn errors_are_one_line_with_the_next_step_and_exit_code_one() {
    let nobody = inferq("nats://127.0.0.1:1", &["workers"]).await;
    assert_eq!(nobody.status.code(), Some(1));
    let told = text(&nobody.stderr);
    assert!(
        told.contains("inferq up") && told.trim_end().lines().count() == 1,
        "{told}"
    );
    let deployment = deployment(AssetPlan::default()).await;
    let mistyped = inferq(deployment.server.url(), &["call", "digit", "{}", "--json"]).await;
    assert_eq!(mistyped.status.code(), Some(1));
    let error = json_lines(&mistyped)[0]["error"].to_string();
    assert!(error.contains("did you mean `digits`"), "{error}");
}

#[tokio::test]
async fn wrong_usage_is_exit_code_two() {
    let output = inferq("nats://127.0.0.1:1", &["submit"]).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn a_submitted_job_prints_its_id_and_its_outcome_is_shown_later() {
    let deployment = deployment(AssetPlan::default()).await;
    let url = deployment.server.url();
    let submitted = inferq(url, &["submit", "digits", r#"{"instances": [[1]]}"#]).await;
    assert!(submitted.status.success(), "{}", text(&submitted.stderr));
    let id = text(&submitted.stdout).trim().to_owned();
    let none = inferq(url, &["result", &id]).await;
    assert_eq!(none.status.code(), Some(1));
    let id_read = id.parse().expect("a job id");
    answer(&deployment.client, &id_read, b"", r#"{"predictions": [7]}"#).await;
    let found = inferq(url, &["result", &id]).await;
    assert_eq!(text(&found.stdout).trim(), r#"{"predictions": [7]}"#);
    let line = &json_lines(&inferq(url, &["result", &id, "--json"]).await)[0];
    assert_eq!(
        (&line["status"], &line["response"]["predictions"][0]),
        (&"ok".into(), &7.into())
    );
}

#[tokio::test]
async fn bench_counts_failures_by_code_and_fails_when_nothing_is_answered() {
    let deployment = deployment(AssetPlan::default()).await;
    let output = inferq(
        deployment.server.url(),
        &[
            "bench",
            "digits",
            "--body",
            "{}",
            "--count",
            "5",
            "--concurrency",
            "2",
            "--json",
        ],
    );
    let output = output.await;
    assert_eq!(output.status.code(), Some(1));
    let report = &json_lines(&output)[0]["report"];
    assert_eq!(
        (&report["sent"], &report["errors"]["503"]),
        (&5.into(), &5.into())
    );
}

#[tokio::test]
async fn up_with_a_taken_port_names_the_flag() {
    let (server, _data) = server().await;
    let port = server
        .url()
        .rsplit(':')
        .next()
        .expect("an address has a port");
    let models = tempfile::tempdir().expect("a temporary folder");
    let data = models.path().join("data");
    let up = Command::new(env!("CARGO_BIN_EXE_inferq"))
        .args(["up", "--worker-bin", "/bin/sh", "--port", port])
        .arg("--models")
        .arg(models.path())
        .arg("--data")
        .arg(data)
        .output();
    let up = up.await.expect("the program runs");
    assert_eq!(up.status.code(), Some(1));
    assert!(text(&up.stderr).contains("--port"), "{}", text(&up.stderr));
}

#[tokio::test]
async fn models_check_tells_what_a_worker_makes_of_a_model_and_how_fast_it_is() {
    let nobody = "nats://127.0.0.1:1";
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/../integration/models/digits");
    let check = ["models", "check", digits, "--gpu", "off", "--json"];
    let output = inferq(nobody, &check).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let [report] = &json_lines(&output)[..] else {
        panic!("{}", text(&output.stdout));
    };
    assert_eq!(report["proven"], true);
    let rows = report["speeds"].as_array().expect("a list").iter();
    assert_eq!(
        rows.map(|speed| &speed["rows"]).collect::<Vec<_>>(),
        [1, 8, 32]
    );
    let operators = report["operators"].as_array().expect("a list");
    assert!(
        operators
            .iter()
            .any(|operator| operator["name"] == "Dense" && operator["count"] == 3),
        "{operators:?}"
    );
    let missing = inferq(nobody, &["models", "check", "no/such/file"]).await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("nothing to check at `no/such/file`"));
}
