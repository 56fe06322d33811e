//! Logs on stderr, and traces and metrics to an OpenTelemetry collector if there is one.
//!
//! One trace per job: its span continues the producer's `traceparent`, and its own context goes out with the outcome.
//! Exporters work on threads of their own behind bounded queues, so a collector that is slow, down or absent costs
//! dropped telemetry and never a job's time.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context as _;
use inferq_schemas::headers::{JobHeaders, names};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, TelemetryArgs};

/// Longest one export may take.
const EXPORT_LIMIT: Duration = Duration::from_secs(5);

/// Spans that may wait for export; further ones are dropped.
const SPANS_WAITING: usize = 8_192;

/// Longest the end of the process waits for a collector.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// How often metrics are exported.
const METRICS_EVERY: Duration = Duration::from_secs(15);

/// What has to be flushed before the process ends. Dropping it flushes too.
pub struct Telemetry {
    tracer: Option<SdkTracerProvider>,
    meter: Option<SdkMeterProvider>,
}

impl Telemetry {
    /// Sends what waits, within one second for traces and again for metrics. Blocks for that long at most.
    pub fn shutdown(mut self) {
        self.flush();
    }

    fn flush(&mut self) {
        // Nobody is left to tell that telemetry about the end was lost.
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.shutdown_with_timeout(FLUSH_LIMIT);
        }
        if let Some(meter) = self.meter.take() {
            let _ = meter.shutdown_with_timeout(FLUSH_LIMIT);
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Starts logging, and exporting if an endpoint is given. Call it inside the Tokio runtime, once, before
/// `Metrics::new`.
///
/// # Errors
/// If the filter or the endpoint cannot be read, or a subscriber is installed already. A collector that does not
/// answer is no error.
pub fn start(args: &TelemetryArgs, worker_id: &str) -> anyhow::Result<Telemetry> {
    let filter: EnvFilter = args.log.parse().context("--log is not a filter")?;
    let (tracer, meter) = match &args.otlp_endpoint {
        Some(endpoint) => {
            let (tracer, meter) =
                exporters(endpoint, worker_id).context("--otlp-endpoint cannot be used")?;
            opentelemetry::global::set_meter_provider(meter.clone());
            (Some(tracer), Some(meter))
        }
        None => (None, None),
    };
    let traces = tracer.as_ref().map(|provider| {
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("inferq-worker"));
        layer.with_filter(filter_fn(is_ours))
    });
    tracing_subscriber::registry()
        .with(log_layer(args.log_format).with_filter(filter))
        .with(traces)
        .try_init()
        .context("logging was started before")?;
    Ok(Telemetry { tracer, meter })
}

/// Only our own spans are traced: those of the exporter's connection would beget spans for ever.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("inferq") && *metadata.level() <= tracing::Level::INFO
}

fn log_layer<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

fn exporters(
    endpoint: &str,
    worker_id: &str,
) -> anyhow::Result<(SdkTracerProvider, SdkMeterProvider)> {
    let resource = Resource::builder()
        .with_service_name("inferq-worker")
        .with_attribute(KeyValue::new("service.instance.id", worker_id.to_owned()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let spans = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_LIMIT)
        .build()?;
    let queue = BatchConfigBuilder::default()
        .with_max_queue_size(SPANS_WAITING)
        .build();
    let tracer = SdkTracerProvider::builder()
        .with_span_processor(
            BatchSpanProcessor::builder(spans)
                .with_batch_config(queue)
                .build(),
        )
        .with_resource(resource.clone())
        .build();
    let metrics = MetricExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_LIMIT)
        .build()?;
    let reader = opentelemetry_sdk::metrics::PeriodicReader::builder(metrics)
        .with_interval(METRICS_EVERY)
        .build();
    let meter = SdkMeterProvider::builder()
        .with_reader(reader)
        .with_resource(resource)
        .build();
    Ok((tracer, meter))
}

/// The trace context a job came with; an empty one if it has none or it cannot be read.
pub fn extract(headers: &JobHeaders) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Carried(headers))
}

/// Makes `span` part of the trace that the job came with, if any.
pub fn set_parent(span: &Span, headers: &JobHeaders) {
    let context = extract(headers);
    if context.span().span_context().is_valid() {
        // Refused only for a span that is not traced, or that has begun already, which a new one has not.
        let _ = span.set_parent(context);
    }
}

/// Notes on `span`, a batch's, that it did work for `other`, a job's: a batch has many parents.
pub fn link(span: &Span, other: &Span) {
    let context = other.context().span().span_context().clone();
    if context.is_valid() {
        span.add_link(context);
    }
}

/// The `traceparent` that continues `span`; `None` if traces are not exported.
pub fn inject(span: &Span) -> Option<String> {
    let mut written = Written::default();
    TraceContextPropagator::new().inject_context(&span.context(), &mut written);
    written.traceparent
}

struct Carried<'a>(&'a JobHeaders);

impl Extractor for Carried<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            names::TRACEPARENT => self.0.traceparent.as_deref(),
            names::TRACESTATE => self.0.tracestate.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![names::TRACEPARENT, names::TRACESTATE]
    }
}

#[derive(Default)]
struct Written {
    traceparent: Option<String>,
}

impl Injector for Written {
    fn set(&mut self, key: &str, value: String) {
        if key == names::TRACEPARENT {
            self.traceparent = Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferq_schemas::identity::JobId;
    use tracing::info_span;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(traceparent: Option<&str>) -> JobHeaders {
        let mut headers = JobHeaders::new(JobId::random());
        headers.traceparent = traceparent.map(str::to_owned);
        headers
    }

    /// Runs `act` with traces that are recorded and thrown away.
    fn traced(act: impl FnOnce()) {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), act);
    }

    #[test]
    fn a_jobs_span_continues_the_trace_of_its_producer() {
        traced(|| {
            let span = info_span!("job");
            set_parent(&span, &headers(Some(PARENT)));
            let own = inject(&span).expect("the span is traced");
            assert_eq!(
                own.split('-').nth(1),
                PARENT.split('-').nth(1),
                "the trace is the same"
            );
            assert_ne!(
                own.split('-').nth(2),
                PARENT.split('-').nth(2),
                "the span is another"
            );
        });
    }

    #[test]
    fn without_a_readable_parent_a_job_begins_a_trace_of_its_own() {
        traced(|| {
            for parent in [
                None,
                Some("rubbish"),
                Some("00-00000000000000000000000000000000-b7ad6b7169203331-01"),
            ] {
                let span = info_span!("job");
                set_parent(&span, &headers(parent));
                let own = inject(&span).expect("the span is traced");
                assert_eq!(own.len(), PARENT.len(), "{own}");
            }
        });
    }

    #[test]
    fn without_an_exporter_no_context_is_invented() {
        tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            let (batch, job) = (info_span!("batch"), info_span!("job"));
            set_parent(&job, &headers(Some(PARENT)));
            link(&batch, &job);
            assert_eq!(inject(&job), None);
        });
    }
}
