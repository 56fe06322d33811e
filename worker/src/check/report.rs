//! What is found out about a model, and how it is printed.

use std::time::{Duration, Instant};

use inferq_engine::{BatchProof, Model, SegmentReport};
use inferq_schemas::subjects::ModelName;
use inferq_schemas::tensor::TensorSpec;
use serde::Serialize;

use super::Target;
use super::measure::Measured;
use crate::models::Version;
use crate::models::load::{Loader, VersionError, load_version};
use crate::models::settings::EngineSettings;
use crate::models::specs::wire_spec;

/// What was found out, as it is printed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    path: String,
    loads: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    found: Option<Found>,
}

#[derive(Debug, Serialize)]
struct Found {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    /// Whether the engine proved rows to be independent.
    proven: bool,
    /// Whether a worker batches it, after `model.toml`.
    batching: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    batching_refused: Option<String>,
    deterministic: bool,
    cacheable: bool,
    memory_bytes: u64,
    /// Numbers the model brings with it.
    parameters: u64,
    #[serde(flatten)]
    measured: Measured,
    /// Dense parts that were cut out for a graphics card.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    segments: Vec<Segment>,
    load_seconds: f64,
}

/// A dense part, as it is printed.
#[derive(Debug, Serialize)]
struct Segment {
    name: String,
    layers: Vec<[usize; 2]>,
    steps: usize,
    runs: String,
}

impl From<SegmentReport> for Segment {
    fn from(report: SegmentReport) -> Self {
        Self {
            name: report.name,
            layers: report.layers,
            steps: report.steps,
            runs: report.decision,
        }
    }
}

impl Segment {
    fn line(&self) -> String {
        let count = self.layers.len();
        let noun = if count == 1 { "layer" } else { "layers" };
        let steps = self.steps;
        format!(
            "segment {}, {count} dense {noun} in {steps} steps: {}",
            self.name, self.runs
        )
    }
}

impl Report {
    pub(super) fn of(target: &Target, loader: &Loader) -> Self {
        let started = Instant::now();
        let (path, found) = match target {
            Target::File(path) => {
                let found = loader(path, EngineSettings::default()).map_err(VersionError::from);
                (
                    path,
                    found
                        .map(|model| Found::of_model(model.as_ref(), started.elapsed()))
                        .map_err(|error| error.full_text()),
                )
            }
            Target::Version {
                model,
                number,
                folder,
            } => {
                let version = ModelName::new(model)
                    .map_err(|error| error.to_string())
                    .and_then(|model| {
                        load_version(&model, *number, folder, loader)
                            .map_err(|error| error.full_text())
                    });
                (
                    folder,
                    version.map(|version| Found::of_version(&version, started.elapsed())),
                )
            }
        };
        let path = path.display().to_string();
        match found {
            Ok(found) => Self {
                path,
                loads: true,
                error: None,
                found: Some(found),
            },
            Err(error) => Self {
                path,
                loads: false,
                error: Some(error),
                found: None,
            },
        }
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("plain values are always JSON")
    }

    /// For people; `explain` adds what each operator takes.
    pub(super) fn text(&self, explain: bool) -> String {
        let (verdict, mut lines) = match (&self.found, &self.error) {
            (Some(found), _) => ("loads", found.lines(explain)),
            (None, Some(error)) => ("does not load", error.lines().map(str::to_owned).collect()),
            (None, None) => ("nothing found", Vec::new()),
        };
        lines.insert(0, format!("{}: {verdict}", self.path));
        lines.join("\n  ")
    }
}

impl Found {
    fn of_model(model: &dyn Model, took: Duration) -> Self {
        let refused = match model.batch_proof() {
            BatchProof::Proven => None,
            BatchProof::Refused { tensor, reason } => Some(format!("`{tensor}`: {reason}")),
        };
        Self {
            model: None,
            version: None,
            digest: None,
            inputs: model.inputs().iter().map(wire_spec).collect(),
            outputs: model.outputs().iter().map(wire_spec).collect(),
            proven: refused.is_none(),
            batching: refused.is_none(),
            batching_refused: refused,
            deterministic: model.is_deterministic(),
            cacheable: model.is_deterministic(),
            memory_bytes: model.memory_bytes(),
            parameters: model.parameters(),
            measured: Measured::of(model),
            segments: model.segments().into_iter().map(Segment::from).collect(),
            load_seconds: took.as_secs_f64(),
        }
    }

    fn of_version(version: &Version, took: Duration) -> Self {
        Self {
            model: Some(version.model.to_string()),
            version: Some(version.number),
            digest: Some(version.digest.to_string()),
            batching: version.batching.is_ok(),
            batching_refused: version.batching.clone().err(),
            cacheable: version.cacheable,
            ..Self::of_model(version.engine.as_ref(), took)
        }
    }

    fn lines(&self, explain: bool) -> Vec<String> {
        let batching = match (&self.batching_refused, self.proven) {
            (None, true) => {
                "yes, proven: a row's answer does not depend on its neighbours".to_owned()
            }
            (None, false) => "yes, trusted without proof".to_owned(),
            (Some(reason), _) => format!("no, each job runs by itself; {reason}"),
        };
        let cache = match (self.cacheable, self.deterministic) {
            (true, _) => "yes",
            (false, true) => "no, switched off in model.toml",
            (false, false) => "no, it draws random numbers",
        };
        let mut lines: Vec<String> = Vec::new();
        lines.extend(self.inputs.iter().map(|spec| format!("input   {spec}")));
        lines.extend(self.outputs.iter().map(|spec| format!("output  {spec}")));
        lines.push(format!("batched {batching}"));
        lines.push(format!("cached  {cache}"));
        lines.push(format!(
            "memory  {:.1} MiB in {} constants",
            self.memory_bytes as f64 / f64::from(1 << 20),
            self.parameters
        ));
        lines.extend(self.segments.iter().map(Segment::line));
        if self.segments.is_empty() {
            lines.push("device  cpu".to_owned());
        }
        lines.extend(self.measured.lines(explain));
        lines.push(format!("loaded  in {:.2} s", self.load_seconds));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::super::targets;
    use super::super::tests::folder;
    use super::*;
    use crate::models::load::testing::loader;

    #[test]
    fn the_report_tells_signature_batching_and_what_is_wrong() {
        let root = folder(&[
            ("m/1/model.onnx", "fine"),
            ("m/2/model.onnx", "broken"),
            ("m/1/model.toml", "[batching]\nenabled = false"),
        ]);
        let reports: Vec<Report> = targets(root.path())
            .iter()
            .map(|target| Report::of(target, &loader()))
            .collect();
        let text = reports[0].text(true);
        assert!(
            text.contains("input   x: FP32[?,2]") && text.contains("batching.enabled = false"),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&reports[0].json()).expect("it is JSON");
        assert_eq!(
            (&json["loads"], &json["proven"], &json["batching"]),
            (&true.into(), &true.into(), &false.into())
        );
        let text = reports[1].text(false);
        assert!(
            text.contains("does not load") && text.contains("asked to fail"),
            "{text}"
        );
    }
}
