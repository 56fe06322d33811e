//! Asks consumers for messages: as many and as large as there is room for, and the room is taken before.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::consumer::pull::BatchConfig;
use inferq_schemas::subjects::ModelName;
use tokio::time::Instant;
use tracing::warn;

use super::Puller;
use crate::pull::inbox::Inbox;
use crate::pull::sources::{Ask, Free, Grant, Sources};

/// How long a waiting pull stays with the server. Short, since a lost one is noticed only after it.
const WAIT: Duration = Duration::from_secs(5);
/// How much longer than its expiry a request may stay unanswered before it counts as lost.
const GUARD: Duration = Duration::from_secs(2);

/// What the server counts of a message beside headers and body: its subject and the one to
/// acknowledge it at, in bytes.
const SUBJECT_BYTES: usize = 1024;
/// All waiting pulls together may bring this part of the room's bytes.
const PART_FOR_WAITING: usize = 4;
/// But each of them so many bytes, a request of some thousand numbers.
const SMALLEST_WAITING: usize = 16 * 1024;

impl Puller {
    fn is_connected(&self) -> bool {
        self.ledger.client().connection_state() == State::Connected
    }

    /// Sends the requests that there is room for now.
    pub(super) async fn issue(&self, sources: &mut Sources, inbox: &Inbox) {
        // Without a connection requests would gather in the client and all be sent at its return.
        if !self.gate.is_open() || !self.is_connected() {
            return;
        }
        let message = self.ledger.max_payload() + SUBJECT_BYTES;
        self.room.queues_hold(sources.with_more());
        let free = Free {
            places: self.room.free_for_queues(),
            messages: self.room.free_messages(message),
        };
        let waiting = self.bytes_of_waiting(sources.len(), message);
        let usual = |model: &ModelName, lane| self.room.usual_places(model, lane);
        let grants = sources.grants(free, |model| self.room.open_to_queue(model), usual);
        for Grant { source, ask } in grants {
            let Some(served) = sources.served(source) else {
                continue;
            };
            let (messages, max_bytes) = match ask {
                Ask::Fetch(messages) => (messages, messages * message),
                Ask::Wait { large: true } => (0, message),
                Ask::Wait { large: false } => (0, waiting),
            };
            let promise = self
                .room
                .promise(&served.model, served.lane, messages, max_bytes);
            let Some(promise) = promise else {
                // Whoever is next must not take what this one waits for.
                break;
            };
            let (request, until) = match ask {
                Ask::Wait { .. } => (
                    BatchConfig {
                        batch: 1,
                        expires: Some(WAIT),
                        max_bytes,
                        ..BatchConfig::default()
                    },
                    Instant::now() + WAIT + GUARD,
                ),
                Ask::Fetch(batch) => (
                    BatchConfig {
                        batch,
                        no_wait: true,
                        max_bytes,
                        ..BatchConfig::default()
                    },
                    Instant::now() + GUARD,
                ),
            };
            let sent = self
                .ledger
                .request_messages(&served.stream, &served.name, &request, inbox.of(source))
                .await;
            if let Err(error) = sent {
                warn!(%error, "a pull request was not sent, trying again");
            }
            sources.asked(source, ask, promise, until);
        }
    }

    /// Bytes that each of so many waiting pulls may bring: together a part of the room, since most of them
    /// bring nothing. A larger `message` is noticed and asked for with room for it.
    fn bytes_of_waiting(&self, pulls: usize, message: usize) -> usize {
        let all = self.room.limits().bytes / PART_FOR_WAITING;
        let each = all / pulls.max(1);
        each.clamp(SMALLEST_WAITING.min(message), message)
    }
}
