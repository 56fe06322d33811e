//! Why a body beside its message was not stored or fetched.

use inferq_schemas::ErrorCode;

use crate::{denied::DeniedSubject, error::Source};

/// Why a body that travels by reference was not stored or fetched.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The object is not there.
    #[error(
        "object {name} of bucket {bucket} is not there; bodies are kept for a day, and that of a job until it is answered"
    )]
    Missing {
        /// Name of the object.
        name: String,
        /// The bucket.
        bucket: String,
    },
    /// What is stored there is another body.
    #[error(
        "object {name} of bucket {bucket} is not the body that its size and digest name; somebody has replaced it"
    )]
    Damaged {
        /// Name of the object.
        name: String,
        /// The bucket.
        bucket: String,
    },
    /// It is larger than any reader takes.
    #[error("the body has {bytes} bytes, no reader takes more than {limit}; send fewer rows")]
    TooLarge {
        /// Size of the body.
        bytes: u64,
        /// The most a body may have.
        limit: usize,
    },
    /// The bucket takes no more.
    #[error(
        "bucket {bucket} has no room for a body of {bytes} bytes: {reason}; try again when other jobs are answered, \
         send fewer rows, or make it larger with `inferq init --blobs-bytes`"
    )]
    Full {
        /// The bucket.
        bucket: String,
        /// Size of the body.
        bytes: u64,
        /// The server's words.
        reason: String,
    },
    /// There is no bucket.
    #[error("this server has no bucket {bucket}; run `inferq init` or `inferq up`")]
    NoBucket {
        /// The bucket.
        bucket: String,
    },
    /// This user may not do that.
    #[error(transparent)]
    Denied(#[from] DeniedSubject),
    /// The bucket did not answer.
    #[error("bucket {bucket} did not answer; check the connection and try again")]
    Unanswered {
        /// The bucket.
        bucket: String,
        /// What the client says.
        #[source]
        source: Source,
    },
}

impl BlobError {
    /// The code of the wire that says the same.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Missing { .. } => ErrorCode::NotFound,
            Self::Damaged { .. } => ErrorCode::BadInput,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Full { .. } => ErrorCode::Overloaded,
            Self::NoBucket { .. } | Self::Denied(_) | Self::Unanswered { .. } => {
                ErrorCode::Unavailable
            }
        }
    }
}
