//! The HTTP door in front of a real queue, as a client that knows only HTTP sees it.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use inferq::ByteSize;
use inferq::stack::Stack;
use inferq_integration::{digits, stack};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Small enough that a test can exceed it.
const MAX_BODY: ByteSize = ByteSize::bytes(64 << 10);

struct Gateway {
    stack: Stack,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Gateway {
    async fn start() -> Result<Self> {
        let stack = stack(1).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let client = stack.client().clone();
        let serving = tokio::spawn(inferq_gateway::serve(listener, client, MAX_BODY, async {
            stopped.await.ok();
        }));
        Ok(Self {
            stack,
            address,
            stop,
            serving,
        })
    }

    async fn get(&self, path: &str) -> Result<(u16, Value)> {
        self.ask("GET", path, "").await
    }

    async fn post(&self, path: &str, body: &str) -> Result<(u16, Value)> {
        self.ask("POST", path, body).await
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
        let mut stream = TcpStream::connect(self.address).await?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        // A body that is too large is answered before all of it is read.
        stream.write_all(body.as_bytes()).await.ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        let answer = String::from_utf8(answer)?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("no end of the head")?;
        assert!(head.contains("content-type: application/json"), "{head}");
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok((status, serde_json::from_str(body)?))
    }

    async fn stop(self) -> Result<()> {
        drop(self.stop);
        self.serving.await??;
        Ok(self.stack.stop().await?)
    }
}

/// The message of an error answer, which has nothing else.
fn refused((status, body): (u16, Value)) -> (u16, String) {
    let fields = body.as_object().expect("an object");
    assert_eq!(fields.len(), 1, "{body}");
    (status, body["error"].as_str().expect("a text").to_owned())
}

#[tokio::test]
async fn a_row_is_answered_in_both_protocols_as_the_engine_alone_would() -> Result<()> {
    let gateway = Gateway::start().await?;
    let images = digits::held_out()?;
    let image = &images[0];
    let expected = digits::expected(&images[..1])?;
    for path in [
        "/v1/models/digits:predict",
        "/v1/models/digits/versions/1:predict",
    ] {
        let (status, answer) = gateway.post(path, &image.row_request()).await?;
        assert_eq!(status, 200, "{path}: {answer}");
        let row = &answer["predictions"][0];
        assert_eq!(row["label"], image.label, "{path}: {answer}");
        assert_eq!(floats(&row["probabilities"]), expected[0], "{path}");
    }
    for path in [
        "/v2/models/digits/infer",
        "/v2/models/digits/versions/1/infer",
    ] {
        let (status, answer) = gateway.post(path, &image.tensor_request()).await?;
        assert_eq!(status, 200, "{path}: {answer}");
        assert_eq!(
            (&answer["model_name"], &answer["model_version"]),
            (&json!("digits"), &json!("1"))
        );
        let outputs = answer["outputs"].as_array().context("outputs")?;
        let output = outputs
            .iter()
            .find(|output| output["name"] == "probabilities")
            .context("an output")?;
        assert_eq!(output["shape"], json!([1, 10]));
        assert_eq!(floats(&output["data"]), expected[0], "{path}");
    }
    gateway.stop().await
}

#[tokio::test]
async fn a_wrong_request_has_the_status_and_the_words_of_the_worker() -> Result<()> {
    let gateway = Gateway::start().await?;
    let predict = "/v1/models/digits:predict";
    let short = json!({ "instances": [vec![0; 63]] }).to_string();
    let (status, message) = refused(gateway.post(predict, &short).await?);
    assert_eq!(status, 400);
    assert!(message.contains("instances[0]: 63 values"), "{message}");

    let data =
        json!([{ "name": "input", "datatype": "FP32", "shape": [1, 64], "data": vec![0; 63] }]);
    let short = json!({ "inputs": data }).to_string();
    let (status, message) = refused(gateway.post("/v2/models/digits/infer", &short).await?);
    assert_eq!(status, 400);
    assert!(message.contains("inputs[0]"), "{message}");

    for broken in ["", "{", "[]", "not json"] {
        let (status, _) = refused(gateway.post(predict, broken).await?);
        assert_eq!(status, 400, "{broken}");
    }
    let image = &digits::held_out()?[0];
    let (status, message) = refused(
        gateway
            .post("/v1/models/digits/versions/7:predict", &image.row_request())
            .await?,
    );
    assert_eq!(status, 404);
    assert!(message.contains('7'), "{message}");

    let huge = " ".repeat(MAX_BODY.as_u64() as usize + 1);
    let (status, message) = refused(gateway.post(predict, &huge).await?);
    assert_eq!(status, 413);
    assert!(message.contains("--max-body"), "{message}");
    gateway.stop().await
}

#[tokio::test]
async fn an_unknown_model_or_path_is_refused_with_a_hint() -> Result<()> {
    let gateway = Gateway::start().await?;
    for path in ["/v1/models/digit:predict", "/v2/models/digit/infer"] {
        let (status, message) = refused(gateway.post(path, "{}").await?);
        assert_eq!(status, 404, "{path}");
        assert!(message.contains("did you mean `digits`?"), "{message}");
    }
    for path in ["/v1/models/digit", "/v2/models/digit"] {
        let (status, message) = refused(gateway.get(path).await?);
        assert_eq!(status, 404, "{path}");
        assert!(message.contains("did you mean `digits`?"), "{message}");
    }
    let (status, message) = refused(gateway.post("/v1/models/digits:classify", "{}").await?);
    assert_eq!(status, 400);
    assert!(
        message.starts_with("Malformed request: POST /v1/models/digits:classify"),
        "{message}"
    );
    assert_eq!(refused(gateway.get("/v1/nothing").await?).0, 400);
    assert_eq!(refused(gateway.get("/v1/models/%ff").await?).0, 400);
    assert_eq!(refused(gateway.get("/nothing").await?).0, 404);
    assert_eq!(
        refused(gateway.get("/v2/models/digits/infer").await?).0,
        405
    );
    gateway.stop().await
}

#[tokio::test]
async fn models_and_health_are_told_from_the_workers_records() -> Result<()> {
    let gateway = Gateway::start().await?;
    assert_eq!(
        gateway.get("/v2/health/live").await?,
        (200, json!({ "live": true }))
    );
    let ready = json!({ "live": true, "ready": true });
    assert_eq!(gateway.get("/v2/health/ready").await?, (200, ready));

    let (status, model) = gateway.get("/v2/models/digits").await?;
    assert_eq!(status, 200, "{model}");
    assert_eq!(model["versions"], json!(["1"]));
    assert_eq!(
        model["inputs"],
        json!([{ "name": "input", "datatype": "FP32", "shape": [-1, 64] }])
    );

    let (status, model) = gateway.get("/v1/models/digits").await?;
    assert_eq!(status, 200, "{model}");
    let version = json!({ "version": "1", "state": "AVAILABLE", "status": { "error_code": "OK", "error_message": "" } });
    assert_eq!(model, json!({ "model_version_status": [version] }));
    gateway.stop().await
}

fn floats(values: &Value) -> Vec<f32> {
    let values = values.as_array().map(Vec::as_slice).unwrap_or_default();
    values
        .iter()
        .filter_map(Value::as_f64)
        .map(|value| value as f32)
        .collect()
}
