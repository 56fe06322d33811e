//! Tests of the wire from outside, in one binary; only `allocation`, which brings its own
//! allocator, is another.

mod descriptions;
mod examples;
mod golden;
mod properties;
mod requests;
