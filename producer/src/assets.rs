//! Streams, buckets and consumers: what must exist before a job can run.
//!
//! ```text
//! plan.rs      how large and how long: the choices a person can make
//! layout.rs    each asset as the exact configuration asked of the server
//! compare.rs   asked against answered, field by field
//! ensure.rs    create or update, then compare: servers ignore what they do not know
//! ```
//! Everything is written as plain JSON with the fields that servers from 2.9.10 on understand. Some
//! that only newer ones know are asked for as well: an older server ignores them in silence, so what
//! it answers tells whether they hold, and the asset does without where they do not.
//! Workers never create or delete any of this.

mod compare;
mod ensure;
mod error;
mod layout;
mod plan;

pub use compare::Difference;
pub use ensure::{AssetAdmin, AssetChange, Change};
pub use error::AssetError;
pub use layout::JOBS_KEPT;
pub use plan::{AssetPlan, Storage};
