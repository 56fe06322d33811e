//! Where the bytes go, through a compression if there is one.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use flate2::write::GzEncoder;

use super::Target;
use crate::score::input::Compression;

const BUFFER: usize = 1 << 20;
/// What `zstd` takes by itself.
const ZSTD_LEVEL: i32 = 3;

/// A file or standard output, written through a buffer and perhaps a compression.
pub(super) enum Packed {
    Plain(BufWriter<Raw>),
    Gzip(GzEncoder<BufWriter<Raw>>),
    Zstd(zstd::Encoder<'static, BufWriter<Raw>>),
}

pub(super) enum Raw {
    File(File),
    Stdout(io::Stdout),
}

impl Packed {
    pub(super) fn create(target: &Target, compression: Compression) -> io::Result<Self> {
        let raw = match target {
            Target::File(path) => Raw::File(File::create(path)?),
            Target::Stdout => Raw::Stdout(io::stdout()),
        };
        let buffered = BufWriter::with_capacity(BUFFER, raw);
        Ok(match compression {
            Compression::None => Self::Plain(buffered),
            // Without a time in the header, so equal rows are equal bytes.
            Compression::Gzip => {
                Self::Gzip(GzEncoder::new(buffered, flate2::Compression::default()))
            }
            Compression::Zstd => Self::Zstd(zstd::Encoder::new(buffered, ZSTD_LEVEL)?),
        })
    }

    /// Writes all that is left; a file is on the disk then.
    pub(super) fn finish(self) -> io::Result<()> {
        let buffered = match self {
            Self::Plain(buffered) => buffered,
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Zstd(encoder) => encoder.finish()?,
        };
        match buffered
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?
        {
            Raw::File(file) => file.sync_all(),
            Raw::Stdout(mut out) => out.flush(),
        }
    }
}

impl Write for Packed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(inner) => inner.write(bytes),
            Self::Gzip(inner) => inner.write(bytes),
            Self::Zstd(inner) => inner.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(inner) => inner.flush(),
            Self::Gzip(inner) => inner.flush(),
            Self::Zstd(inner) => inner.flush(),
        }
    }
}

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(out) => out.flush(),
        }
    }
}
