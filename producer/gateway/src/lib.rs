//! HTTP door onto the queue: a POST becomes a call to a worker, and its answer the response.
//!
//! ```text
//! lib.rs       which path goes where; serving and stopping
//! config.rs    the flags of `inferq-gateway`
//! path.rs      what a path names: model, version, verb
//! infer.rs     POST: the body goes to a worker as it is, and so does the answer come back
//! describe.rs  GET: what a model takes, which versions are there, is anybody ready
//! registry.rs  the workers' records behind these answers
//! refusal.rs   failure -> HTTP status and {"error": "..."}
//! ```
//! | There | Open Inference Protocol v2 | TensorFlow Serving v1 |
//! |---|---|---|
//! | infer | `POST /v2/models/{m}[/versions/{v}]/infer` | `POST /v1/models/{m}[/versions/{v}]:predict` |
//! | model | `GET /v2/models/{m}` | `GET /v1/models/{m}` |
//! | health | `GET /v2/health/live`, `GET /v2/health/ready` | |
//!
//! JSON only. Not there: gRPC, binary tensors, labels, `:classify` and `:regress`, queued jobs over
//! HTTP, TLS, keys and quotas, metrics. Who can reach the port can use every model, so it listens on
//! 127.0.0.1 unless told.
//!
//! The gateway decodes no request and knows no model: workers validate, and their messages and
//! codes are passed on. It keeps nothing between requests but the workers' records of the last second.

mod config;
mod describe;
mod infer;
mod path;
mod refusal;
mod registry;

use std::{io, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    routing::{get, post},
};
use inferq::{ByteSize, Client};
use tokio::{net::TcpListener, sync::oneshot};

pub use config::Config;
use refusal::Refusal;
use registry::Registry;

/// Requests that run when the gateway is told to stop have this long to be answered.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What all requests share.
#[derive(Debug, Clone)]
struct Door {
    client: Client,
    registry: Registry,
}

/// Answers requests until `stop`, then those that run, for at most 10 s.
///
/// `max_body` is the largest body that is read; above it the answer is 413.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    client: Client,
    max_body: ByteSize,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (stopping, stopped) = oneshot::channel::<()>();
    let serving =
        axum::serve(listener, router(client, max_body)).with_graceful_shutdown(async move {
            stop.await;
            drop(stopping);
        });
    // A connection that never ends must not keep the program alive.
    let too_late = async {
        stopped.await.ok();
        tokio::time::sleep(STOP_WITHIN).await;
    };
    tokio::select! {
        served = serving => served,
        () = too_late => {
            tracing::warn!("requests that took too long to finish are cut off");
            Ok(())
        }
    }
}

fn router(client: Client, max_body: ByteSize) -> Router {
    let door = Door {
        registry: Registry::new(client.clone()),
        client,
    };
    Router::new()
        .route("/v2/health/live", get(describe::live))
        .route("/v2/health/ready", get(describe::ready))
        .route("/v2/models/{model}", get(describe::metadata))
        .route("/v2/models/{model}/infer", post(infer::infer))
        .route(
            "/v2/models/{model}/versions/{version}/infer",
            post(infer::infer_version),
        )
        // A verb such as `:predict` is part of the last segment.
        .route(
            "/v1/models/{model}",
            get(describe::status).post(infer::predict),
        )
        .route(
            "/v1/models/{model}/versions/{version}",
            post(infer::predict_version),
        )
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(
            usize::try_from(max_body.as_u64()).unwrap_or(usize::MAX),
        ))
        .with_state(door)
}

async fn no_such_path(method: Method, uri: Uri) -> Refusal {
    let path = uri.path();
    if path.starts_with("/v1/") {
        // TensorFlow Serving's words and status for the same.
        return Refusal::bad_request(format!("Malformed request: {method} {path}"));
    }
    Refusal::not_found(format!("nothing is served at {path}"))
}

async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    Refusal::method(format!("{method} is not possible at {}", uri.path()))
}
