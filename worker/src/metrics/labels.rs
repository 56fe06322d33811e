//! The closed sets labels are taken from.

use inferq_schemas::Status;

/// A closed set of words for one label.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$case_doc:meta])* $case:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$case_doc])* $case),+ }

        impl $name {
            /// The word in the exposition.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$case => $word),+ }
            }
        }
    };
}

words! {
    /// The way a job came in.
    Door {
        /// From a job stream.
        Job = "job",
        /// Request and reply, spilled or not.
        Rpc = "rpc",
    }
}

words! {
    /// How this worker's hold of a job ended.
    OutcomeLabel {
        /// Answered.
        Ok = "ok",
        /// Answered with a permanent failure.
        Error = "error",
        /// Its deadline passed.
        Expired = "expired",
        /// Somebody cancelled it.
        Cancelled = "cancelled",
        /// Tried too often.
        Dead = "dead",
        /// Handed back to be tried again.
        Retried = "retried",
        /// Its id belongs to another body.
        Conflict = "conflict",
    }
}

impl From<Status> for OutcomeLabel {
    fn from(status: Status) -> Self {
        match status {
            Status::Ok => Self::Ok,
            Status::Error => Self::Error,
            Status::Expired => Self::Expired,
            Status::Cancelled => Self::Cancelled,
            Status::Dead => Self::Dead,
        }
    }
}

words! {
    /// Why a batch left.
    CloseReason {
        /// An executor was idle.
        Idle = "idle",
        /// It held as many rows as allowed.
        Full = "full",
        /// Its rows had waited long enough.
        Wait = "wait",
        /// More rows would have made some of it late.
        Deadline = "deadline",
        /// More rows would have kept others waiting, and gained nothing.
        Others = "others",
        /// Its model runs each job by itself.
        Alone = "alone",
    }
}

words! {
    /// One tier of the result cache.
    Tier {
        /// Inside this process.
        Memory = "memory",
        /// Shared by the workers.
        Redis = "redis",
    }
}

words! {
    /// What a cache said to one key.
    LookupResult {
        /// Here it is.
        Hit = "hit",
        /// Not here.
        Miss = "miss",
        /// No answer in time; taken as a miss.
        Error = "error",
    }
}

words! {
    /// Why an answer was not written to the shared cache.
    DropReason {
        /// Too many writes were waiting.
        Full = "full",
        /// Larger than a cache value may be.
        TooLarge = "too_large",
        /// The cache failed, or is being left alone because it did.
        Error = "error",
    }
}

words! {
    /// How a run of a model failed.
    EngineFailure {
        /// It returned an error.
        Error = "error",
        /// It panicked, and the panic was caught.
        Panic = "panic",
        /// It did not return in time; its thread was replaced.
        Timeout = "timeout",
    }
}

words! {
    /// Why the sweeper ended a job.
    SweepReason {
        /// No model takes it.
        UnknownModel = "unknown_model",
        /// It would soon have been removed unanswered.
        TooOld = "too_old",
        /// It was acknowledged and yet is there.
        Left = "left",
        /// Its outcome stands for long, and yet it is there.
        Answered = "answered",
    }
}
