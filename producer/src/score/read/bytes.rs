//! The bytes of a file: unpacked, and bounded where a record could swallow the rest of it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::InputError;
use crate::score::input::{Compression, InputFile, Source};

/// Read at once from the system.
pub(super) const BUFFER: usize = 1 << 20;

/// Most bytes of one record of text. Without a bound, a quote that is never closed would bring the
/// whole file into memory.
pub(super) const MAX_RECORD: u64 = 64 << 20;

/// Unpacked bytes.
pub(super) type Bytes = Box<dyn Read + Send>;

/// How far a file has been read, as it lies on the disk.
#[derive(Debug, Default)]
pub(super) struct Position {
    read: Arc<AtomicU64>,
    size: u64,
}

impl Position {
    /// The share that has been read, 0 to 1; `None` for standard input.
    pub(super) fn share(&self) -> Option<f64> {
        let read = self.read.load(Ordering::Relaxed);
        (self.size > 0).then(|| read as f64 / self.size as f64)
    }
}

/// Counts what passes.
struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// The bytes of a text file, unpacked, and how far they are read; standard input shows by its first bytes how it
/// is packed.
pub(super) fn text(file: &InputFile) -> Result<(Bytes, Position), InputError> {
    let mut position = Position::default();
    let (raw, compression): (Box<dyn BufRead + Send>, _) = match &file.path {
        Source::File(_) => {
            let inner = plain_file(file)?;
            let about = inner.metadata();
            position.size = about.map_err(|source| unreadable(file, source))?.len();
            let read = Arc::clone(&position.read);
            let raw = BufReader::with_capacity(BUFFER, Counted { inner, read });
            (Box::new(raw), file.compression)
        }
        Source::Stdin => {
            let mut raw = BufReader::with_capacity(BUFFER, io::stdin());
            let start = raw.fill_buf().map_err(|source| unreadable(file, source))?;
            let compression = match start {
                [0x1f, 0x8b, ..] => Compression::Gzip,
                [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
                _ => Compression::None,
            };
            (Box::new(raw), compression)
        }
    };
    let unpacked: Bytes = match compression {
        Compression::None => Box::new(raw),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
        Compression::Zstd => {
            let decoder = zstd::Decoder::with_buffer(raw);
            Box::new(decoder.map_err(|source| unreadable(file, source))?)
        }
    };
    Ok((unpacked, position))
}

/// The file for formats that are read out of order. Standard input is stored in a temporary file first.
pub(super) fn seekable(file: &InputFile) -> Result<File, InputError> {
    match &file.path {
        Source::File(_) => plain_file(file),
        Source::Stdin => stored(file, &mut io::stdin().lock()),
    }
}

/// What is left of `bytes`, in a temporary file.
pub(super) fn stored(file: &InputFile, bytes: &mut dyn Read) -> Result<File, InputError> {
    let store = |bytes: &mut dyn Read| {
        let mut stored = tempfile::tempfile()?;
        io::copy(bytes, &mut stored)?;
        stored.seek(SeekFrom::Start(0))?;
        Ok(stored)
    };
    store(bytes).map_err(|source| unreadable(file, source))
}

fn plain_file(file: &InputFile) -> Result<File, InputError> {
    let Source::File(path) = &file.path else {
        return Err(unreadable(file, io::ErrorKind::Unsupported.into()));
    };
    File::open(path).map_err(|source| unreadable(file, source))
}

pub(super) fn unreadable(file: &InputFile, source: io::Error) -> InputError {
    InputError::Io {
        name: file.path.to_string(),
        source,
    }
}

pub(super) fn damaged(file: &InputFile, reason: impl ToString) -> InputError {
    InputError::Damaged {
        name: file.path.to_string(),
        format: file.format,
        reason: reason.to_string(),
    }
}

/// What is called after the file: the name without folder, extension and compression.
pub(super) fn stem(file: &InputFile) -> Option<String> {
    let Source::File(path) = &file.path else {
        return None;
    };
    Some(path.file_stem()?.to_str()?.to_owned())
}

/// Ends with an error when too many bytes come between two calls of [`Self::next_record`].
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R> Bounded<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            left: MAX_RECORD,
        }
    }

    pub(super) fn next_record(&mut self) {
        self.left = MAX_RECORD;
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(bytes as u64);
        if self.left == 0 && bytes > 0 {
            let reason = "a record has more than 64 MiB; is a quote not closed?";
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(bytes)
    }
}
