//! Compiled kernels on disk, so that the next process does not wait for the driver's compiler.
//!
//! Drivers may keep their own; in a container that starts afresh each time none of them does.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::adapter::AdapterInfo;
use super::device::Opened;
use super::error::GpuError;
use super::memory;

const DIGEST_BYTES: usize = blake3::OUT_LEN;

/// What the driver compiled for a device, in this process and in those before it.
pub(super) struct Kept {
    pub(super) cache: wgpu::PipelineCache,
    path: PathBuf,
    /// Whether a kernel was made since the file was held against what there is.
    grew: AtomicBool,
    /// Digest of what is in the file.
    written: Mutex<Option<blake3::Hash>>,
}

impl Kept {
    /// What is in `folder` for this device; `None` if its driver hands nothing out.
    pub(super) fn open(folder: &Path, card: &AdapterInfo, gpu: &Opened) -> Option<Self> {
        let features = gpu.device.features();
        if !features.contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = memory::path(folder, card, "kernels", "kernels");
        // Of another version of the driver it is refused.
        let known = whole(&path)
            .and_then(|(digest, data)| Some((create(Some(&data), gpu).ok()?, Some(digest))));
        let (cache, written) = match known {
            Some(known) => known,
            None => (create(None, gpu).ok()?, None),
        };
        tracing::debug!(path = %path.display(), known = written.is_some(), "compiled kernels are kept");
        Some(Kept {
            cache,
            path,
            grew: AtomicBool::new(false),
            written: Mutex::new(written),
        })
    }

    /// Notes that a kernel was made, compiled or taken from what there was.
    pub(super) fn grew(&self) {
        self.grew.store(true, Ordering::Relaxed);
    }

    /// Writes the file again, if it is not what there is now.
    pub(super) fn save(&self) {
        if !self.grew.swap(false, Ordering::Relaxed) {
            return;
        }
        let Some(data) = self.cache.get_data() else {
            return;
        };
        let digest = blake3::hash(&data);
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written == Some(digest) {
            return;
        }
        let content = [&digest.as_bytes()[..], &data].concat();
        match memory::write(&self.path, &content) {
            Ok(()) => *written = Some(digest),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "compiled kernels are not kept, the next process compiles them again");
            }
        }
    }
}

/// What was written to `path`, if all of it is there and as it was, and its digest.
fn whole(path: &Path) -> Option<(blake3::Hash, Vec<u8>)> {
    let mut content = fs::read(path).ok()?;
    let data = content.split_off(DIGEST_BYTES.min(content.len()));
    let digest = blake3::hash(&data);
    (digest.as_bytes()[..] == content).then_some((digest, data))
}

#[allow(
    unsafe_code,
    reason = "the driver trusts the data; see what makes it trustworthy"
)]
fn create(data: Option<&[u8]>, gpu: &Opened) -> Result<wgpu::PipelineCache, GpuError> {
    gpu.created(|device| {
        let descriptor = wgpu::PipelineCacheDescriptor {
            label: Some("inferq kernels"),
            data,
            fallback: false,
        };
        // SAFETY: It is what `get_data` returned, which `whole` has seen to, from a folder that only this user
        // should be able to write to. wgpu holds its header against card and driver.
        unsafe { device.create_pipeline_cache(&descriptor) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Choice, Gpu, GpuPolicy, Operation, Program, Source, Step};

    /// Whether kernels were known before; then makes one.
    fn is_known(folder: &Path) -> bool {
        let gpu = Gpu::open(GpuPolicy::Force, None).expect("Mesa's software Vulkan");
        let gpu = gpu.expect("it is forced");
        gpu.remember_in(folder.to_owned());
        let opened = gpu.opened();
        let kept = opened.kept().expect("it hands them out");
        let known = kept.written.lock().expect("nobody panicked").is_some();
        let step = Step {
            operation: Operation::Softmax { scale: 1.0 },
            inputs: vec![0],
        };
        let program = Program::new(&gpu, &[Source::Given], [step], &[1]).expect("it fits");
        let run = program.run(&[&[1.0, 1.0]], &[vec![1, 2], vec![1, 2]], Choice::Likely);
        assert_eq!(run, Ok(vec![vec![0.5, 0.5]]));
        known
    }

    fn written_at(path: &Path) -> std::time::SystemTime {
        let file = fs::metadata(path).expect("it is there");
        file.modified().expect("systems that are tested know it")
    }

    #[test]
    fn what_one_process_compiled_the_next_one_has_unless_the_file_was_damaged() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kept");
        assert!(!is_known(&path));
        assert!(is_known(&path));
        let files: Vec<_> = fs::read_dir(&path)
            .expect("it was made")
            .map(|file| file.expect("a file").path())
            .collect();
        let [file] = &files[..] else {
            panic!("{files:?}");
        };
        let written = written_at(file);
        assert!(is_known(&path));
        assert_eq!(written_at(file), written, "there was nothing to add");
        let mut content = fs::read(file).expect("it is ours");
        *content.last_mut().expect("it is not empty") ^= 1;
        fs::write(file, content).expect("it is ours");
        assert!(!is_known(&path));
        assert!(is_known(&path), "it was written anew");
        fs::write(file, "short").expect("it is ours");
        assert!(!is_known(&path));
    }
}
