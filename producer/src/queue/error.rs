//! Why a queue was not shown or emptied.

use async_nats::jetstream::{
    ErrorCode,
    context::{GetStreamError, GetStreamErrorKind},
};
use inferq_schemas::ModelName;

use crate::{
    denied::DeniedSubject,
    error::{ModelError, Source},
};

/// Why a queue was not shown or emptied.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The model is not there.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model is known and has no queue.
    #[error("model `{model}` is known but has no queue; run `inferq init --model {model}`")]
    NoConsumer {
        /// The model.
        model: ModelName,
    },
    /// A stream of jobs does not exist.
    #[error("this server has no stream {stream}; run `inferq init` or `inferq up`")]
    NoStream {
        /// The stream.
        stream: String,
    },
    /// This user may not do that.
    #[error(transparent)]
    Denied(#[from] DeniedSubject),
    /// The request did not get through.
    #[error(
        "stream {stream} did not answer as it should; check the connection and the rights of an administrator"
    )]
    Request {
        /// The stream.
        stream: String,
        /// What the client says.
        #[source]
        source: Source,
    },
}

impl QueueError {
    pub(super) fn of(stream: &str, source: Source) -> Self {
        Self::Request {
            stream: stream.to_owned(),
            source,
        }
    }

    pub(super) fn of_stream(stream: &str, error: GetStreamError) -> Self {
        match error.kind() {
            GetStreamErrorKind::JetStream(answer)
                if answer.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Self::NoStream {
                    stream: stream.to_owned(),
                }
            }
            _ => Self::of(stream, error.into()),
        }
    }
}
