//! Where a segment runs, by number of rows, measured when the model is loaded.

use std::fmt;
use std::time::{Duration, Instant};

use tract_linalg::multithread::{Executor, current_tract_executor};
use tract_onnx::tract_core::internal::*;

use super::op::Segment;
use super::{remembered, trial};
use crate::gpu::{Choice, Program, Tile};

/// Longest that measuring takes for a model, about.
pub(super) const BUDGET: Duration = Duration::from_secs(2);
/// Numbers of rows that are measured. A run of any other number goes where the next smaller one does.
pub(super) const ROWS: [usize; 5] = [1, 4, 16, 64, 256];
/// So many times the last of them are no longer like it: there the kernels are those that are likely the fastest.
const BEYOND: usize = 4;
/// The card has to be so much faster. Less is within what the next moment may change.
const GAIN: f64 = 1.15;
/// Another kernel has to be so much faster than the one that is likely the best.
const KERNEL_GAIN: f64 = 1.1;
/// Runs of each side that are timed at least and at most; the fastest counts.
const RUNS: [usize; 2] = [3, 20];

/// Where one run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Cpu,
    Card(Choice),
}

/// Where runs go.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Routes {
    measured: [Option<Measured>; ROWS.len()],
    routes: [Route; ROWS.len()],
}

/// What a run takes on each side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    pub(super) cpu: Duration,
    pub(super) card: Duration,
    /// The kernels that took this long.
    pub(super) choice: Choice,
}

impl Measured {
    fn wins(&self) -> bool {
        self.cpu.as_secs_f64() >= self.card.as_secs_f64() * GAIN
    }
}

impl Routes {
    /// Everything on the card, whatever it takes.
    pub(super) fn forced(choice: Choice) -> Self {
        Routes {
            measured: [None; ROWS.len()],
            routes: [Route::Card(choice); ROWS.len()],
        }
    }

    /// Each number of rows where it is faster.
    fn fastest(measured: [Measured; ROWS.len()]) -> Self {
        Routes {
            measured: measured.map(Some),
            routes: measured.map(|measured| match measured.wins() {
                true => Route::Card(measured.choice),
                false => Route::Cpu,
            }),
        }
    }

    /// All of them where they are faster together, so that every row is calculated alike.
    fn together(measured: [Measured; ROWS.len()]) -> Self {
        let all = measured.iter().fold(
            Measured {
                cpu: Duration::ZERO,
                card: Duration::ZERO,
                choice: Choice::Alike,
            },
            |all, one| Measured {
                cpu: all.cpu + one.cpu,
                card: all.card + one.card,
                ..all
            },
        );
        let route = match all.wins() {
            true => Route::Card(Choice::Alike),
            false => Route::Cpu,
        };
        Routes {
            measured: measured.map(Some),
            routes: [route; ROWS.len()],
        }
    }

    /// Whether some run is sent to the card's own products of matrices.
    pub(super) fn count_on_own_product(&self) -> bool {
        let own = Route::Card(Choice::Only(Tile::Cooperative));
        self.routes.contains(&own)
    }

    /// Whether any number of rows goes to the card.
    pub(super) fn use_card(&self) -> bool {
        self.routes.iter().any(|route| *route != Route::Cpu)
    }

    pub(super) fn of(&self, rows: usize) -> Route {
        let at = ROWS.iter().rposition(|measured| *measured <= rows);
        let route = at.map_or(Route::Cpu, |at| self.routes[at]);
        match route {
            // The card's own products stay the fastest.
            Route::Card(Choice::Only(tile))
                if tile != Tile::Cooperative && rows >= BEYOND * ROWS[ROWS.len() - 1] =>
            {
                Route::Card(Choice::Likely)
            }
            route => route,
        }
    }
}

impl fmt::Display for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.measured.iter().all(Option::is_none) {
            return f.write_str("on the card, as it is forced");
        }
        for (at, rows) in ROWS.iter().enumerate() {
            if let Some(Measured { cpu, card, choice }) = self.measured[at] {
                let separator = if at == 0 { "" } else { "; " };
                let place = match self.routes[at] {
                    Route::Cpu => "CPU",
                    Route::Card(_) => "card",
                };
                let kernels = match choice {
                    Choice::Likely | Choice::Alike => String::new(),
                    Choice::Only(tile) => format!(" by {}", tile.name()),
                };
                write!(
                    f,
                    "{separator}{rows} rows: {place} (CPU {cpu:.1?}, card {card:.1?}{kernels})"
                )?;
            }
        }
        Ok(())
    }
}

/// Where runs of `segment` go, by what is remembered or else measured. `own` is the card's own product of matrices, if
/// it is right.
pub(super) fn decide(
    segment: &Segment,
    program: &Program,
    own: Option<Tile>,
    budget: Duration,
) -> Result<Routes, String> {
    // Of several threads we do not know in which company they will be another time.
    let alone = matches!(current_tract_executor(), Executor::SingleThread);
    let folder = segment.card.gpu.remembers_in().filter(|_| alone);
    let measured = match folder.and_then(|folder| remembered::read(folder, segment, own)) {
        Some(measured) => measured,
        None => {
            let measured = measure(segment, program, own, budget)?;
            if let Some(folder) = folder {
                remembered::write(folder, segment, own, &measured);
            }
            measured
        }
    };
    Ok(match segment.settings.deterministic {
        true => Routes::together(measured),
        false => Routes::fastest(measured),
    })
}

/// Times both sides at each number of rows, within `budget` where that is possible.
fn measure(
    segment: &Segment,
    program: &Program,
    own: Option<Tile>,
    budget: Duration,
) -> Result<[Measured; ROWS.len()], String> {
    let failed = |error: TractError| format!("measuring failed: {error:#}");
    let usual = segment.choice();
    let mut measured = Vec::with_capacity(ROWS.len());
    for rows in ROWS {
        let suits = |tile: &Tile| !segment.settings.deterministic && tile.suits(rows);
        let kernels = Tile::ALL.into_iter().chain(own);
        let kernels: Vec<Tile> = kernels.filter(suits).collect();
        let share = budget / (2 * ROWS.len() as u32);
        let symbols = trial::symbols(segment, rows);
        let inputs = trial::inputs(segment, &symbols).map_err(failed)?;
        let cpu = fastest(share, || segment.on_cpu(&inputs)).map_err(failed)?;
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let share = share / (1 + kernels.len() as u32);
        let on_card = |choice: Choice| {
            let run = || {
                let results = segment.on_card(program, &inputs, &symbols, choice);
                results.map(drop).map_err(TractError::from)
            };
            fastest(share, run).map_err(failed)
        };
        let mut best = Measured {
            cpu,
            card: on_card(usual)?,
            choice: usual,
        };
        for tile in kernels {
            let card = on_card(Choice::Only(tile))?;
            if best.card.as_secs_f64() >= card.as_secs_f64() * KERNEL_GAIN {
                best.card = card;
                best.choice = Choice::Only(tile);
            }
        }
        measured.push(best);
    }
    let measured = <[Measured; ROWS.len()]>::try_from(measured);
    measured.map_err(|_| "measuring failed: a number of rows is missing".to_owned())
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

    fn measured(milliseconds: [[u64; 2]; ROWS.len()], choice: Choice) -> [Measured; ROWS.len()] {
        milliseconds.map(|[cpu, card]| Measured {
            cpu: Duration::from_millis(cpu),
            card: Duration::from_millis(card),
            choice,
        })
    }

    #[test]
    fn a_run_goes_where_the_next_smaller_measured_one_does() {
        let choice = Choice::Only(Tile::Tile64);
        let routes = Routes::fastest(measured(
            [[1, 9], [2, 9], [12, 9], [50, 48], [200, 20]],
            choice,
        ));
        let of = [0, 1, 15, 16, 63, 64, 1_023].map(|rows| routes.of(rows));
        let (card, cpu) = (Route::Card(choice), Route::Cpu);
        assert_eq!(of, [cpu, cpu, cpu, card, card, cpu, card]);
        // Far beyond what was measured the best kernel is another.
        assert_eq!(routes.of(1_024), Route::Card(Choice::Likely));
        let text = routes.to_string();
        assert!(
            text.contains("16 rows: card (CPU 12.0ms, card 9.0ms by tile64)"),
            "{text}"
        );
        assert!(text.contains("64 rows: CPU (CPU 50.0ms"), "{text}");
        let forced = Routes::forced(Choice::Likely);
        assert_eq!(forced.of(10_000), Route::Card(Choice::Likely));
    }

    #[test]
    fn what_has_to_be_alike_goes_one_way_altogether() {
        let times = [[1, 9], [2, 9], [12, 9], [50, 10], [200, 20]];
        let routes = Routes::together(measured(times, Choice::Alike));
        assert_eq!(
            [1, 256].map(|rows| routes.of(rows)),
            [Route::Card(Choice::Alike); 2]
        );
        let times = [[1, 9], [2, 9], [12, 9], [50, 60], [80, 70]];
        let routes = Routes::together(measured(times, Choice::Alike));
        assert_eq!([1, 256].map(|rows| routes.of(rows)), [Route::Cpu; 2]);
    }
}
