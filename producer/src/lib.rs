//! Client library and command line for jobs that inferq workers run.
//!
//! # The first job
//!
//! Start a queue with workers (`inferq up --models integration/models`), connect, and submit. A job
//! is on disk once `submit` returns; its outcome is kept for a day.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use inferq::{Client, Job};
//!
//! let client = Client::connect("nats://127.0.0.1:4222").await?;
//! let image = vec![0.0; 64];
//! let body = serde_json::json!({ "instances": [image] });
//! let submitted = client.submit(Job::new("digits".parse()?, body)).await?;
//! let outcome = client.wait(&submitted, Duration::from_secs(60)).await?;
//! println!("{}: {}", outcome.status(), outcome.text());
//! # Ok(()) }
//! ```
//!
//! # A remote procedure call
//!
//! [`Client::call`] asks a worker directly: faster, nothing is stored, and at most 55 s long. An
//! [`InferRequest`] travels as CBOR and comes back bit for bit; [`Outcome::response`] reads it.
//!
//! ```no_run
//! # async fn example(client: inferq::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let image = vec![0.0; 64];
//! let body = serde_json::json!({ "instances": [image] });
//! let request = inferq::Job::new("digits".parse()?, body);
//! let answer = client.call(request).await?;
//! println!("{}", answer.text());
//! # Ok(()) }
//! ```
//!
//! # Many jobs
//!
//! [`Client::submit_many`] keeps a window of jobs in flight, in bytes and in number
//! ([`Window`]), and waits while a queue is full, so a program submits as fast as the workers can
//! follow and none is lost. [`Client::run`] submits one job and waits for its outcome; thousands of
//! these at once share one inbox. See `examples/many_jobs.rs`.
//!
//! # Sending a job twice
//!
//! Every job has an id, and the same id is the same job: it has one outcome, however often it is
//! sent. [`Job::key`] makes the id from a name of yours, such as an order's number. Another body under
//! an id that is taken is [`SubmitError::Conflict`]. So after [`SubmitError::Unconfirmed`], which
//! leaves open whether the job was queued, sending it again is always right.
//!
//! # A job on its way
//!
//! [`Client::follow`] submits a job and tells what happens to it: its position in the queue and how long
//! that is likely to take, that it runs, that it is tried again, and last its outcome. [`Client::events`]
//! does so for a job that is submitted already.
//!
//! # Large bodies
//!
//! A body above three quarters of the server's `max_payload` (1 MiB unless configured) travels beside
//! its job, in a bucket of the server, and so does a large answer; [`BlobError`] says what can go wrong
//! on that way. The limit is what a worker may hold at once, 512 MiB unless told, and the bucket's
//! size.
//!
//! # Errors
//!
//! There is one type for each kind of call ([`ConnectError`], [`SubmitError`], [`CallError`],
//! [`ResultError`]), a variant for each thing that a caller can do about it, and a text that names
//! the next step. `code()` gives the [`ErrorCode`] of the wire. No call waits for ever: submitting ends
//! after 30 s, a call after 5 s, unless told otherwise, whatever happens to server and connection. A
//! job that was run and failed is no error of these but an [`Outcome`] that is not
//! [`ok`](Outcome::is_ok) and has a [`failure`](Outcome::failure). See `examples/errors.rs`.
//!
//! # The end
//!
//! The connection comes back by itself when a server restarts. [`Client::close`] sends what is
//! buffered and closes it; a program that only awaited results may simply end.
//!
//! # The house
//!
//! ```text
//! job.rs      what to run: model, body, lane, id, deadline
//! client.rs   the connection, shared by clones
//! submit.rs   durable jobs, one by one or many in a window     -> JetStream
//! call.rs     an answer from a worker directly                 -> core NATS
//! blobs.rs    bodies too large for a message                -> object store
//! result.rs   the one outcome of a job, read or waited for
//! events.rs   a job on its way: position, running, outcome     <- JetStream, core NATS
//! cancel.rs   calls a job off                                  -> core NATS
//! replies.rs  submit and wait in one, for many jobs at once
//! assets.rs   streams, buckets and consumers
//! dead.rs     jobs that failed for good: read, replayed, deleted
//! queue.rs    what waits for workers, and emptying it
//! bench.rs    load with a latency histogram
//! score/      files through a model, as jobs
//! stack/      a private nats-server, Redis and workers, for one machine and for tests
//! ```
//! Jobs are read and run by other programs (`inferq-worker`); this crate meets them only in
//! `inferq-schemas` and knows no model format, no engine and no cache.

pub mod assets;
pub mod bench;
mod blobs;
mod call;
mod cancel;
mod client;
pub mod dead;
mod denied;
mod error;
mod events;
mod job;
mod known;
mod outcome;
pub mod queue;
mod replies;
mod result;
pub mod score;
mod size;
pub mod stack;
mod submit;
mod trace;

pub use assets::{AssetPlan, JOBS_KEPT};
pub use blobs::BlobError;
pub use cancel::CancelError;
pub use client::{Client, ClientBuilder};
pub use denied::DeniedSubject;
pub use error::{CallError, ConnectError, ModelError, ResultError, RunError, SubmitError};
pub use events::{Event, Events, Followed};
pub use inferq_schemas::{
    ContentType, DeadHeaders, ErrorCode, Failure, InferRequest, InferResponse, JobEvent, JobId,
    Lane, ModelName, NameError, ReplyPrefixes, ResultMode, Status, Subjects, WorkerRecord,
};
pub use job::{Body, Job};
pub use outcome::Outcome;
pub use size::{ByteSize, SizeError};
pub use submit::{Submitted, Window};
