//! Logs on standard error, and traces to a collector if one is named.

use std::time::Duration;

use anyhow::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, layer::SubscriberExt, util::SubscriberInitExt,
};

/// A collector that does not answer holds up the end of a command for so long at most.
const EXPORT_WITHIN: Duration = Duration::from_secs(3);

/// Sends what is left when it is dropped.
pub(super) struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Starts logging at `warn`, or as RUST_LOG says.
pub(super) fn start(otlp_endpoint: Option<&str>) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,async_nats=error"));
    let traces = otlp_endpoint.map(exporter).transpose()?;
    let spans = traces.as_ref().map(|provider| {
        // Spans of the exporter's own connection would beget spans for ever.
        let ours = filter_fn(|metadata| metadata.target().starts_with("inferq"));
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("inferq"))
            .with_filter(ours)
    });
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(spans)
        .try_init()
        .context("logging was started before")?;
    Ok(Telemetry { traces })
}

fn exporter(endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_WITHIN)
        .build()
        .with_context(|| format!("--otlp-endpoint {endpoint} cannot be used"))?;
    let resource = Resource::builder().with_service_name("inferq").build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = self.traces.take() {
            // Nobody is left to tell that the last traces were lost.
            traces.shutdown_with_timeout(EXPORT_WITHIN).ok();
        }
    }
}
