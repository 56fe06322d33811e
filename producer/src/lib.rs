//! Client library and command line for jobs that inferq workers run.
//!
//! ```text
//! job.rs      what to run: model, body, lane, id, deadline
//! client.rs   the connection, shared by clones
//! submit.rs   durable jobs, one by one or many in a window     -> JetStream
//! call.rs     an answer from a worker directly                 -> core NATS
//! result.rs   the one outcome of a job, read or waited for
//! replies.rs  submit and wait in one, for many jobs at once
//! assets.rs   streams, buckets and consumers
//! bench.rs    load with a latency histogram
//! stack/      a private nats-server, Redis and workers, for one machine and for tests
//! ```
//! Jobs are read and run by other programs (`inferq-worker`); this crate meets them only in
//! `inferq-schemas` and knows no model format, no engine and no cache.

pub mod assets;
pub mod bench;
mod call;
mod client;
mod denied;
mod error;
mod job;
mod known;
mod outcome;
mod replies;
mod result;
mod size;
pub mod stack;
mod submit;
mod trace;

pub use assets::AssetPlan;
pub use client::{Client, ClientBuilder};
pub use denied::DeniedSubject;
pub use error::{CallError, ConnectError, ModelError, ResultError, RunError, SubmitError};
pub use inferq_schemas::{
    ContentType, ErrorCode, Failure, InferRequest, InferResponse, JobId, Lane, ModelName,
    ResultMode, Status, Subjects, WorkerRecord,
};
pub use job::{Body, Job};
pub use outcome::Outcome;
pub use size::{ByteSize, SizeError};
pub use submit::{Submitted, Window};
