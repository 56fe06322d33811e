//! How large and how long: the choices a person makes about streams and buckets.

use std::{num::NonZeroUsize, time::Duration};

use crate::size::ByteSize;

/// Where a server keeps a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// On disk: it outlives the server.
    File,
    /// In the server's memory: less work for it, and gone with it.
    Memory,
}

impl Storage {
    /// As the server calls it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Memory => "memory",
        }
    }
}

/// Memory the server needs per kept outcome, measured on 2.9.10: subject index and message index.
const BYTES_OF_MEMORY_PER_OUTCOME: u64 = 225;

/// Sizes, ages and copies of the streams and buckets.
///
/// The defaults suit one machine with a small disk: 2.8 GiB of file storage at most, and what is
/// not used is not taken. The server's `max_file` and `max_mem` must hold
/// [`file_bytes`](Self::file_bytes) and [`memory_bytes`](Self::memory_bytes).
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct AssetPlan {
    /// Copies of each stream: 1 for one server, 3 or 5 in a cluster.
    #[arg(long, env = "INFERQ_REPLICAS", default_value = "1")]
    pub replicas: NonZeroUsize,
    /// Largest size of the stream of high and normal jobs; new jobs are refused when it is full.
    #[arg(long, env = "INFERQ_JOBS_BYTES", default_value = "512MiB")]
    pub jobs_bytes: ByteSize,
    /// Largest size of the stream of low (bulk) jobs.
    #[arg(long, env = "INFERQ_BULK_BYTES", default_value = "512MiB")]
    pub bulk_bytes: ByteSize,
    /// Where low (bulk) jobs wait. No flag: a server that ends takes a stream in memory along, with its consumers,
    /// which suits only one that nobody outlives, as in the private stack of `inferq score`.
    #[arg(skip = Storage::File)]
    pub bulk_storage: Storage,
    /// Largest size of the stream of queued RPC: on disk with one server, in memory in a cluster.
    #[arg(long, env = "INFERQ_RPC_BYTES", default_value = "128MiB")]
    pub rpc_bytes: ByteSize,
    /// Largest size of the outcomes; the oldest leave first.
    #[arg(long, env = "INFERQ_RESULTS_BYTES", default_value = "512MiB")]
    pub results_bytes: ByteSize,
    /// Largest size of the dead letters; the oldest leave first.
    #[arg(long, env = "INFERQ_DEAD_BYTES", default_value = "128MiB")]
    pub dead_bytes: ByteSize,
    /// Largest size of the model objects.
    #[arg(long, env = "INFERQ_MODELS_BYTES", default_value = "512MiB")]
    pub models_bytes: ByteSize,
    /// Largest size of the bodies that travel by reference.
    #[arg(long, env = "INFERQ_BLOBS_BYTES", default_value = "512MiB")]
    pub blobs_bytes: ByteSize,
    /// Most waiting jobs of one model and lane; the next one is refused with 429.
    #[arg(long, env = "INFERQ_QUEUE_DEPTH", default_value = "100000")]
    pub queue_depth: NonZeroUsize,
    /// How long outcomes are kept, such as `24h`. At least 30 min: an outcome must outlive every redelivery of its job.
    #[arg(long, env = "INFERQ_KEEP_RESULTS", default_value = "24h", value_parser = humantime::parse_duration)]
    pub keep_results: Duration,
    /// Most outcomes kept; each costs the server about 225 bytes of memory.
    #[arg(long, env = "INFERQ_MAX_RESULTS", default_value = "4000000")]
    pub max_results: NonZeroUsize,
}

/// Each fixed bucket is small; the number makes it explicit.
pub(super) const MODELS_KV_BYTES: ByteSize = ByteSize::mib(32);
pub(super) const WORKERS_KV_BYTES: ByteSize = ByteSize::mib(16);
pub(super) const CANCEL_KV_BYTES: ByteSize = ByteSize::mib(64);

impl Default for AssetPlan {
    fn default() -> Self {
        let some = |value| NonZeroUsize::new(value).expect("the default is not zero");
        Self {
            replicas: some(1),
            jobs_bytes: ByteSize::mib(512),
            bulk_bytes: ByteSize::mib(512),
            bulk_storage: Storage::File,
            rpc_bytes: ByteSize::mib(128),
            results_bytes: ByteSize::mib(512),
            dead_bytes: ByteSize::mib(128),
            models_bytes: ByteSize::mib(512),
            blobs_bytes: ByteSize::mib(512),
            queue_depth: some(100_000),
            keep_results: Duration::from_secs(24 * 3600),
            max_results: some(4_000_000),
        }
    }
}

impl AssetPlan {
    /// File storage that all assets together may take on one server.
    pub fn file_bytes(&self) -> ByteSize {
        self.bytes_in(Storage::File)
    }

    /// Memory storage that all assets together may take on one server.
    pub fn memory_bytes(&self) -> ByteSize {
        self.bytes_in(Storage::Memory)
    }

    /// Memory that one server needs when everything is full: [`memory_bytes`](Self::memory_bytes), and what it
    /// keeps of each outcome to find it.
    pub fn server_memory(&self) -> ByteSize {
        let outcomes = self.memory_of_results();
        ByteSize::bytes(self.memory_bytes().as_u64().saturating_add(outcomes))
    }

    fn memory_of_results(&self) -> u64 {
        (self.max_results.get() as u64).saturating_mul(BYTES_OF_MEMORY_PER_OUTCOME)
    }

    /// Is there more than one server?
    pub fn is_clustered(&self) -> bool {
        self.replicas.get() > 1
    }

    /// Where that is kept which lives for seconds only: queued requests and the records of workers.
    ///
    /// In a cluster that is memory, since the others remember the stream when one server restarts. A
    /// single server forgets a stream in memory altogether, with its consumers, and would have to be
    /// told again by `inferq init`.
    pub(super) fn passing_storage(&self) -> Storage {
        if self.is_clustered() {
            Storage::Memory
        } else {
            Storage::File
        }
    }

    fn bytes_in(&self, storage: Storage) -> ByteSize {
        let sizes = [
            (self.passing_storage(), self.rpc_bytes),
            (self.passing_storage(), WORKERS_KV_BYTES),
            (self.bulk_storage, self.bulk_bytes),
            (Storage::File, self.jobs_bytes),
            (Storage::File, self.results_bytes),
            (Storage::File, self.dead_bytes),
            (Storage::File, self.models_bytes),
            (Storage::File, self.blobs_bytes),
            (Storage::File, MODELS_KV_BYTES),
            (Storage::File, CANCEL_KV_BYTES),
        ];
        let there = sizes.iter().filter(|(place, _)| *place == storage);
        let sum = there.fold(0_u64, |sum, (_, size)| sum.saturating_add(size.as_u64()));
        ByteSize::bytes(sum)
    }

    /// What keeping outcomes costs, in one sentence for people.
    pub fn cost_of_results(&self) -> String {
        let kept = self.max_results.get() as u64;
        let memory = self.memory_of_results() as f64 / 1e9;
        let rate = kept as f64 / self.keep_results.as_secs_f64().max(1.0);
        format!(
            "outcomes are kept for {}, up to {kept} of them and {}: about {memory:.2} GB of server memory when full; \
             above {rate:.0} jobs/s on average the oldest leave earlier",
            humantime::format_duration(self.keep_results),
            self.results_bytes,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        plan: AssetPlan,
    }

    #[test]
    fn the_flags_default_to_the_default_plan() {
        let flags = Flags::try_parse_from(["test"]).expect("no flag is required");
        assert_eq!(flags.plan, AssetPlan::default());
    }

    #[test]
    fn the_sums_follow_the_sizes() {
        let small = AssetPlan {
            replicas: NonZeroUsize::new(3).expect("not zero"),
            ..AssetPlan::default()
        };
        let large = AssetPlan {
            dead_bytes: ByteSize::mib(129),
            rpc_bytes: ByteSize::mib(130),
            ..small.clone()
        };
        let mib = |size: ByteSize| size.as_u64() >> 20;
        assert_eq!(mib(large.file_bytes()), mib(small.file_bytes()) + 1);
        assert_eq!(mib(large.memory_bytes()), mib(small.memory_bytes()) + 2);
        let single = AssetPlan {
            replicas: NonZeroUsize::MIN,
            ..large.clone()
        };
        assert_eq!(mib(single.memory_bytes()), 0);
        assert_eq!(
            mib(single.file_bytes()),
            mib(large.file_bytes()) + mib(large.memory_bytes())
        );
    }

    #[test]
    fn the_cost_of_the_default_is_what_the_design_says() {
        assert!(
            AssetPlan::default()
                .cost_of_results()
                .contains("about 0.90 GB")
        );
    }
}
