//! The connection: one per program is enough, clones share it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_nats::{ConnectOptions, Event, jetstream};
use inferq_schemas::{Assets, Subjects, WorkerRecord, address::Login};
use rand::{Rng, RngExt};
use tokio::sync::{OnceCell, Semaphore};

use crate::{
    assets::{AssetAdmin, AssetPlan},
    blobs::UPLOADS,
    denied::Denials,
    error::{ConnectError, ModelError, Source},
    known::{KnownModels, keys},
    replies::Replies,
    submit::Window,
};

/// Three unanswered pings end a connection, so a dead server is noticed within 30 s.
const PING: Duration = Duration::from_secs(10);
/// A read takes a fraction of a millisecond; one that is refused or lost gets no answer at all.
const READ_WITHIN: Duration = Duration::from_secs(2);
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_LAST: Duration = Duration::from_secs(8);

/// Submits jobs, calls models and reads outcomes.
///
/// Cheap to clone; clones share one connection, which reconnects by itself.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use inferq::{Client, Job};
///
/// let client = Client::connect("nats://127.0.0.1:4222").await?;
/// let job = Job::new("digits".parse()?, r#"{"instances": [[0.0, 1.0]]}"#);
/// let submitted = client.submit(job).await?;
/// let outcome = client.wait(&submitted, Duration::from_secs(30)).await?;
/// println!("{}", outcome.text());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) nats: async_nats::Client,
    pub(crate) jetstream: jetstream::Context,
    /// The same for reading, with less patience.
    pub(crate) reader: jetstream::Context,
    pub(crate) subjects: Subjects,
    pub(crate) names: Assets,
    pub(crate) known: KnownModels,
    pub(crate) denials: Denials,
    pub(crate) replies: OnceCell<Replies>,
    pub(crate) uploads: Semaphore,
    pub(crate) settings: Settings,
}

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) submit_within: Duration,
    pub(crate) call_within: Duration,
    pub(crate) window: Window,
    pub(crate) check_models: bool,
}

/// Settings of a [`Client`]; each has a default that suits most programs.
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    name: String,
    prefix: String,
    inbox_prefix: Option<String>,
    credentials: Option<PathBuf>,
    settings: Settings,
}

impl Client {
    /// Connects with the default settings.
    ///
    /// # Errors
    /// [`ConnectError`] if nothing answers at `url`.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::builder().connect(url).await
    }

    /// Starts from the default settings.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            name: format!("inferq {}", env!("CARGO_PKG_VERSION")),
            prefix: "infer".to_owned(),
            inbox_prefix: None,
            credentials: None,
            settings: Settings {
                submit_within: Duration::from_secs(30),
                call_within: Duration::from_secs(5),
                window: Window::default(),
                check_models: true,
            },
        }
    }

    /// The connection underneath, for what this library does not do.
    pub fn nats(&self) -> &async_nats::Client {
        &self.inner.nats
    }

    /// The subjects of this deployment.
    pub fn subjects(&self) -> &Subjects {
        &self.inner.subjects
    }

    /// Makes streams, buckets and consumers over this connection.
    pub fn admin(&self, plan: AssetPlan) -> AssetAdmin {
        AssetAdmin::new(self.inner.nats.clone(), self.inner.subjects.clone(), plan)
    }

    /// The names of all known models, sorted.
    ///
    /// # Errors
    /// [`ModelError`] if the bucket of models cannot be read.
    pub async fn models(&self) -> Result<Vec<String>, ModelError> {
        let mut names = self.inner.known.names().await?;
        names.sort();
        Ok(names)
    }

    /// The workers that reported within the last 20 seconds, sorted by id.
    ///
    /// # Errors
    /// [`ModelError`] if the bucket of workers cannot be read.
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, ModelError> {
        let bucket = self.inner.names.workers_kv();
        let unreadable = |source: Source| ModelError::Unreadable {
            bucket: bucket.to_owned(),
            source,
        };
        let keys = keys(&self.inner.reader, bucket).await.map_err(unreadable)?;
        let store = self.inner.reader.get_key_value(bucket).await;
        let store = store.map_err(|error| unreadable(error.into()))?;
        let mut workers = Vec::with_capacity(keys.len());
        for key in keys {
            let value = store
                .get(key)
                .await
                .map_err(|error| unreadable(error.into()))?;
            // A record that left in between, or of another version, is not a worker to show.
            if let Some(record) =
                value.and_then(|value| serde_json::from_slice::<WorkerRecord>(&value).ok())
            {
                workers.push(record);
            }
        }
        workers.sort_by(|one, two| one.id.cmp(&two.id));
        Ok(workers)
    }

    /// Sends what is buffered and closes the connection once that is done, or after two seconds.
    pub async fn close(&self) {
        let flush = tokio::time::timeout(Duration::from_secs(2), self.inner.nats.flush()).await;
        if !matches!(flush, Ok(Ok(()))) {
            tracing::warn!("the connection closes with messages that were not sent");
        }
        if let Err(error) = self.inner.nats.drain().await {
            tracing::debug!(%error, "the connection was closed already");
        }
    }
}

impl ClientBuilder {
    /// The name the server shows for this connection.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The prefix of all subjects of the deployment, `infer` unless told.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Where answers come, such as `infer.reply.me`. The worker must allow it (`--reply-prefix`).
    ///
    /// Without one, each client listens under a random name below `_INBOX`.
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.inbox_prefix = Some(prefix.into());
        self
    }

    /// A NATS credentials file (`.creds`).
    pub fn credentials(mut self, file: impl Into<PathBuf>) -> Self {
        self.credentials = Some(file.into());
        self
    }

    /// How long `submit` tries to get a job confirmed; 30 s unless told.
    pub fn submit_within(mut self, limit: Duration) -> Self {
        self.settings.submit_within = limit;
        self
    }

    /// How long a call waits when the request does not say; 5 s unless told.
    pub fn call_within(mut self, limit: Duration) -> Self {
        self.settings.call_within = limit;
        self
    }

    /// How much [`Client::submit_many`] keeps in flight.
    pub fn window(mut self, window: Window) -> Self {
        self.settings.window = window;
        self
    }

    /// Whether unknown models are refused before anything is published; true unless told.
    pub fn check_models(mut self, check: bool) -> Self {
        self.settings.check_models = check;
        self
    }

    /// Connects to `url`, such as `nats://127.0.0.1:4222`, `nats://USER:PASSWORD@HOST` or
    /// `nats://TOKEN@HOST`; what is special in a password is written as in any URL (`%40` for `@`).
    ///
    /// # Errors
    /// [`ConnectError`] if nothing answers at `url`, or a setting cannot be used.
    pub async fn connect(self, url: &str) -> Result<Client, ConnectError> {
        let subjects = Subjects::new(&self.prefix)?;
        let names = Assets::new(&subjects);
        let denials = Denials::new();
        let options = self.options(url, &denials).await?;
        let nats = options
            .connect(url)
            .await
            .map_err(|error| ConnectError::Unreachable {
                url: url.to_owned(),
                reason: error.to_string(),
            })?;
        let jetstream = jetstream::new(nats.clone());
        let mut reader = jetstream.clone();
        reader.set_timeout(READ_WITHIN);
        Ok(Client {
            inner: Arc::new(Inner {
                known: KnownModels::new(reader.clone(), denials.clone(), names.models_kv()),
                denials,
                reader,
                replies: OnceCell::new(),
                uploads: Semaphore::new(UPLOADS),
                settings: self.settings,
                nats,
                jetstream,
                subjects,
                names,
            }),
        })
    }

    async fn options(&self, url: &str, denials: &Denials) -> Result<ConnectOptions, ConnectError> {
        let inbox = self.inbox_prefix.clone().unwrap_or_else(random_inbox);
        let denials = denials.clone();
        let options = match Login::of(url) {
            Some(Login::User { name, password }) => {
                ConnectOptions::with_user_and_password(name, password)
            }
            Some(Login::Token(token)) => ConnectOptions::with_token(token),
            None => ConnectOptions::new(),
        };
        let options = options
            .name(&self.name)
            .ping_interval(PING)
            .custom_inbox_prefix(inbox)
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(move |event| {
                let denials = denials.clone();
                async move { report(&event, &denials) }
            });
        match &self.credentials {
            None => Ok(options),
            Some(file) => {
                options
                    .credentials_file(file)
                    .await
                    .map_err(|error| ConnectError::Credentials {
                        path: file.display().to_string(),
                        reason: error.to_string(),
                    })
            }
        }
    }
}

fn random_inbox() -> String {
    format!("_INBOX.{:016x}", rand::rng().next_u64())
}

/// Doubles up to 8 s; half of it is random, so that a thousand clients do not return at once.
fn reconnect_delay(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1))
        .unwrap_or(u32::MAX)
        .min(7);
    let full = (RECONNECT_FIRST * 2_u32.pow(doublings)).min(RECONNECT_LAST);
    full.mul_f64(rand::rng().random_range(0.5..1.0))
}

fn report(event: &Event, denials: &Denials) {
    match event {
        Event::Connected => tracing::info!("connected to NATS"),
        Event::Disconnected => tracing::warn!("the connection to NATS is lost; reconnecting"),
        Event::LameDuckMode => tracing::info!("the NATS server is about to stop"),
        Event::Draining | Event::Closed => tracing::debug!(%event, "the NATS connection closes"),
        Event::SlowConsumer(subscription) => {
            tracing::warn!(
                subscription,
                "answers came faster than they were read; some are lost"
            );
        }
        Event::ServerError(error) => {
            tracing::error!(%error, "the NATS server refuses something");
            denials.report(&error.to_string());
        }
        Event::ClientError(error) => tracing::warn!(%error, "the NATS client reports"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnects_spread_out_and_stay_below_eight_seconds() {
        for attempt in [0, 1, 2, 5, 8, 1_000_000] {
            let delay = reconnect_delay(attempt);
            assert!(
                delay >= RECONNECT_FIRST / 2 && delay <= RECONNECT_LAST,
                "{attempt}: {delay:?}"
            );
        }
        let delays: Vec<Duration> = (0..8).map(|_| reconnect_delay(8)).collect();
        assert!(
            delays.windows(2).any(|pair| pair[0] != pair[1]),
            "{delays:?}"
        );
    }

    #[test]
    fn each_client_listens_under_a_name_that_workers_answer_to() {
        let (one, two) = (random_inbox(), random_inbox());
        assert_ne!(one, two);
        let allowed = inferq_schemas::ReplyPrefixes::default();
        assert!(allowed.allows(&format!("{one}.job")).is_ok());
    }
}
