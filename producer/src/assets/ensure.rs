//! Create or update, then compare.

use std::fmt;

use async_nats::jetstream::{self, context::RequestErrorKind};
use bytes::Bytes;
use inferq_schemas::{Assets, ModelName, ModelRecord, Subjects};
use serde_json::{Value, json};

use super::{
    compare::{Difference, differences},
    error::AssetError,
    layout,
    plan::AssetPlan,
};

/// JetStream's error code for a stream that does not exist.
const STREAM_NOT_FOUND: u64 = 10_059;
/// JetStream's error code for a consumer that does not exist.
const CONSUMER_NOT_FOUND: u64 = 10_014;
/// JetStream's error codes for a limit of the server that the sum of all streams would pass.
const NO_ROOM: [u64; 3] = [10_023, 10_028, 10_047];

/// What happened to one asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetChange {
    /// The stream or consumer, such as `INFER_JOBS` or `INFER_JOBS/digits__high`.
    pub asset: String,
    /// What was done.
    pub change: Change,
    /// Fields that this server does not know and the asset does without, such as `compression`.
    pub without: Vec<String>,
}

/// What was done to an asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was missing.
    Created,
    /// It was there with other settings.
    Updated(Vec<Difference>),
    /// It was as wanted.
    Unchanged,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("created"),
            Self::Unchanged => f.write_str("unchanged"),
            Self::Updated(fields) => {
                f.write_str("updated")?;
                for (index, field) in fields.iter().enumerate() {
                    let comma = if index == 0 { ":" } else { "," };
                    write!(
                        f,
                        "{comma} {} {} -> {}",
                        field.field, field.found, field.wanted
                    )?;
                }
                Ok(())
            }
        }
    }
}

/// Makes assets. Needs the permission to use `$JS.API.>`; workers and producers do not.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use inferq::{AssetPlan, Client};
///
/// let client = Client::connect("nats://127.0.0.1:4222").await?;
/// let admin = client.admin(AssetPlan::default());
/// admin.init().await?;
/// admin.ensure_model(&"digits".parse()?).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct AssetAdmin {
    jetstream: jetstream::Context,
    subjects: Subjects,
    names: Assets,
    plan: AssetPlan,
}

impl AssetAdmin {
    /// For the deployment under `subjects`.
    pub fn new(nats: async_nats::Client, subjects: Subjects, plan: AssetPlan) -> Self {
        Self {
            jetstream: jetstream::new(nats),
            names: Assets::new(&subjects),
            subjects,
            plan,
        }
    }

    /// Makes every stream and bucket, or brings it to the plan. Does nothing the second time.
    ///
    /// # Errors
    /// [`AssetError`] at the first asset that could not be made as planned; its text names the field.
    pub async fn init(&self) -> Result<Vec<AssetChange>, AssetError> {
        let mut changes = Vec::new();
        for config in layout::streams(&self.names, &self.plan) {
            changes.push(self.ensure_stream(config).await?);
        }
        Ok(changes)
    }

    /// Makes the consumers of a model and enters it as known, unless it is.
    ///
    /// # Errors
    /// [`AssetError`] if a consumer could not be made as it must be, or the entry not written.
    pub async fn ensure_model(&self, model: &ModelName) -> Result<Vec<AssetChange>, AssetError> {
        let changes = self.ensure_consumers(model).await?;
        if self.read_entry(model).await?.is_none() {
            self.write_entry(&ModelRecord {
                name: model.clone(),
                versions: Vec::new(),
                source: "init".to_owned(),
                inputs: None,
                outputs: None,
            })
            .await?;
        }
        Ok(changes)
    }

    /// As [`ensure_model`](Self::ensure_model), and keeps the entry equal to `record`.
    ///
    /// # Errors
    /// As [`ensure_model`](Self::ensure_model).
    pub async fn ensure_record(
        &self,
        record: &ModelRecord,
    ) -> Result<Vec<AssetChange>, AssetError> {
        // Consumers first: a model is known once its jobs have somewhere to wait.
        let changes = self.ensure_consumers(&record.name).await?;
        let wanted = encode(record);
        if self.read_entry(&record.name).await?.as_deref() != Some(&wanted[..]) {
            self.write_entry(record).await?;
        }
        Ok(changes)
    }

    async fn ensure_consumers(&self, model: &ModelName) -> Result<Vec<AssetChange>, AssetError> {
        let mut changes = Vec::new();
        for (stream, config) in layout::consumers(&self.subjects, &self.names, model) {
            changes.push(self.ensure_consumer(&stream, config).await?);
        }
        Ok(changes)
    }

    async fn ensure_stream(&self, wanted: Value) -> Result<AssetChange, AssetError> {
        let name = text(&wanted["name"]);
        let optional = layout::optional(&self.names, &name);
        let asked = merged(&wanted, &optional);
        let existing = self
            .config(&name, &format!("STREAM.INFO.{name}"), STREAM_NOT_FOUND)
            .await?;
        let (verb, request, before) = match existing {
            None => ("CREATE", asked, None),
            Some(found) => {
                let differing = differences(&asked, &found);
                if differing.is_empty() {
                    return Ok(AssetChange {
                        asset: name,
                        change: Change::Unchanged,
                        without: Vec::new(),
                    });
                }
                // Fields that are not ours (placement, tags of newer servers) stay as they are.
                ("UPDATE", merged(&found, &asked), Some(differing))
            }
        };
        let answer = self
            .api(&name, &format!("STREAM.{verb}.{name}"), &request)
            .await?;
        let mut change = self.settle(name, &wanted, &answer, before)?;
        change.go_without(differences(&optional, &answer["config"]));
        Ok(change)
    }

    async fn ensure_consumer(
        &self,
        stream: &str,
        wanted: Value,
    ) -> Result<AssetChange, AssetError> {
        let name = text(&wanted["durable_name"]);
        let asset = format!("{stream}/{name}");
        let info = format!("CONSUMER.INFO.{stream}.{name}");
        let before = match self.config(&asset, &info, CONSUMER_NOT_FOUND).await? {
            None => None,
            Some(found) => {
                let differing = differences(&wanted, &found);
                if differing.is_empty() {
                    return Ok(AssetChange {
                        asset,
                        change: Change::Unchanged,
                        without: Vec::new(),
                    });
                }
                Some(differing)
            }
        };
        let request = json!({ "stream_name": stream, "config": wanted });
        let create = format!("CONSUMER.DURABLE.CREATE.{stream}.{name}");
        let answer = self.api(&asset, &create, &request).await?;
        self.settle(asset, &wanted, &answer, before)
    }

    /// Judges the answer to a create or update by the configuration it echoes.
    fn settle(
        &self,
        asset: String,
        wanted: &Value,
        answer: &Value,
        before: Option<Vec<Difference>>,
    ) -> Result<AssetChange, AssetError> {
        if let Some((code, reason)) = failure(answer) {
            return Err(if NO_ROOM.contains(&code) {
                AssetError::NoRoom {
                    asset,
                    reason,
                    file: self.plan.file_bytes(),
                    memory: self.plan.memory_bytes(),
                }
            } else {
                AssetError::Refused {
                    asset,
                    reason,
                    code,
                    differing: before.unwrap_or_default(),
                }
            });
        }
        let differing = differences(wanted, &answer["config"]);
        if !differing.is_empty() {
            return Err(AssetError::Differs { asset, differing });
        }
        let change = before.map_or(Change::Created, Change::Updated);
        Ok(AssetChange {
            asset,
            change,
            without: Vec::new(),
        })
    }

    /// The configuration of what exists; `None` if the server answers with the code `absent`.
    async fn config(
        &self,
        asset: &str,
        subject: &str,
        absent: u64,
    ) -> Result<Option<Value>, AssetError> {
        let mut answer = self.api(asset, subject, &json!({})).await?;
        match failure(&answer) {
            Some((code, _)) if code == absent => Ok(None),
            Some((code, reason)) => Err(AssetError::Refused {
                asset: asset.to_owned(),
                reason,
                code,
                differing: Vec::new(),
            }),
            None => Ok(Some(answer["config"].take())),
        }
    }

    async fn api(&self, asset: &str, subject: &str, request: &Value) -> Result<Value, AssetError> {
        let answer = self.jetstream.request(subject.to_owned(), request).await;
        answer.map_err(
            |source: jetstream::context::RequestError| match source.kind() {
                RequestErrorKind::NoResponders => AssetError::NoJetStream,
                _ => AssetError::Request {
                    asset: asset.to_owned(),
                    source,
                },
            },
        )
    }

    async fn read_entry(&self, model: &ModelName) -> Result<Option<Bytes>, AssetError> {
        let bucket = self.names.models_kv();
        let store = self.jetstream.get_key_value(bucket).await;
        let store = store.map_err(|error| self.entry_error(model, &error))?;
        store
            .get(model.as_str())
            .await
            .map_err(|error| self.entry_error(model, &error))
    }

    async fn write_entry(&self, record: &ModelRecord) -> Result<(), AssetError> {
        let store = self.jetstream.get_key_value(self.names.models_kv()).await;
        let store = store.map_err(|error| self.entry_error(&record.name, &error))?;
        let written = store.put(record.name.as_str(), encode(record)).await;
        written
            .map(drop)
            .map_err(|error| self.entry_error(&record.name, &error))
    }

    fn entry_error(&self, model: &ModelName, error: &dyn std::error::Error) -> AssetError {
        AssetError::Entry {
            model: model.clone(),
            bucket: self.names.models_kv().to_owned(),
            reason: error.to_string(),
        }
    }
}

impl AssetChange {
    /// Notes what did not come back in the server's echo; asking for that changed nothing.
    fn go_without(&mut self, missing: Vec<Difference>) {
        self.without = missing.into_iter().map(|field| field.field).collect();
        if let Change::Updated(fields) = &mut self.change {
            fields.retain(|field| !self.without.contains(&field.field));
            if fields.is_empty() {
                self.change = Change::Unchanged;
            }
        }
    }
}

/// `base` with the fields of `over` added or replaced.
fn merged(base: &Value, over: &Value) -> Value {
    let mut merged = base.clone();
    if let (Value::Object(merged), Value::Object(over)) = (&mut merged, over) {
        merged.extend(over.clone());
    }
    merged
}

fn encode(record: &ModelRecord) -> Bytes {
    let bytes = serde_json::to_vec(record);
    bytes
        .expect("names, numbers and shapes always have a JSON form")
        .into()
}

fn failure(answer: &Value) -> Option<(u64, String)> {
    let error = answer.get("error")?;
    let code = error["err_code"].as_u64().or(error["code"].as_u64());
    Some((code.unwrap_or_default(), text(&error["description"])))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
