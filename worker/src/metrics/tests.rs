//! The exposition as Prometheus reads it.

use super::*;

/// Every metric of the exposition with the kind that `# TYPE` gives and its unit, if any.
const DECLARED: [(&str, &str, Option<&str>); 28] = [
    ("inferq_jobs", "counter", None),
    ("inferq_queue_seconds", "histogram", Some("seconds")),
    ("inferq_batch_seconds", "histogram", Some("seconds")),
    ("inferq_compute_seconds", "histogram", Some("seconds")),
    ("inferq_publish_seconds", "histogram", Some("seconds")),
    ("inferq_job_seconds", "histogram", Some("seconds")),
    ("inferq_batch_rows", "histogram", None),
    ("inferq_batch_close", "counter", None),
    ("inferq_cache_lookups", "counter", None),
    ("inferq_cache_shared", "counter", None),
    ("inferq_cache_dropped_writes", "counter", None),
    ("inferq_redeliveries", "counter", None),
    ("inferq_suspects", "counter", None),
    ("inferq_dead_letters", "counter", None),
    ("inferq_commit_retries", "counter", None),
    ("inferq_id_conflicts", "counter", None),
    ("inferq_cancellations", "counter", None),
    ("inferq_events_lost", "counter", None),
    ("inferq_rpc_spilled", "counter", None),
    ("inferq_rpc_refused", "counter", None),
    ("inferq_inflight_jobs", "gauge", None),
    ("inferq_inflight_bytes", "gauge", Some("bytes")),
    ("inferq_models_loaded", "gauge", None),
    ("inferq_model_bytes", "gauge", Some("bytes")),
    ("inferq_model_load_failures", "counter", None),
    ("inferq_engine_failures", "counter", None),
    ("inferq_stuck_threads", "gauge", None),
    ("inferq_swept", "counter", None),
];

fn model() -> ModelName {
    ModelName::new("digits").expect("fits")
}

/// Metrics with every instrument used at least once.
fn used() -> Metrics {
    let metrics = Metrics::new();
    let (model, time) = (model(), Duration::from_millis(3));
    metrics.job_done(&model, Door::Rpc, OutcomeLabel::Ok, time);
    metrics.queue_wait(&model, time);
    metrics.batch_wait(&model, time);
    metrics.batch(&model, 8, time, CloseReason::Full);
    metrics.published(&model, time);
    metrics.cache_lookups(Tier::Redis, LookupResult::Error, 4);
    metrics.cache_shared(1);
    metrics.cache_dropped_writes(DropReason::Full, 2);
    metrics.redelivery(&model);
    metrics.suspect(&model);
    metrics.dead_letter(&model);
    metrics.commit_retried();
    metrics.id_conflict();
    metrics.cancellation(OutcomeLabel::Cancelled);
    metrics.event_lost();
    metrics.rpc_spilled();
    metrics.rpc_refused();
    metrics.in_flight(3, 512);
    metrics.model_loaded(&model, 2, 4_096);
    metrics.model_load_failed(&model);
    metrics.engine_failure(EngineFailure::Panic);
    metrics.stuck_threads(1);
    metrics.swept(SweepReason::TooOld);
    metrics
}

#[test]
fn each_instrument_appears_once_with_its_help_kind_and_unit() {
    let text = used().encode();
    let lines = |start: String| text.lines().filter(|line| line.starts_with(&start)).count();
    for (name, kind, unit) in &DECLARED {
        assert_eq!(lines(format!("# HELP {name} ")), 1, "{name}\n{text}");
        assert_eq!(lines(format!("# TYPE {name} {kind}")), 1, "{name}\n{text}");
        assert_eq!(
            lines(format!("# UNIT {name} {}", unit.unwrap_or_default())),
            usize::from(unit.is_some()),
            "{name}"
        );
    }
    assert_eq!(
        lines("# HELP".to_owned()),
        DECLARED.len(),
        "an instrument is missing in this test:\n{text}"
    );
}

#[test]
fn labels_are_words_of_the_closed_sets() {
    let text = used().encode();
    for line in [
        r#"inferq_jobs_total{model="digits",door="rpc",outcome="ok"} 1"#,
        r#"inferq_cache_lookups_total{tier="redis",result="error"} 4"#,
        r#"inferq_batch_close_total{reason="full"} 1"#,
        r#"inferq_model_bytes{model="digits"} 4096"#,
        "inferq_inflight_bytes 512",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is missing in\n{text}"
        );
    }
}

#[test]
fn the_series_of_an_unloaded_model_ends() {
    let metrics = Metrics::new();
    metrics.model_loaded(&model(), 1, 10);
    metrics.model_loaded(&model(), 0, 0);
    assert!(!metrics.encode().contains("digits"));
}
