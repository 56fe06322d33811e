//! One declaration, two readers: each instrument here feeds the Prometheus registry and an OpenTelemetry meter.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use inferq_schemas::ModelName;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::{counter, gauge, histogram};
use prometheus_client::registry::{Metric, Registry, Unit};

/// The value of a label: a word from a closed set, or the name of a model this worker serves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Value {
    Word(&'static str),
    Model(ModelName),
}

impl Value {
    fn as_str(&self) -> &str {
        match self {
            Self::Word(word) => word,
            Self::Model(model) => model.as_str(),
        }
    }
}

impl EncodeLabelValue for Value {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

/// The labels of one series: always the same names in the same order for one instrument.
pub(super) type Labels<const N: usize> = [(&'static str, Value); N];

fn attributes<const N: usize>(labels: &Labels<N>) -> [KeyValue; N] {
    labels.each_ref().map(|(name, value)| match value {
        Value::Word(word) => KeyValue::new(*name, *word),
        Value::Model(model) => KeyValue::new(*name, model.as_str().to_owned()),
    })
}

/// Where instruments are declared.
pub(super) struct Declare<'a> {
    pub(super) registry: &'a mut Registry,
    pub(super) meter: Meter,
}

/// Counts events; the exposition appends `_total`.
pub(super) struct Counter<const N: usize> {
    family: Family<Labels<N>, counter::Counter>,
    exported: opentelemetry::metrics::Counter<u64>,
}

impl<const N: usize> Counter<N> {
    pub(super) fn add(&self, labels: Labels<N>, count: u64) {
        self.exported.add(count, &attributes(&labels));
        self.family.get_or_create_owned(&labels).inc_by(count);
    }
}

/// A level that goes up and down.
pub(super) struct Gauge<const N: usize> {
    family: Family<Labels<N>, gauge::Gauge>,
    exported: opentelemetry::metrics::Gauge<i64>,
}

impl<const N: usize> Gauge<N> {
    pub(super) fn set(&self, labels: Labels<N>, level: i64) {
        self.exported.record(level, &attributes(&labels));
        self.family.get_or_create_owned(&labels).set(level);
    }

    /// Ends the Prometheus series of something that is gone; an exported one cannot end, so it goes to zero.
    pub(super) fn forget(&self, labels: Labels<N>) {
        self.exported.record(0, &attributes(&labels));
        self.family.remove(&labels);
    }
}

/// How values are spread.
pub(super) struct Histogram<const N: usize> {
    family: Family<Labels<N>, histogram::Histogram, Buckets>,
    exported: opentelemetry::metrics::Histogram<f64>,
}

impl<const N: usize> Histogram<N> {
    pub(super) fn observe(&self, labels: Labels<N>, value: f64) {
        self.exported.record(value, &attributes(&labels));
        self.family.get_or_create_owned(&labels).observe(value);
    }

    pub(super) fn seconds(&self, labels: Labels<N>, time: Duration) {
        self.observe(labels, time.as_secs_f64());
    }
}

/// Upper bounds of a histogram's buckets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buckets(&'static [f64]);

impl MetricConstructor<histogram::Histogram> for Buckets {
    fn new_metric(&self) -> histogram::Histogram {
        histogram::Histogram::new(self.0.iter().copied())
    }
}

/// 100 us to 60 s: from a cache hit to a job that waited for a device.
pub(super) const SECONDS: Buckets = Buckets(&[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
]);

/// Powers of two up to 1024 rows.
pub(super) const ROWS: Buckets = Buckets(&[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
]);

impl Declare<'_> {
    pub(super) fn counter<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
    ) -> Counter<N> {
        let family = Family::<Labels<N>, counter::Counter<u64, AtomicU64>>::default();
        self.register_family(name, help, None, &family);
        let exported = self
            .meter
            .u64_counter(format!("inferq_{name}"))
            .with_description(help)
            .build();
        Counter { family, exported }
    }

    pub(super) fn gauge<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
    ) -> Gauge<N> {
        let family = Family::<Labels<N>, gauge::Gauge>::default();
        let exported = self
            .meter
            .i64_gauge(full_name(name, unit.as_ref()))
            .with_description(help);
        let exported = exported.with_unit(ucum(unit.as_ref())).build();
        self.register_family(name, help, unit, &family);
        Gauge { family, exported }
    }

    pub(super) fn histogram<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        (unit, buckets): (Option<Unit>, Buckets),
    ) -> Histogram<N> {
        let family =
            Family::<Labels<N>, histogram::Histogram, Buckets>::new_with_constructor(buckets);
        let exported = self
            .meter
            .f64_histogram(full_name(name, unit.as_ref()))
            .with_description(help);
        let exported = exported
            .with_unit(ucum(unit.as_ref()))
            .with_boundaries(buckets.0.to_vec())
            .build();
        self.register(name, help, unit, family.clone());
        Histogram { family, exported }
    }

    /// Without labels the one metric is registered itself: it is then shown from the start, as zero.
    fn register_family<const N: usize, M>(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        family: &Family<Labels<N>, M>,
    ) where
        M: Metric + Clone + Default,
        Family<Labels<N>, M>: Metric,
    {
        match Labels::<N>::try_from(Vec::new()) {
            Ok(none) => self.register(name, help, unit, family.get_or_create_owned(&none)),
            Err(_) => self.register(name, help, unit, family.clone()),
        }
    }

    fn register(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        metric: impl Metric,
    ) {
        match unit {
            Some(unit) => self.registry.register_with_unit(name, help, unit, metric),
            None => self.registry.register(name, help, metric),
        }
    }
}

/// The name as Prometheus shows it, so that both readers know an instrument by one name.
fn full_name(name: &str, unit: Option<&Unit>) -> String {
    match unit {
        Some(unit) => format!("inferq_{name}_{}", unit.as_str()),
        None => format!("inferq_{name}"),
    }
}

/// The unit as OpenTelemetry writes it.
fn ucum(unit: Option<&Unit>) -> &'static str {
    match unit {
        Some(Unit::Seconds) => "s",
        Some(Unit::Bytes) => "By",
        _ => "1",
    }
}
