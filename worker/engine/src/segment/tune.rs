//! Where a segment runs, by number of rows, measured when the model is loaded.

use std::fmt;
use std::time::{Duration, Instant};

use tract_onnx::tract_core::internal::*;

use super::check;
use super::op::Segment;

/// Longest that measuring takes for a model, about.
pub(super) const BUDGET: Duration = Duration::from_secs(2);
/// Numbers of rows that are measured. A run of any other number goes where the next smaller one does.
const ROWS: [usize; 5] = [1, 4, 16, 64, 256];
/// The card has to be so much faster. Less is within what the next moment may change.
const GAIN: f64 = 1.15;
/// Runs of each side that are timed at least and at most; the fastest counts.
const RUNS: [usize; 2] = [3, 20];

/// Where one run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Cpu,
    Card,
}

/// Where runs go.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Routes {
    measured: [Option<Measured>; ROWS.len()],
    routes: [Route; ROWS.len()],
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Measured {
    cpu: Duration,
    card: Duration,
}

impl Routes {
    /// Everything on the card, whatever it takes.
    pub(super) fn forced() -> Self {
        Routes {
            measured: [None; ROWS.len()],
            routes: [Route::Card; ROWS.len()],
        }
    }

    pub(super) fn of(&self, rows: usize) -> Route {
        let at = ROWS.iter().rposition(|measured| *measured <= rows);
        at.map_or(Route::Cpu, |at| self.routes[at])
    }
}

impl fmt::Display for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.measured.iter().all(Option::is_none) {
            return f.write_str("on the card, as it is forced");
        }
        for (at, rows) in ROWS.iter().enumerate() {
            if let Some(Measured { cpu, card }) = self.measured[at] {
                let separator = if at == 0 { "" } else { "; " };
                let place = match self.routes[at] {
                    Route::Cpu => "CPU",
                    Route::Card => "card",
                };
                write!(
                    f,
                    "{separator}{rows} rows: {place} (CPU {cpu:.1?}, card {card:.1?})"
                )?;
            }
        }
        Ok(())
    }
}

/// Times both sides at each number of rows, within `budget` where that is possible.
pub(super) fn measure(segment: &Segment, budget: Duration) -> Result<Routes, String> {
    let mut routes = Routes {
        measured: [None; ROWS.len()],
        routes: [Route::Cpu; ROWS.len()],
    };
    for (at, rows) in ROWS.into_iter().enumerate() {
        let share = budget / (2 * ROWS.len() as u32);
        let failed = |error: TractError| format!("measuring failed: {error:#}");
        let symbols = check::symbols(segment, rows);
        let inputs = check::trial(segment, &symbols).map_err(failed)?;
        let cpu = fastest(share, || segment.on_cpu(&inputs)).map_err(failed)?;
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let card = fastest(share, || {
            segment
                .on_card(&inputs, &symbols)?
                .map(drop)
                .map_err(TractError::from)
        });
        let card = card.map_err(failed)?;
        routes.measured[at] = Some(Measured { cpu, card });
        if cpu.as_secs_f64() >= card.as_secs_f64() * GAIN {
            routes.routes[at] = Route::Card;
        }
    }
    Ok(routes)
}

/// The fastest of some runs, after one that is not timed.
fn fastest(share: Duration, mut run: impl FnMut() -> TractResult<()>) -> TractResult<Duration> {
    run()?;
    let begun = Instant::now();
    let mut fastest = Duration::MAX;
    for done in 0..RUNS[1] {
        let started = Instant::now();
        run()?;
        fastest = fastest.min(started.elapsed());
        if done + 1 >= RUNS[0] && begun.elapsed() > share {
            break;
        }
    }
    Ok(fastest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_where_the_next_smaller_measured_one_does() {
        let mut routes = Routes {
            measured: [None; ROWS.len()],
            routes: [Route::Cpu; ROWS.len()],
        };
        routes.routes[2] = Route::Card;
        let of = [0, 1, 15, 16, 63, 64, 10_000].map(|rows| routes.of(rows));
        use Route::{Card, Cpu};
        assert_eq!(of, [Cpu, Cpu, Cpu, Card, Card, Cpu, Cpu]);
        assert_eq!(Routes::forced().of(10_000), Card);
    }
}
