//! The data folder of a stack: one stack at a time, and all it leaves behind.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use super::StackError;

/// Where a stack keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataFolder {
    /// Here; jobs and outcomes survive a restart.
    At(PathBuf),
    /// In a new folder that is removed at the end.
    Temporary,
}

#[derive(Debug)]
pub(super) struct Data {
    path: PathBuf,
    /// The operating system lets go of the lock when we end, however we end.
    _lock: File,
    temporary: Option<tempfile::TempDir>,
}

impl Data {
    pub(super) fn open(folder: &DataFolder) -> Result<Self, StackError> {
        let (path, temporary) = match folder {
            DataFolder::At(path) => (path.clone(), None),
            DataFolder::Temporary => {
                let folder = tempfile::Builder::new().prefix("inferq-").tempdir();
                let folder =
                    folder.map_err(|source| StackError::folder(&std::env::temp_dir(), source))?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        let failed = |source| StackError::folder(&path, source);
        std::fs::create_dir_all(&path).map_err(failed)?;
        let path = std::fs::canonicalize(&path).map_err(failed)?;
        let lock = File::create(path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path,
                _lock: lock,
                temporary,
            }),
            Err(TryLockError::WouldBlock) => Err(StackError::FolderInUse { path }),
            Err(TryLockError::Error(source)) => Err(StackError::folder(&path, source)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes a temporary folder and says if that failed; without this it goes in silence.
    pub(super) fn close(self) -> Result<(), StackError> {
        match self.temporary {
            Some(folder) => folder
                .close()
                .map_err(|source| StackError::folder(&self.path, source)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_stacks_do_not_share_a_folder_but_may_follow_each_other() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = DataFolder::At(folder.path().join("data"));
        let first = Data::open(&at).expect("nobody is there");
        let error = Data::open(&at).expect_err("the first one is there");
        assert!(error.to_string().contains("--data"), "{error}");
        drop(first);
        Data::open(&at).expect("the first one has left");
    }

    #[test]
    fn a_temporary_folder_is_removed() {
        let data = Data::open(&DataFolder::Temporary).expect("a temporary folder");
        let path = data.path().to_owned();
        std::fs::write(path.join("file"), "x").expect("writable");
        data.close().expect("it can be removed");
        assert!(!path.exists());
    }
}
