//! Why an asset is not as it should be.

use inferq_schemas::ModelName;

use super::compare::Difference;

/// Why an asset is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum AssetError {
    /// The server does not answer JetStream requests.
    #[error(
        "JetStream does not answer at this server; start nats-server with `-js` or a `jetstream {{}}` block"
    )]
    NoJetStream,
    /// The request did not get through.
    #[error(
        "asking the server about {asset} failed; check the connection and the permission to use $JS.API.>"
    )]
    Request {
        /// The stream, bucket or consumer.
        asset: String,
        /// What the client says.
        #[source]
        source: async_nats::jetstream::context::RequestError,
    },
    /// The limits of the server are too small for the plan.
    #[error(
        "{asset} does not fit: {reason}. The server's max_file must hold {file} and its max_mem {memory}, \
         or choose smaller sizes (--jobs-bytes, --results-bytes, ...)"
    )]
    NoRoom {
        /// The stream that was refused.
        asset: String,
        /// The server's words.
        reason: String,
        /// File storage of the whole plan.
        file: crate::ByteSize,
        /// Memory storage of the whole plan.
        memory: crate::ByteSize,
    },
    /// The server refused the configuration.
    #[error("the server refused {asset}: {reason} (code {code}){}", list(.differing))]
    Refused {
        /// The stream, bucket or consumer.
        asset: String,
        /// The server's words.
        reason: String,
        /// JetStream's error code.
        code: u64,
        /// What the change would have changed, for an asset that exists.
        differing: Vec<Difference>,
    },
    /// The server took the request but made something else.
    #[error(
        "{asset} is not what was asked for{}; the server may be too old (2.9.10 or newer is needed), or another \
         program manages this asset",
        list(.differing)
    )]
    Differs {
        /// The stream, bucket or consumer.
        asset: String,
        /// The fields that differ.
        differing: Vec<Difference>,
    },
    /// The bucket of known models could not be read or written.
    #[error(
        "the entry of model `{model}` in bucket {bucket} could not be written: {reason}; run `inferq init` first"
    )]
    Entry {
        /// The model.
        model: ModelName,
        /// The bucket.
        bucket: String,
        /// What went wrong.
        reason: String,
    },
}

fn list(differing: &[Difference]) -> String {
    let fields: Vec<String> = differing.iter().map(ToString::to_string).collect();
    if fields.is_empty() {
        String::new()
    } else {
        format!(" ({})", fields.join("; "))
    }
}
