//! `inferq bench`: load on a model, with latencies.

use std::time::Duration;

use anyhow::bail;
use inferq::{
    Lane, ModelName,
    bench::{self, BenchOptions, BenchReport, End, Load, Mode},
};
use serde_json::json;

use super::{Ended, Global, input::BodyArg, output::Output};

/// Put load on a model and measure throughput and latency.
#[derive(Debug, clap::Args)]
pub(super) struct Bench {
    /// The model.
    model: ModelName,
    /// The request: JSON text, @FILE, or - for standard input. Repeat it to send several in turn.
    #[arg(long, required = true, value_name = "BODY|@FILE|-")]
    body: Vec<BodyArg>,
    /// Direct calls, or durable jobs from submission to outcome.
    #[arg(long, value_enum, default_value = "rpc")]
    mode: Mode,
    /// Closed loop: requests in flight.
    #[arg(long, value_name = "N", default_value = "16", conflicts_with = "rate")]
    concurrency: usize,
    /// Open loop: requests per second, sent whatever comes back.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Send for so long; 10 s unless told.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "count")]
    duration: Option<Duration>,
    /// Send so many.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Send so many first that are not measured.
    #[arg(long, value_name = "N", default_value = "0")]
    warmup: u64,
    /// A request without answer for so long has failed.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// high, normal or low.
    #[arg(long)]
    lane: Option<Lane>,
    /// Compute each answer, even if it is in the cache.
    #[arg(long)]
    no_cache: bool,
}

impl Bench {
    pub(super) async fn run(self, global: &Global, output: &Output) -> anyhow::Result<Ended> {
        let load = match self.rate {
            Some(rate) if rate.is_finite() && rate > 0.0 => Load::Open { rate },
            Some(rate) => {
                bail!("--rate {rate} is not a number of requests per second; use one above 0")
            }
            None if self.concurrency == 0 => bail!("--concurrency 0 sends nothing; use 1 or more"),
            None => Load::Closed {
                concurrency: self.concurrency,
            },
        };
        let end = match self.count {
            Some(count) => End::Count(count),
            None => End::After(self.duration.unwrap_or(Duration::from_secs(10))),
        };
        let bodies = self
            .body
            .iter()
            .map(BodyArg::read)
            .collect::<Result<Vec<_>, _>>()?;
        let options = BenchOptions {
            model: self.model,
            bodies,
            mode: self.mode,
            load,
            end,
            timeout: self.timeout,
            lane: self.lane,
            cache: !self.no_cache,
        };
        let client = global.connect().await?;
        if self.warmup > 0 {
            let warmup = BenchOptions {
                load: Load::Closed {
                    concurrency: self.concurrency.max(1),
                },
                end: End::Count(self.warmup),
                ..options.clone()
            };
            bench::run(&client, warmup, |_| {}).await;
        }
        let how = describe(&options);
        output.note(&format!("{how} ..."));
        let report = tokio::select! {
            report = bench::run(&client, options, |_| {}) => report,
            _ = tokio::signal::ctrl_c() => bail!("interrupted; nothing is reported"),
        };
        show(output, &how, &report)?;
        Ok(if report.ok > 0 {
            Ended::Well
        } else {
            Ended::ShowingFailure
        })
    }
}

fn describe(options: &BenchOptions) -> String {
    let load = match options.load {
        Load::Closed { concurrency } => format!("closed loop of {concurrency}"),
        Load::Open { rate } => format!("open loop at {rate}/s"),
    };
    let mode = match options.mode {
        Mode::Rpc => "calls",
        Mode::Jobs => "jobs",
    };
    let end = match options.end {
        End::Count(count) => format!("{count} of them"),
        End::After(limit) => humantime::format_duration(limit).to_string(),
    };
    format!("{} {mode}, {load}, {end}", options.model)
}

fn show(output: &Output, how: &str, report: &BenchReport) -> anyhow::Result<()> {
    if output.is_json() {
        return output.line(&json!({ "load": how, "report": report }));
    }
    let latency = &report.latency;
    output.table(
        &[
            "answers/s",
            "ok",
            "failed",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "max",
        ],
        vec![vec![
            format!("{:.0}", report.per_second),
            report.ok.to_string(),
            (report.sent - report.ok).to_string(),
            millis(latency.p50_us),
            millis(latency.p90_us),
            millis(latency.p99_us),
            millis(latency.p999_us),
            millis(latency.max_us),
        ]],
    );
    for (code, count) in &report.errors {
        let example = report.examples.get(code).map_or("", String::as_str);
        output.print(&output.bad(&format!("{count} x {code}: {example}")));
    }
    Ok(())
}

fn millis(micros: u64) -> String {
    let millis = micros as f64 / 1_000.0;
    if millis < 10.0 {
        format!("{millis:.2} ms")
    } else {
        format!("{millis:.0} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_keep_their_digits() {
        assert_eq!(millis(123), "0.12 ms");
        assert_eq!(millis(1_234_567), "1235 ms");
    }
}
