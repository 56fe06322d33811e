//! What a load found: counts, throughput, latencies.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Answer;

/// Latencies from 1 us to an hour, to three digits.
const LONGEST_US: u64 = 3_600_000_000;
const DIGITS: u8 = 3;

/// Collects answers.
#[derive(Debug, Clone)]
pub struct Recorder {
    latencies: Histogram<u64>,
    errors: BTreeMap<u16, u64>,
    examples: BTreeMap<u16, String>,
}

/// The result of a load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered without error.
    pub ok: u64,
    /// Failed requests by code.
    pub errors: BTreeMap<u16, u64>,
    /// The first message of each code.
    pub examples: BTreeMap<u16, String>,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Good answers per second.
    pub per_second: f64,
    /// Latencies of the good answers.
    pub latency: Latency,
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// The mean.
    pub mean_us: f64,
    /// Half are faster.
    pub p50_us: u64,
    /// 90 % are faster.
    pub p90_us: u64,
    /// 99 % are faster.
    pub p99_us: u64,
    /// 99.9 % are faster.
    pub p999_us: u64,
    /// The slowest.
    pub max_us: u64,
}

impl Recorder {
    /// Empty.
    pub fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, LONGEST_US, DIGITS);
        Self {
            latencies: latencies.expect("the bounds are in order and five digits are the most"),
            errors: BTreeMap::new(),
            examples: BTreeMap::new(),
        }
    }

    /// Counts one answer.
    pub fn record(&mut self, answer: &Answer) {
        match &answer.result {
            Ok(_) => self.record_latency(answer.latency),
            Err((code, message)) => {
                let code = code.as_u16();
                *self.errors.entry(code).or_default() += 1;
                self.examples.entry(code).or_insert_with(|| message.clone());
            }
        }
    }

    /// Counts one good answer.
    pub fn record_latency(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US);
        self.latencies.saturating_record(micros.max(1));
    }

    /// Counts what another one has counted.
    pub fn add(&mut self, other: &Self) {
        self.latencies
            .add(&other.latencies)
            .expect("all recorders have the same bounds");
        for (code, count) in &other.errors {
            *self.errors.entry(*code).or_default() += count;
        }
        for (code, message) in &other.examples {
            self.examples
                .entry(*code)
                .or_insert_with(|| message.clone());
        }
    }

    /// The figures of a load that took so long.
    pub fn report(&self, took: Duration) -> BenchReport {
        let ok = self.latencies.len();
        let seconds = took.as_secs_f64();
        let at = |quantile| self.latencies.value_at_quantile(quantile);
        BenchReport {
            sent: ok + self.errors.values().sum::<u64>(),
            ok,
            errors: self.errors.clone(),
            examples: self.examples.clone(),
            seconds,
            per_second: ok as f64 / seconds.max(f64::MIN_POSITIVE),
            latency: Latency {
                mean_us: self.latencies.mean(),
                p50_us: at(0.5),
                p90_us: at(0.9),
                p99_us: at(0.99),
                p999_us: at(0.999),
                max_us: self.latencies.max(),
            },
        }
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferq_schemas::ErrorCode;

    fn failed(code: ErrorCode, message: &str) -> Answer {
        Answer {
            index: 0,
            latency: Duration::from_secs(1),
            result: Err((code, message.to_owned())),
        }
    }

    #[test]
    fn errors_are_counted_by_code_and_leave_the_latencies_alone() {
        let (mut one, mut two) = (Recorder::new(), Recorder::new());
        for millis in 1..=100 {
            one.record_latency(Duration::from_millis(millis));
        }
        two.record(&failed(ErrorCode::Overloaded, "first"));
        two.record(&failed(ErrorCode::Overloaded, "second"));
        one.add(&two);
        let report = one.report(Duration::from_secs(2));
        assert_eq!((report.sent, report.ok), (102, 100));
        assert_eq!(report.errors, BTreeMap::from([(429, 2)]));
        assert_eq!(report.examples[&429], "first");
        assert!((report.per_second - 50.0).abs() < 1e-9);
        let close = |found: u64, wanted: u64| found.abs_diff(wanted) <= wanted / 500;
        assert!(
            close(report.latency.p50_us, 50_000),
            "{}",
            report.latency.p50_us
        );
        assert!(
            close(report.latency.max_us, 100_000),
            "{}",
            report.latency.max_us
        );
    }

    #[test]
    fn nothing_at_all_is_a_report_of_zeros() {
        let report = Recorder::new().report(Duration::ZERO);
        assert_eq!((report.sent, report.latency.max_us), (0, 0));
        assert!(report.per_second.abs() < f64::EPSILON);
    }
}
