//! The worker: takes jobs from NATS JetStream, runs them in batches and publishes exactly one
//! outcome each.
//!
//! ```text
//!        credit          who, whether,       cache,            one outcome, dead letter,
//!        based           which version       single flight     reply, acknowledgement
//! NATS ─► pull ─────────► admit ───────────► lookup ─────────► settle ─► NATS
//!           ▲               │ refused ───────▲│▲ ──────────────▲ │
//!           │               └────────────────┼┼────────────────┘ │
//!           │                       new rows ▼│ answers          │
//!           │                          batch ─► execute          │
//!           └──────────── room given back, gate shut ────────────┘
//! ```
//!
//! Channels between stages are bounded by the room that `pull` hands out, so backpressure is simply
//! not reading. Only `pull` watches the stop token: it closes its output, and each stage ends when
//! its input does. Stages share `job.rs`, `work.rs`, `deadline.rs` and `clock.rs`, never each other's insides.
//!
//! What this crate does not know: how a model is computed (`inferq-engine`), how bytes on the wire
//! look (`inferq-schemas`), and how streams and consumers are made (`inferq`).

pub mod app;
pub mod config;

pub mod clock;
pub mod deadline;
pub mod job;
pub mod work;

pub mod admit;
pub mod batch;
pub mod execute;
pub mod lookup;
pub mod pull;
pub mod settle;

pub mod blobs;
pub mod cancel;
pub mod cancelled;
mod decision;
pub mod disposition;
pub mod events;
mod fair;
pub mod hold;
pub mod ledger;
pub mod settlement;

pub mod cache;
pub mod models;

pub mod check;
pub mod health;
pub mod metrics;
pub mod presence;
pub mod sweep;
pub mod telemetry;

#[cfg(test)]
mod testing;
