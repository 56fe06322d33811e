//! Shows how far a run is: a bar for people, a JSON line each second for programs.

use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use inferq::{
    Client,
    score::{Phase, Progress},
};
use serde_json::json;
use tokio::sync::watch;

use super::super::output::{Output, seconds};

const DRAW: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(1);
/// Who lives changes slowly.
const ASK_WORKERS: Duration = Duration::from_secs(2);
/// Steps of the bar, fine enough for any terminal.
const STEPS: u64 = 10_000;

/// Rows per second, over the last few seconds.
#[derive(Debug)]
struct Rate {
    since: Instant,
    rows: u64,
    per_second: f64,
}

impl Rate {
    /// Weight of the newest interval.
    const NEWEST: f64 = 0.2;
    /// Shorter intervals say nothing.
    const LEAST: Duration = Duration::from_millis(50);

    fn new(rows: u64, now: Instant) -> Self {
        Self {
            since: now,
            rows,
            per_second: 0.0,
        }
    }

    fn update(&mut self, rows: u64, now: Instant) -> f64 {
        let passed = now.duration_since(self.since);
        // What came before the first look took nobody knows how long.
        if passed >= Self::LEAST {
            let passed = passed.as_secs_f64();
            let newest = rows.saturating_sub(self.rows) as f64 / passed;
            self.per_second = if self.per_second == 0.0 {
                newest
            } else {
                newest.mul_add(Self::NEWEST, self.per_second * (1.0 - Self::NEWEST))
            };
            (self.since, self.rows) = (now, rows);
        }
        self.per_second
    }
}

/// Runs until it is aborted.
pub(super) async fn watch(progress: watch::Receiver<Progress>, client: Client, output: Output) {
    let bar = (!output.is_json()).then(bar);
    let mut tick = tokio::time::interval(if bar.is_some() { DRAW } else { LINE });
    let mut asked: Option<Instant> = None;
    let mut workers = 0;
    let began = Instant::now();
    let mut rate: Option<Rate> = None;
    loop {
        tick.tick().await;
        if asked.is_none_or(|asked| asked.elapsed() > ASK_WORKERS) {
            let living = tokio::time::timeout(LINE, client.workers()).await;
            workers = living
                .ok()
                .and_then(Result::ok)
                .map_or(0, |living| living.len());
            asked = Some(Instant::now());
        }
        let now = progress.borrow().clone();
        if now.phase == Phase::Starting {
            continue;
        }
        let per_second = rate
            .get_or_insert_with(|| Rate::new(now.rows, Instant::now()))
            .update(now.rows, Instant::now());
        let left = left(&now, began.elapsed());
        match &bar {
            Some(bar) => draw(bar, &now, per_second, left, workers),
            None => {
                let line = json!({
                    "phase": now.phase.as_str(), "rows": now.rows, "errors": now.errors,
                    "rows_in_flight": now.rows_in_flight, "rows_per_second": per_second.round(),
                    "fraction": now.fraction(), "eta_s": left.map(|left| left.as_secs()), "workers": workers,
                });
                output.print(&line.to_string());
            }
        }
    }
}

/// How long the rest takes if it goes on as so far; rows of an earlier part of the run took no time now.
fn left(progress: &Progress, passed: Duration) -> Option<Duration> {
    let fraction = progress.fraction()?;
    let before = progress.rows_before as f64 / progress.rows.max(1) as f64 * fraction;
    let now = fraction - before;
    (now > 0.0).then(|| passed.mul_f64(((1.0 - fraction) / now).min(1e6)))
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:30} {percent:>3}% {msg}");
    bar.set_style(style.expect("the template names only what there is"));
    bar
}

fn draw(
    bar: &ProgressBar,
    progress: &Progress,
    per_second: f64,
    left: Option<Duration>,
    workers: usize,
) {
    if let Some(fraction) = progress.fraction() {
        bar.set_position((fraction * STEPS as f64) as u64);
    }
    let mut message = format!(
        "{} rows, {}/s",
        HumanCount(progress.rows),
        HumanCount(per_second as u64)
    );
    match (progress.phase, left) {
        (Phase::Writing, _) => message.push_str(", writing the output"),
        (_, Some(left)) => message.push_str(&format!(", {} left", seconds(left))),
        (_, None) => {}
    }
    if progress.errors > 0 {
        message.push_str(&format!(", {} failed", HumanCount(progress.errors)));
    }
    message.push_str(&match workers {
        0 => ", no worker lives".to_owned(),
        1 => ", 1 worker".to_owned(),
        many => format!(", {many} workers"),
    });
    bar.set_message(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_at_the_first_look_is_no_speed() {
        let start = Instant::now();
        let mut rate = Rate::new(5_000, start);
        let at_once = rate.update(5_001, start + Duration::from_micros(1));
        assert_eq!(at_once, 0.0, "too early to tell");
        assert_eq!(rate.update(5_100, start + Duration::from_secs(1)), 100.0);
    }

    #[test]
    fn rows_of_before_do_not_make_the_rest_look_short() {
        let progress = Progress {
            phase: Phase::Scoring,
            rows: 75,
            rows_before: 50,
            read: Some(0.75),
            ..Progress::default()
        };
        let left = left(&progress, Duration::from_secs(10)).expect("it can be told");
        assert_eq!(left.as_secs(), 10, "25 rows took 10 s, and 25 are left");
    }
}
