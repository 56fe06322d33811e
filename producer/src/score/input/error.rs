//! Why there is no input, or it cannot be read.

use super::Format;

/// Why there is no input, or it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A path, pattern or folder without files.
    #[error("nothing to read at `{path}`: {reason}")]
    NothingFound {
        /// What was given.
        path: String,
        /// What is missing.
        reason: &'static str,
    },
    /// Not a pattern.
    #[error("`{pattern}` is not a pattern: {reason}")]
    Pattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The name does not say how the file is written.
    #[error(
        "the format of `{name}` is not known from its name; name it with --in-format ({})",
        Format::NAMES
    )]
    UnknownFormat {
        /// The file, or `standard input`.
        name: String,
    },
    /// Files of two formats.
    #[error(
        "`{first}` is {first_format} and `{second}` is {second_format}; one run reads one format, so score them one after the other"
    )]
    Mixed {
        /// A file.
        first: String,
        /// Its format.
        first_format: Format,
        /// Another file.
        second: String,
        /// Its format.
        second_format: Format,
    },
    /// A format that needs its own compression is wrapped in one.
    #[error(
        "`{name}` is {format} wrapped in gzip or zstd; unpack it first, since {format} is read out of order"
    )]
    Wrapped {
        /// The file.
        name: String,
        /// Its format.
        format: Format,
    },
    /// The file system says no.
    #[error("`{name}` cannot be read: {source}")]
    Io {
        /// The file, or `standard input`.
        name: String,
        /// What it says.
        #[source]
        source: std::io::Error,
    },
    /// The bytes are not what the format says.
    #[error("`{name}` is not readable as {format}: {reason}")]
    Damaged {
        /// The file, or `standard input`.
        name: String,
        /// Its format.
        format: Format,
        /// What is wrong, and where.
        reason: String,
    },
    /// The columns of a file do not fit together, or not those of the files before it.
    #[error("the columns of `{name}`: {reason}")]
    Columns {
        /// The file, or `standard input`.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// No file has any column.
    #[error("the input is empty: no file has a header or a row")]
    Empty,
}
