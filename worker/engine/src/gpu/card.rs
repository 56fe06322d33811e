//! A graphics card that models share: the device that is open on it now, and whether to ask it.
//!
//! A device that is lost stays lost. The card opens a new one in the background, once a minute at most; what
//! was uploaded to the old one has to be uploaded again by whoever uses it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::adapter::{AdapterInfo, GpuPolicy, describe, enumerate};
use super::breaker::Breaker;
use super::device::Opened;
use super::error::GpuError;

/// From the begin of one attempt to open a new device to the next.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(60);

/// An adapter opened for compute. Cloning shares it; all threads may use it.
#[derive(Clone)]
pub struct Gpu(Arc<Card>);

struct Card {
    info: AdapterInfo,
    forced: bool,
    /// Whether it is opened with its own products of matrices, if it has them.
    cooperative: bool,
    now: RwLock<Arc<Opened>>,
    breaker: Mutex<Breaker>,
    /// Where what was found out about it is kept.
    memory: OnceLock<PathBuf>,
    /// When the last attempt to open a new device began.
    attempted: Mutex<Option<Instant>>,
}

impl Gpu {
    /// Opens the adapter that `policy` and `name` choose; `None` if the policy wants none.
    ///
    /// # Errors
    /// [`GpuError::NoAdapter`] if `Force`, or a name under `Auto`, finds nothing;
    /// [`GpuError::Unsupported`] if the adapter lacks a feature or refuses to open.
    pub fn open(policy: GpuPolicy, name: Option<&str>) -> Result<Option<Gpu>, GpuError> {
        Self::open_with(policy, name, false)
    }

    /// The same; `cooperative` says that layers with [`Weights::Half`](super::Weights::Half) may run on the card's
    /// own products of matrices, if it has them. wgpu calls that experimental.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        policy: GpuPolicy,
        name: Option<&str>,
        cooperative: bool,
    ) -> Result<Option<Gpu>, GpuError> {
        if policy == GpuPolicy::Off {
            return Ok(None);
        }
        let adapters = enumerate();
        let infos: Vec<AdapterInfo> = adapters.iter().map(describe).collect();
        match policy.choose(&infos, name) {
            Some(at) => {
                let opened = Opened::new(&adapters[at], &infos[at], cooperative)?;
                Ok(Some(Gpu(Arc::new(Card {
                    info: infos[at].clone(),
                    forced: policy == GpuPolicy::Force,
                    cooperative,
                    now: RwLock::new(Arc::new(opened)),
                    breaker: Mutex::default(),
                    memory: OnceLock::new(),
                    attempted: Mutex::default(),
                }))))
            }
            None if policy == GpuPolicy::Auto && name.is_none() => Ok(None),
            None => Err(no_adapter(&infos)),
        }
    }

    /// The adapter it runs on.
    #[must_use]
    pub fn info(&self) -> &AdapterInfo {
        &self.0.info
    }

    /// Rows and columns of the matrices that the card multiplies by itself for layers with
    /// [`Weights::Half`](super::Weights::Half), if it does.
    #[must_use]
    pub fn cooperates(&self) -> Option<u32> {
        self.opened()
            .cooperative()
            .map(|cooperative| cooperative.size)
    }

    /// Keeps in `folder`, which is made when needed, what loading a model measures on this card and what the
    /// driver compiles for it, and reads both from there. Only its user should be able to write to it: the driver
    /// trusts what it once compiled. Counts the first time only.
    pub fn remember_in(&self, folder: PathBuf) {
        let folder = self.0.memory.get_or_init(|| folder);
        self.opened().keep_in(folder, self.info());
    }

    pub(crate) fn remembers_in(&self) -> Option<&Path> {
        self.0.memory.get().map(PathBuf::as_path)
    }

    /// What went wrong on the device that is open now and has not been told otherwise: that it is lost, else the
    /// first error that no call could be told of. Only a lost device is not asked any more.
    #[must_use]
    pub fn fault(&self) -> Option<GpuError> {
        self.opened().fault()
    }

    /// Whether [`GpuPolicy::Force`] opened it: then it is used even where the CPU is faster.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.0.forced
    }

    /// Whether it is worth asking: neither lost nor failing all the time.
    ///
    /// Where the device is lost, this begins to open a new one in the background, unless that was tried within
    /// the last minute.
    #[must_use]
    pub fn usable(&self) -> bool {
        if self.opened().check().is_err() {
            self.reopen_later();
            return false;
        }
        !self.breaker().is_open(Instant::now())
    }

    /// Notes that it gave no result for a batch.
    ///
    /// A batch that is too large for it says nothing about the card. After a timeout nobody should wait
    /// for it again soon.
    pub(crate) fn failed(&self, error: &GpuError) {
        match error {
            GpuError::Limit { .. } | GpuError::Shape { .. } | GpuError::Empty(_) => {}
            GpuError::Timeout(_) => self.breaker().failed_badly(Instant::now()),
            GpuError::NoAdapter { .. }
            | GpuError::Unsupported { .. }
            | GpuError::OutOfMemory(_)
            | GpuError::Lost(_)
            | GpuError::Unfit(_)
            | GpuError::Fault(_) => self.breaker().failed(Instant::now()),
        }
    }

    /// Batches that it gave no result for, since it was opened.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.breaker().failures()
    }

    /// Gives the device back to the system. Whatever is on it fails with [`GpuError::Lost`] from now on.
    pub fn destroy(&self) {
        self.opened().destroy();
    }

    /// The device that is open now.
    pub(super) fn opened(&self) -> Arc<Opened> {
        let now = self.0.now.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&now)
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.0
            .breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn reopen_later(&self) {
        let mut attempted = self
            .0
            .attempted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if attempted.is_some_and(|begun| begun.elapsed() < BETWEEN_ATTEMPTS) {
            return;
        }
        *attempted = Some(Instant::now());
        drop(attempted);
        let card = self.clone();
        let begun = std::thread::Builder::new()
            .name("inferq-reopen".to_owned())
            .spawn(move || match card.reopen() {
                Ok(()) => tracing::info!(adapter = card.info().name, "the graphics device is open again"),
                Err(error) => {
                    tracing::warn!(%error, adapter = card.info().name, "the graphics device cannot be opened again");
                }
            });
        if let Err(error) = begun {
            tracing::warn!(%error, "there is no thread to open the graphics device on");
        }
    }

    /// Opens a new device on the same adapter, by what the system says now.
    fn reopen(&self) -> Result<(), GpuError> {
        let adapters = enumerate();
        let infos: Vec<AdapterInfo> = adapters.iter().map(describe).collect();
        let same = infos.iter().position(|info| *info == self.0.info);
        let at = same.ok_or_else(|| no_adapter(&infos))?;
        let opened = Opened::new(&adapters[at], &infos[at], self.0.cooperative)?;
        let opened = Arc::new(opened);
        if let Some(folder) = self.remembers_in() {
            opened.keep_in(folder, self.info());
        }
        *self.0.now.write().unwrap_or_else(PoisonError::into_inner) = opened;
        *self.breaker() = Breaker::default();
        Ok(())
    }
}

fn no_adapter(there: &[AdapterInfo]) -> GpuError {
    let names: Vec<String> = there
        .iter()
        .map(|info| format!("{} ({})", info.name, info.kind))
        .collect();
    let found = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    GpuError::NoAdapter { found }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({})", self.0.info.name)
    }
}
