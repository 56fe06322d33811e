//! One pass: every image as a request of one row, and what came back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use inferq::{
    Client, ModelName, Outcome,
    bench::{self, Answer, BenchOptions, BenchReport, End, Load, Mode},
};
use inferq_integration::digits::{self, Digit};
use inferq_schemas::CacheUse;

/// A request takes milliseconds; one that takes this long has failed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What to send, and how.
#[derive(Debug, Clone)]
pub(crate) struct Pass {
    pub(crate) title: &'static str,
    pub(crate) mode: Mode,
    pub(crate) in_flight: usize,
    pub(crate) cache: bool,
}

/// A pass and what it found.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) pass: Pass,
    pub(crate) report: BenchReport,
    pub(crate) found: Found,
}

/// What the answers say, beside how long they took.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Answers that name the digit on the label.
    pub(crate) right: usize,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) shared: u64,
    /// Answers by the worker that wrote them.
    pub(crate) by_worker: BTreeMap<String, u64>,
    pub(crate) devices: BTreeSet<String>,
    /// The good outcomes, as they were answered.
    pub(crate) outcomes: Vec<Outcome>,
    /// Answers that could not be understood, each with the reason.
    pub(crate) unreadable: Vec<String>,
}

/// Jobs, the same again, calls, and calls that compute.
pub(crate) fn all(jobs_in_flight: usize, calls_in_flight: usize) -> [Pass; 4] {
    let pass = |title, mode, in_flight, cache| Pass {
        title,
        mode,
        in_flight,
        cache,
    };
    [
        pass("jobs", Mode::Jobs, jobs_in_flight, true),
        pass("jobs again", Mode::Jobs, jobs_in_flight, true),
        pass("RPC", Mode::Rpc, calls_in_flight, true),
        pass("RPC, no cache", Mode::Rpc, calls_in_flight, false),
    ]
}

impl Pass {
    pub(crate) async fn run(self, client: &Client, images: &[Digit]) -> Done {
        let found = Arc::new(Mutex::new(Found::default()));
        let labels: Vec<i64> = images.iter().map(|image| image.label).collect();
        let options = BenchOptions {
            model: ModelName::new("digits").expect("`digits` fits the grammar of names"),
            // The tensor form: its answers say where they come from.
            bodies: images
                .iter()
                .map(|image| image.tensor_request().into())
                .collect(),
            mode: self.mode,
            load: Load::Closed {
                concurrency: self.in_flight,
            },
            end: End::Count(images.len() as u64),
            timeout: TIMEOUT,
            lane: None,
            cache: self.cache,
        };
        let counting = Arc::clone(&found);
        let report = bench::run(client, options, move |answer| {
            let mut found = counting.lock().unwrap_or_else(PoisonError::into_inner);
            found.count(answer, &labels);
        })
        .await;
        let found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
        Done {
            pass: self,
            report,
            found,
        }
    }
}

impl Found {
    fn count(&mut self, answer: &Answer, labels: &[i64]) {
        // Failures are counted in the report.
        let Ok(outcome) = &answer.result else { return };
        *self
            .by_worker
            .entry(outcome.headers.worker.clone())
            .or_default() += 1;
        self.outcomes.push(outcome.clone());
        let response = match outcome.response() {
            Ok(response) => response,
            Err(error) => return self.unreadable.push(error.to_string()),
        };
        match response.parameters.cache {
            CacheUse::Hit => self.hits += 1,
            CacheUse::Miss => self.misses += 1,
            CacheUse::Shared => self.shared += 1,
        }
        self.devices.insert(response.parameters.device);
        let probabilities = response
            .outputs
            .iter()
            .find(|output| output.name == "probabilities")
            .and_then(|output| output.to_f32().ok());
        let Some(probabilities) = probabilities else {
            return self
                .unreadable
                .push("the answer has no output `probabilities`".to_owned());
        };
        let label = usize::try_from(answer.index)
            .ok()
            .and_then(|index| labels.get(index));
        if label.copied() == digits::best(&probabilities) {
            self.right += 1;
        }
    }
}
