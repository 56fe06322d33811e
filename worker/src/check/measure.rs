//! How fast a model is on this machine, and where the time goes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use inferq_engine::{Model, NodeTime, RunError};
use serde::Serialize;

/// Rows of the runs that are timed; one suits a model that is not batched too.
const ROWS: [usize; 3] = [1, 8, 32];
/// How long runs of one size are timed, and how many there are at least.
const SPAN: Duration = Duration::from_millis(200);
const RUNS: usize = 3;
/// Rows of the run whose operators are timed.
const PROFILED_ROWS: usize = 8;

/// Speeds and operators of one model.
#[derive(Debug, Default, Serialize)]
pub(super) struct Measured {
    /// One thread; a worker has one for each core.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    speeds: Vec<Speed>,
    /// Operators after compilation, the longest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    operators: Vec<Operator>,
    /// Why there are no figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_measured: Option<String>,
}

#[derive(Debug, Serialize)]
struct Speed {
    rows: usize,
    /// Shape of each input, where the model leaves more open than the rows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shapes: Vec<Vec<usize>>,
    /// Median of the runs.
    milliseconds: f64,
    rows_per_second: f64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Operator {
    name: String,
    count: usize,
    milliseconds: f64,
}

impl Measured {
    /// Takes about a second. A model that does not run on invented inputs is no error.
    pub(super) fn of(model: &dyn Model) -> Self {
        let proven = model.batch_proof().is_proven();
        let sizes = ROWS.into_iter().take(if proven { ROWS.len() } else { 1 });
        let mut measured = Self::default();
        for rows in sizes {
            let Some(inputs) = model.trial_inputs(rows) else {
                measured.not_measured = Some("no sizes are known with which it runs".to_owned());
                return measured;
            };
            match median(model, &inputs) {
                Ok(run) => measured.speeds.push(Speed {
                    rows,
                    shapes: open_shapes(model, &inputs),
                    milliseconds: run.as_secs_f64() * 1e3,
                    rows_per_second: rows as f64 / run.as_secs_f64(),
                }),
                Err(error) => {
                    measured.not_measured = Some(error.to_string());
                    return measured;
                }
            }
        }
        let rows = if proven { PROFILED_ROWS } else { 1 };
        let nodes = model.trial_inputs(rows).map(|inputs| {
            // The first run of a state is slower than all others.
            let _ = model.profile(inputs.clone());
            model.profile(inputs)
        });
        if let Some(Ok(nodes)) = nodes {
            measured.operators = operators(&nodes);
        }
        measured
    }

    pub(super) fn lines(&self, explain: bool) -> Vec<String> {
        let speed = |speed: &Speed| {
            let noun = if speed.rows == 1 { "row " } else { "rows" };
            let shapes = speed.shapes.iter().map(|shape| {
                let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
                format!(" {}", sizes.join("x"))
            });
            format!(
                "speed   {:>2} {noun}{}: {:.3} ms, {:.0} rows/s on one thread",
                speed.rows,
                shapes.collect::<Vec<_>>().join(","),
                speed.milliseconds,
                speed.rows_per_second
            )
        };
        let mut lines: Vec<String> = self.speeds.iter().map(speed).collect();
        if let Some(reason) = &self.not_measured {
            lines.push(format!("speed   not measured: {reason}"));
        }
        let whole: f64 = self
            .operators
            .iter()
            .map(|operator| operator.milliseconds)
            .sum();
        if explain {
            for operator in &self.operators {
                let Operator {
                    name,
                    count,
                    milliseconds,
                } = operator;
                let share = milliseconds / whole * 100.0;
                lines.push(format!(
                    "{share:>6.1} % {milliseconds:>10.3} ms  {count} x {name}"
                ));
            }
        } else if !self.operators.is_empty() {
            let names = self
                .operators
                .iter()
                .map(|operator| format!("{} {}", operator.count, operator.name));
            lines.push(format!("made of {}", names.collect::<Vec<_>>().join(", ")));
        }
        lines
    }
}

/// The shapes, if some size besides the rows is open.
fn open_shapes(model: &dyn Model, inputs: &[inferq_engine::Tensor]) -> Vec<Vec<usize>> {
    let mut sizes = model
        .inputs()
        .iter()
        .flat_map(|spec| spec.shape.iter().skip(1));
    if sizes.any(Option::is_none) {
        inputs.iter().map(|input| input.shape().to_vec()).collect()
    } else {
        Vec::new()
    }
}

fn median(model: &dyn Model, inputs: &[inferq_engine::Tensor]) -> Result<Duration, RunError> {
    let mut session = model.session()?;
    session.run(inputs.to_vec())?;
    let (begun, mut times) = (Instant::now(), Vec::new());
    while times.len() < RUNS || begun.elapsed() < SPAN {
        let started = Instant::now();
        session.run(inputs.to_vec())?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn operators(nodes: &[NodeTime]) -> Vec<Operator> {
    let mut by_name: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
    for node in nodes
        .iter()
        .filter(|node| node.operator != "Source" && node.operator != "Const")
    {
        let (count, milliseconds) = by_name.entry(&node.operator).or_default();
        *count += 1;
        *milliseconds += node.took.as_secs_f64() * 1e3;
    }
    let mut operators: Vec<Operator> = by_name
        .into_iter()
        .map(|(name, (count, milliseconds))| Operator {
            name: name.to_owned(),
            count,
            milliseconds,
        })
        .collect();
    operators.sort_by(|left, right| right.milliseconds.total_cmp(&left.milliseconds));
    operators
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_summed_up_by_name_and_the_longest_comes_first() {
        let node = |operator: &str, milliseconds| NodeTime {
            node: "n".to_owned(),
            operator: operator.to_owned(),
            took: Duration::from_millis(milliseconds),
        };
        let nodes = [
            node("Source", 9),
            node("Dense", 2),
            node("Softmax", 3),
            node("Dense", 4),
        ];
        let found = operators(&nodes);
        let [dense, softmax] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!((&dense.name[..], dense.count), ("Dense", 2));
        assert!((dense.milliseconds - 6.0).abs() < 1e-9);
        assert_eq!(softmax.count, 1);
        let lines = Measured {
            operators: found,
            ..Measured::default()
        };
        assert_eq!(lines.lines(false), ["made of 2 Dense, 1 Softmax"]);
        assert_eq!(lines.lines(true)[0], "  66.7 %      6.000 ms  2 x Dense");
    }
}
