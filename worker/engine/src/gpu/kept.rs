//! Compiled kernels on disk, so that the next process does not wait for the driver's compiler.
//!
//! Drivers may keep their own; in a container that starts afresh each time none of them does.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::adapter::AdapterInfo;
use super::device::Opened;
use super::error::GpuError;
use super::memory;

const DIGEST_BYTES: usize = blake3::OUT_LEN;

/// What the driver compiled for a device, in this process and in those before it.
pub(super) struct Kept {
    pub(super) cache: wgpu::PipelineCache,
    path: PathBuf,
    /// Whether something was compiled since the file was written.
    has_more: AtomicBool,
    /// Whether the driver took what was in the file.
    #[cfg(test)]
    pub(super) known: bool,
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
        let known = whole(&path).and_then(|data| create(Some(&data), gpu).ok());
        let is_known = known.is_some();
        tracing::debug!(path = %path.display(), is_known, "compiled kernels are kept");
        Some(Kept {
            cache: known.map_or_else(|| create(None, gpu).ok(), Some)?,
            path,
            has_more: AtomicBool::new(false),
            #[cfg(test)]
            known: is_known,
        })
    }

    /// Notes that a kernel was compiled.
    pub(super) fn grew(&self) {
        self.has_more.store(true, Ordering::Relaxed);
    }

    /// Writes the file again, if there is more than in it.
    pub(super) fn save(&self) {
        if !self.has_more.swap(false, Ordering::Relaxed) {
            return;
        }
        let Some(data) = self.cache.get_data() else {
            return;
        };
        let digest = blake3::hash(&data);
        let content = [&digest.as_bytes()[..], &data].concat();
        if let Err(error) = memory::write(&self.path, &content) {
            tracing::warn!(%error, path = %self.path.display(), "compiled kernels are not kept, the next process compiles them again");
        }
    }
}

/// What was written to `path`, if all of it is there and as it was.
fn whole(path: &Path) -> Option<Vec<u8>> {
    let mut content = fs::read(path).ok()?;
    let data = content.split_off(DIGEST_BYTES.min(content.len()));
    (blake3::hash(&data).as_bytes()[..] == content).then_some(data)
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

    /// Whether the kernels were known before, after one was compiled.
    fn is_known(folder: &Path) -> bool {
        let gpu = Gpu::open(GpuPolicy::Force, None).expect("Mesa's software Vulkan");
        let gpu = gpu.expect("it is forced");
        gpu.remember_in(folder.to_owned());
        let step = Step {
            operation: Operation::Softmax { scale: 1.0 },
            inputs: vec![0],
        };
        let program = Program::new(&gpu, &[Source::Given], [step], &[1]).expect("it fits");
        let run = program.run(&[&[1.0, 1.0]], &[vec![1, 2], vec![1, 2]], Choice::Likely);
        assert_eq!(run, Ok(vec![vec![0.5, 0.5]]));
        gpu.opened().kept().expect("it hands them out").known
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
        let mut content = fs::read(file).expect("it is ours");
        *content.last_mut().expect("it is not empty") ^= 1;
        fs::write(file, content).expect("it is ours");
        assert!(!is_known(&path));
        assert!(is_known(&path), "it was written anew");
        fs::write(file, "short").expect("it is ours");
        assert!(!is_known(&path));
    }
}
