//! The parts of a worker that talk to Redis and NATS, against real servers in temporary folders.

mod cache;
mod events;
mod nats;
mod presence;
mod redis;
mod sweep;
