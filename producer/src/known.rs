//! Which models are known: refuses a mistyped name before anything is published.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::{
    StatusCode,
    jetstream::{
        self,
        stream::{DirectGetError, DirectGetErrorKind},
    },
};
use futures::TryStreamExt;
use inferq_schemas::{ModelName, nearest};

use crate::{
    denied::Denials,
    error::{ModelError, Source},
};

/// A model stays known, or unknown, for this long before the bucket is asked again.
const REMEMBERED: Duration = Duration::from_secs(2);
/// Names remembered at most; a caller who tries more of them is asked for each.
const MOST_REMEMBERED: usize = 10_000;
/// The suggestion in an error is not worth a longer wait.
const SUGGEST_WITHIN: Duration = Duration::from_secs(2);

/// Pause before a server that did not answer is asked again.
const SILENCE_PAUSE: Duration = Duration::from_millis(250);

/// JetStream's error code for a stream that does not exist.
const STREAM_NOT_FOUND: u64 = 10_059;

/// The bucket of known models, read by Direct Get: a producer needs no other permission.
#[derive(Debug)]
pub(crate) struct KnownModels {
    jetstream: jetstream::Context,
    denials: Denials,
    bucket: String,
    known: Mutex<HashMap<ModelName, Instant>>,
}

impl KnownModels {
    pub(crate) fn new(jetstream: jetstream::Context, denials: Denials, bucket: &str) -> Self {
        Self {
            jetstream,
            denials,
            bucket: bucket.to_owned(),
            known: Mutex::new(HashMap::new()),
        }
    }

    /// Is the model known? Only a yes is remembered, so that a new model can be used at once.
    ///
    /// A server that does not answer is asked again until the caller's own time is up.
    pub(crate) async fn check(&self, model: &ModelName, until: Instant) -> Result<(), ModelError> {
        if self.remembers(model) {
            return Ok(());
        }
        if self.ask_until(model, until).await? {
            self.remember(model);
            return Ok(());
        }
        let names = tokio::time::timeout(SUGGEST_WITHIN, self.names()).await;
        let names = names.ok().and_then(Result::ok).unwrap_or_default();
        Err(ModelError::Unknown {
            model: model.clone(),
            nearest: nearest(model.as_str(), names.iter().map(String::as_str)).map(str::to_owned),
        })
    }

    /// Every known name, in no order. Needs more permissions than [`check`](Self::check).
    pub(crate) async fn names(&self) -> Result<Vec<String>, ModelError> {
        let unreadable = |source: Source| ModelError::Unreadable {
            bucket: self.bucket.clone(),
            source,
        };
        let keys = keys(&self.jetstream, &self.bucket)
            .await
            .map_err(unreadable)?;
        let mut names = Vec::with_capacity(keys.len());
        for key in keys {
            let Ok(model) = key.parse::<ModelName>() else {
                continue;
            };
            if self.ask(&model).await? {
                names.push(key);
            }
        }
        Ok(names)
    }

    async fn ask_until(&self, model: &ModelName, until: Instant) -> Result<bool, ModelError> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let answer = tokio::time::timeout(left, self.ask(model)).await;
            match answer {
                Ok(Err(ModelError::Unreadable { source, .. })) if is_silence(&source) => {
                    tokio::time::sleep(SILENCE_PAUSE.min(left)).await;
                }
                Ok(answer) => return answer,
                Err(elapsed) => {
                    return Err(ModelError::Unreadable {
                        bucket: self.bucket.clone(),
                        source: elapsed.into(),
                    });
                }
            }
        }
    }

    async fn ask(&self, model: &ModelName) -> Result<bool, ModelError> {
        let unreadable = |source: Source| ModelError::Unreadable {
            bucket: self.bucket.clone(),
            source,
        };
        let stream_name = format!("KV_{}", self.bucket);
        let stream = self.jetstream.get_stream_no_info(&stream_name).await;
        let stream = stream.map_err(|error| unreadable(error.into()))?;
        let subject = format!("$KV.{}.{model}", self.bucket);
        let request = direct_get(&stream_name, &subject);
        let read = stream.direct_get_last_for_subject(subject);
        match self.denials.watch(&request, read).await? {
            // A deleted key leaves a marker with this header.
            Ok(entry) => Ok(entry.headers.get("KV-Operation").is_none()),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(false),
            Err(error) if is_missing(&self.jetstream, &error, &stream_name).await => {
                Err(ModelError::NoAssets)
            }
            Err(error) => Err(unreadable(error.into())),
        }
    }

    fn remembers(&self, model: &ModelName) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(model)
            .is_some_and(|since| since.elapsed() < REMEMBERED)
    }

    fn remember(&self, model: &ModelName) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_REMEMBERED {
            known.clear();
        }
        known.insert(model.clone(), Instant::now());
    }
}

/// The keys of a bucket, in no order, also those that were deleted and left a marker.
///
/// They are the subjects that the server counts. The client's own listing reads the bucket as a
/// stream until nothing is left, and does not end while entries are rewritten, as workers do.
pub(crate) async fn keys(
    jetstream: &jetstream::Context,
    bucket: &str,
) -> Result<Vec<String>, Source> {
    let stream = jetstream.get_stream_no_info(format!("KV_{bucket}")).await?;
    let prefix = format!("$KV.{bucket}.");
    let mut subjects = stream.info_with_subjects(format!("{prefix}>")).await?;
    let mut keys = Vec::new();
    while let Some((subject, _)) = subjects.try_next().await? {
        keys.extend(subject.strip_prefix(&prefix).map(str::to_owned));
    }
    Ok(keys)
}

/// Was there no answer, as while a server restarts?
fn is_silence(source: &Source) -> bool {
    let kind = source
        .downcast_ref::<DirectGetError>()
        .map(DirectGetError::kind);
    matches!(
        kind,
        Some(DirectGetErrorKind::TimedOut | DirectGetErrorKind::Request)
    )
}

/// Where a Direct Get of the last message on `subject` is asked for.
pub(crate) fn direct_get(stream: &str, subject: &str) -> String {
    format!("$JS.API.DIRECT.GET.{stream}.{subject}")
}

/// Did a Direct Get fail because there is no such stream?
///
/// Servers leave such a request without answer, so silence has to be told from absence.
pub(crate) async fn is_missing(
    jetstream: &jetstream::Context,
    error: &DirectGetError,
    stream: &str,
) -> bool {
    match error.kind() {
        DirectGetErrorKind::ErrorResponse(status, _) => status == StatusCode::NO_RESPONDERS,
        DirectGetErrorKind::TimedOut => {
            let info = jetstream
                .request(format!("STREAM.INFO.{stream}"), &serde_json::json!({}))
                .await;
            info.is_ok_and(|info: serde_json::Value| info["error"]["err_code"] == STREAM_NOT_FOUND)
        }
        _ => false,
    }
}
