//! What the outside may ask a worker over HTTP: `/metrics`, `/healthz` and `/readyz`.
//!
//! Healthy means the process answers; ready means it serves at least one model and is not draining.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use inferq_schemas::registry::WorkerState;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// A port that is taken and not yet served.
pub struct HealthServer {
    listener: TcpListener,
    address: SocketAddr,
}

#[derive(Clone)]
struct Shown {
    metrics: Metrics,
    state: watch::Receiver<WorkerState>,
}

impl HealthServer {
    /// Takes the port; port 0 takes a free one.
    ///
    /// # Errors
    /// If the address is taken or not ours.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`. Stop it last, so that the drain can be watched.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve(
        self,
        metrics: Metrics,
        state: watch::Receiver<WorkerState>,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let router = Router::new()
            .route("/metrics", get(metrics_text))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readiness))
            .with_state(Shown { metrics, state });
        tokio::select! {
            served = axum::serve(self.listener, router) => served,
            // Open keep-alive connections must not delay the end.
            () = stop.cancelled_owned() => Ok(()),
        }
    }
}

async fn metrics_text(State(shown): State<Shown>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shown.metrics.encode())
}

async fn readiness(State(shown): State<Shown>) -> impl IntoResponse {
    match *shown.state.borrow() {
        WorkerState::Ready => (StatusCode::OK, "ready\n"),
        WorkerState::Starting => (
            StatusCode::SERVICE_UNAVAILABLE,
            "starting: no model is ready, or NATS is away\n",
        ),
        WorkerState::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it reads");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .expect("it answers");
        answer
    }

    #[tokio::test]
    async fn readiness_follows_the_state_and_health_does_not() {
        let server = HealthServer::bind(([127, 0, 0, 1], 0).into())
            .await
            .expect("a free port");
        let address = server.address();
        let (state, shown) = watch::channel(WorkerState::Starting);
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.serve(Metrics::new(), shown, stop.clone()));
        for (now, ready) in [
            (WorkerState::Starting, "HTTP/1.1 503"),
            (WorkerState::Ready, "HTTP/1.1 200"),
            (WorkerState::Draining, "HTTP/1.1 503"),
        ] {
            state.send_replace(now);
            assert!(ask(address, "/readyz").await.starts_with(ready), "{now:?}");
            assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        }
        let metrics = ask(address, "/metrics").await;
        assert!(
            metrics.contains("application/openmetrics-text") && metrics.contains("# EOF"),
            "{metrics}"
        );
        stop.cancel();
        serving.await.expect("no panic").expect("a clean end");
        assert!(
            TcpStream::connect(address).await.is_err(),
            "the port is free again"
        );
    }
}
