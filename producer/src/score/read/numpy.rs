//! NumPy arrays: axis 0 is the row, the other axes are one list. A `.npz` file gives a column per array.

mod header;
mod values;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{Field, Schema, SchemaRef};
use zip::{CompressionMethod, ZipArchive};

use self::header::Header;
use super::bytes::{self, BUFFER, damaged, seekable, stem, unreadable};
use super::{InputError, Piece, Table};
use crate::score::input::{InputFile, Source};

/// What a column is called that has no name of its own.
const UNNAMED: &str = "data";
/// Most memory that is taken before the bytes for it are there.
const MOST_AHEAD: usize = 16 << 20;

/// Arrays of equally many rows, read side by side.
pub(super) struct Arrays {
    file: InputFile,
    arrays: Vec<Array>,
    columns: SchemaRef,
    rows: u64,
    left: u64,
}

struct Array {
    name: String,
    header: Header,
    bytes: Box<dyn Body>,
}

/// The elements of an array in their file.
trait Body: Read + Send {
    /// Leaves out so many bytes.
    fn pass(&mut self, bytes: u64) -> io::Result<()>;
}

/// Bytes that come one after the other.
struct Stream<R>(R);

/// A part of a file with a position of its own, so that several are read side by side.
struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Arrays {
    pub(super) fn npy(file: &InputFile) -> Result<Self, InputError> {
        let bytes: Box<dyn Body> = match file.path {
            Source::File(_) => {
                let whole = Part::whole(Arc::new(seekable(file)?));
                let whole = whole.map_err(|source| unreadable(file, source))?;
                Box::new(BufReader::with_capacity(BUFFER, whole))
            }
            Source::Stdin => Box::new(Stream(bytes::text(file)?.0)),
        };
        let name = stem(file).unwrap_or_else(|| UNNAMED.to_owned());
        let array = Array::open(file, name, bytes)?;
        Self::new(file, vec![array])
    }

    pub(super) fn npz(file: &InputFile) -> Result<Self, InputError> {
        let source = Arc::new(seekable(file)?);
        let wrong = |error| damaged(file, error);
        let whole = Part::whole(source.clone()).map_err(|source| unreadable(file, source))?;
        let mut archive = ZipArchive::new(BufReader::new(whole)).map_err(wrong)?;
        let mut arrays = Vec::new();
        for index in 0..archive.len() {
            let entry = archive.by_index(index).map_err(wrong)?;
            let name = entry.name().map_err(wrong)?;
            let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
            let packed = entry.compression();
            let start = entry.data_start();
            let start = start.ok_or_else(|| damaged(file, format!("`{name}` has no place")))?;
            let part = Part {
                file: source.clone(),
                at: start,
                end: start.saturating_add(entry.compressed_size()),
            };
            let bytes: Box<dyn Body> = match packed {
                CompressionMethod::Stored => Box::new(BufReader::with_capacity(BUFFER, part)),
                CompressionMethod::Deflated => {
                    let buffered = BufReader::with_capacity(BUFFER, part);
                    let decoder = flate2::bufread::DeflateDecoder::new(buffered);
                    Box::new(Stream(BufReader::with_capacity(BUFFER, decoder)))
                }
                other => {
                    let reason = format!("`{name}` is packed with {other}; write it with np.savez");
                    return Err(damaged(file, reason));
                }
            };
            arrays.push(Array::open(file, name, bytes)?);
        }
        Self::new(file, arrays)
    }

    fn new(file: &InputFile, arrays: Vec<Array>) -> Result<Self, InputError> {
        let Some(first) = arrays.first() else {
            return Err(damaged(file, "it has no arrays"));
        };
        let left = first.header.rows;
        if let Some(other) = arrays.iter().find(|array| array.header.rows != left) {
            let (name, rows) = (&other.name, other.header.rows);
            let reason = format!(
                "`{}` has {left} rows and `{name}` has {rows}; axis 0 of all arrays is the row",
                first.name
            );
            return Err(damaged(file, reason));
        }
        let field = |array: &Array| Field::new(&array.name, values::datatype(&array.header), true);
        let columns = Arc::new(Schema::new(arrays.iter().map(field).collect::<Vec<_>>()));
        Ok(Self {
            file: file.clone(),
            arrays,
            columns,
            rows: left,
            left,
        })
    }
}

impl Table for Arrays {
    fn columns(&self) -> SchemaRef {
        self.columns.clone()
    }

    fn share_read(&self) -> Option<f64> {
        Some(1.0 - self.left as f64 / self.rows.max(1) as f64)
    }

    fn read(&mut self, rows: usize) -> Result<Option<Piece>, InputError> {
        let rows = usize::try_from(self.left).unwrap_or(usize::MAX).min(rows);
        if rows == 0 {
            return Ok(None);
        }
        let mut columns: Vec<ArrayRef> = Vec::new();
        for array in &mut self.arrays {
            let bytes = array.rows(rows);
            let bytes = bytes.map_err(|error| short(&self.file, &array.name, error))?;
            columns.push(values::array(&array.header, bytes));
        }
        self.left -= rows as u64;
        let batch = RecordBatch::try_new(self.columns.clone(), columns)
            .expect("every array gave its rows in its type");
        Ok(Some(Piece {
            batch,
            problems: Vec::new(),
        }))
    }

    fn skip(&mut self, rows: u64) -> Result<u64, InputError> {
        let rows = rows.min(self.left);
        for array in &mut self.arrays {
            let passed = array.bytes.pass(rows * array.header.row_bytes() as u64);
            passed.map_err(|error| short(&self.file, &array.name, error))?;
        }
        self.left -= rows;
        Ok(rows)
    }
}

impl Array {
    /// The bytes of the next rows. Memory follows what the file has, whatever its header says.
    fn rows(&mut self, rows: usize) -> io::Result<Vec<u8>> {
        let length = rows.saturating_mul(self.header.row_bytes());
        let mut bytes = Vec::with_capacity(length.min(MOST_AHEAD));
        let read = (&mut self.bytes)
            .take(length as u64)
            .read_to_end(&mut bytes)?;
        if read < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }

    fn open(file: &InputFile, name: String, mut bytes: Box<dyn Body>) -> Result<Self, InputError> {
        let header = header::read(&mut bytes)
            .map_err(|reason| damaged(file, format!("array `{name}`: {reason}")))?;
        Ok(Self {
            name,
            header,
            bytes,
        })
    }
}

fn short(file: &InputFile, name: &str, error: io::Error) -> InputError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            damaged(file, format!("array `{name}` ends before its last row"))
        }
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            damaged(file, format!("array `{name}`: {error}"))
        }
        _ => unreadable(file, error),
    }
}

impl Part {
    fn whole(file: Arc<File>) -> io::Result<Self> {
        let end = file.metadata()?.len();
        Ok(Self { file, at: 0, end })
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..length], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Part {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        self.at = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl Body for BufReader<Part> {
    fn pass(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = i64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.seek_relative(bytes)
    }
}

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read + Send> Body for Stream<R> {
    fn pass(&mut self, bytes: u64) -> io::Result<()> {
        match io::copy(&mut (&mut self.0).take(bytes), &mut io::sink())? {
            passed if passed == bytes => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
