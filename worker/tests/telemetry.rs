//! Traces and metrics towards a collector that takes everything and answers nothing.

use std::io::Read;
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use inferq_worker::config::{LogFormat, TelemetryArgs};
use inferq_worker::metrics::{Door, Metrics, OutcomeLabel};
use inferq_worker::telemetry;

/// Accepts one connection and passes on how each read begins.
fn silent_collector() -> (String, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (reads, received) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the exporter connects");
        let mut buffer = [0; 4_096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if reads.send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    (format!("http://{address}"), received)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_delays_neither_jobs_nor_the_end() {
    let (endpoint, received) = silent_collector();
    let args = TelemetryArgs {
        log_format: LogFormat::Json,
        log: "warn".to_owned(),
        otlp_endpoint: Some(endpoint),
    };
    let telemetry = telemetry::start(&args, "worker-1").expect("it starts without an answer");
    let metrics = Metrics::new();
    let model = inferq_schemas::subjects::ModelName::new("digits").expect("a good name");
    let begun = Instant::now();
    let mut traced = 0;
    for _ in 0..50_000 {
        let span = tracing::info_span!(target: "inferq_worker::test", "job");
        traced += usize::from(telemetry::inject(&span).is_some());
        metrics.job_done(&model, Door::Job, OutcomeLabel::Ok, Duration::ZERO);
    }
    assert_eq!(traced, 50_000, "every span has a context to pass on");
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "jobs waited for the collector: {:?}",
        begun.elapsed()
    );
    let first = received
        .recv_timeout(Duration::from_secs(20))
        .expect("something is exported");
    assert!(first.starts_with(b"PRI * HTTP/2.0"), "it is not gRPC");
    let ending = Instant::now();
    telemetry.shutdown();
    assert!(
        ending.elapsed() < Duration::from_secs(8),
        "the end waited for the collector: {:?}",
        ending.elapsed()
    );
}
