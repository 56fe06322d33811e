//! Tests of the wire from outside, in one binary; only `allocation`, which brings its own
//! allocator, is another.

mod cbor;
mod descriptions;
mod examples;
mod golden;
mod limits;
mod properties;
mod requests;
