//! W3C trace context: joins the trace of a job to the trace of whoever submits it.

use opentelemetry::trace::{SpanContext, TraceContextExt};
use rand::Rng;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The two headers, as they are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) traceparent: String,
    pub(crate) tracestate: Option<String>,
}

/// The context of the current span; of the current OpenTelemetry context if there is no span with
/// one; else a fresh trace, so that every job can be followed through queue and worker.
pub(crate) fn current() -> TraceContext {
    let of_span = tracing::Span::current().context();
    let here = of_span.span().span_context().clone();
    if here.is_valid() {
        return written(&here);
    }
    let context = opentelemetry::Context::current();
    let here = context.span().span_context().clone();
    if here.is_valid() {
        written(&here)
    } else {
        fresh()
    }
}

fn written(span: &SpanContext) -> TraceContext {
    let state = span.trace_state().header();
    TraceContext {
        traceparent: format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags().to_u8()
        ),
        tracestate: (!state.is_empty()).then_some(state),
    }
}

/// Sampled (`01`): whether anything is recorded is the choice of the worker's own sampler.
fn fresh() -> TraceContext {
    let mut random = rand::rng();
    // Zero means "no trace", and is as likely as never.
    let (trace, span) = (random.next_u64().max(1), random.next_u64().max(1));
    TraceContext {
        traceparent: format!("00-{:016x}{trace:016x}-{span:016x}-01", random.next_u64()),
        tracestate: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::{
        Context,
        trace::{SpanId, TraceFlags, TraceId, TraceState},
    };

    #[test]
    fn without_a_span_every_job_gets_a_trace_of_its_own() {
        let (one, two) = (current().traceparent, current().traceparent);
        assert_ne!(one, two);
        let parts: Vec<&str> = one.split('-').collect();
        let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [2, 32, 16, 2], "{one}");
    }

    #[test]
    fn the_current_context_is_passed_on_with_its_state() {
        let state = TraceState::from_key_value([("vendor", "x")]).expect("a valid state");
        let span = SpanContext::new(
            TraceId::from(7_u128),
            SpanId::from(9_u64),
            TraceFlags::SAMPLED,
            true,
            state,
        );
        let _entered = Context::new().with_remote_span_context(span).attach();
        let here = current();
        assert_eq!(here.traceparent, format!("00-{:032x}-{:016x}-01", 7, 9));
        assert_eq!(here.tracestate.as_deref(), Some("vendor=x"));
    }
}
