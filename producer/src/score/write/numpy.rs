//! NumPy: one array as `.npy`, several as `.npz`. The header needs the number of rows, so elements wait
//! in a temporary file beside the target until the last one is there.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use half::f16;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::packed::Packed;
use super::{Sink, SinkError, Target};

pub(super) struct Npy {
    out: Packed,
    array: Elements,
}

pub(super) struct Npz {
    out: Packed,
    arrays: Vec<Elements>,
}

/// The elements of one array.
struct Elements {
    name: String,
    descr: &'static str,
    list: Option<usize>,
    rows: usize,
    waiting: BufWriter<File>,
}

/// Whether the column becomes an array of numbers.
pub(super) fn is_writable(datatype: &DataType) -> bool {
    match datatype {
        DataType::FixedSizeList(item, _) => descr(item.data_type()).is_some(),
        other => descr(other).is_some(),
    }
}

fn descr(datatype: &DataType) -> Option<&'static str> {
    Some(match datatype {
        DataType::Boolean => "|b1",
        DataType::Int8 => "|i1",
        DataType::Int16 => "<i2",
        DataType::Int32 => "<i4",
        DataType::Int64 => "<i8",
        DataType::UInt8 => "|u1",
        DataType::UInt16 => "<u2",
        DataType::UInt32 => "<u4",
        DataType::UInt64 => "<u8",
        DataType::Float16 => "<f2",
        DataType::Float32 => "<f4",
        DataType::Float64 => "<f8",
        _ => return None,
    })
}

impl Npy {
    pub(super) fn new(out: Packed, target: &Target, columns: &Schema) -> Result<Self, SinkError> {
        let [field] = &columns.fields()[..] else {
            let reason = "a .npy file holds one column".to_owned();
            return Err(SinkError::Other(reason));
        };
        let array = Elements::new(field, target)?;
        Ok(Self { out, array })
    }
}

impl Sink for Npy {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        self.array.add(batch.column(0))
    }

    fn finish(mut self: Box<Self>) -> Result<(), SinkError> {
        self.array.copy_to(&mut self.out)?;
        Ok(self.out.finish()?)
    }
}

impl Npz {
    pub(super) fn new(out: Packed, target: &Target, columns: &Schema) -> Result<Self, SinkError> {
        let fields = columns.fields().iter();
        let arrays: Result<_, SinkError> = fields.map(|f| Elements::new(f, target)).collect();
        Ok(Self {
            arrays: arrays?,
            out,
        })
    }
}

impl Sink for Npz {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        let mut columns = self.arrays.iter_mut().zip(batch.columns());
        columns.try_for_each(|(array, column)| array.add(column))
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        // As numpy.savez does: not compressed. The time is that of no file, so equal rows are equal bytes.
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(true);
        let mut archive = ZipWriter::new_stream(self.out);
        let other = |error: zip::result::ZipError| SinkError::Other(error.to_string());
        for mut array in self.arrays {
            let name = format!("{}.npy", array.name);
            archive.start_file(name, options).map_err(other)?;
            array.copy_to(&mut archive)?;
        }
        Ok(archive.finish().map_err(other)?.into_inner().finish()?)
    }
}

impl Elements {
    fn new(field: &Field, target: &Target) -> Result<Self, SinkError> {
        let (element, list) = match field.data_type() {
            DataType::FixedSizeList(item, size) => (item.data_type(), usize::try_from(*size).ok()),
            other => (other, None),
        };
        let Some(descr) = descr(element) else {
            return Err(SinkError::Other(format!("`{}` is no number", field.name())));
        };
        let folder = match target {
            Target::File(path) => path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty()),
            Target::Stdout => None,
        };
        let waiting = match (folder, target) {
            (Some(folder), _) => tempfile::tempfile_in(folder),
            (None, Target::File(_)) => tempfile::tempfile_in("."),
            (None, Target::Stdout) => tempfile::tempfile(),
        };
        Ok(Self {
            name: field.name().clone(),
            descr,
            list,
            rows: 0,
            waiting: BufWriter::with_capacity(1 << 20, waiting?),
        })
    }

    fn add(&mut self, column: &dyn Array) -> Result<(), SinkError> {
        self.rows += column.len();
        let Some(list) = column.as_fixed_size_list_opt() else {
            return self.values(column);
        };
        if list.null_count() == 0 {
            return self.values(list.values());
        }
        for row in 0..list.len() {
            // A row without a list is one of as many elements without a value.
            let row = list.is_valid(row).then(|| list.value(row));
            match row {
                Some(values) => self.values(&values)?,
                None => (0..self.list.unwrap_or(0)).try_for_each(|_| self.missing())?,
            }
        }
        Ok(())
    }

    fn values(&mut self, values: &dyn Array) -> Result<(), SinkError> {
        match values.data_type() {
            DataType::Boolean => {
                for value in values.as_boolean() {
                    match value {
                        Some(value) => self.waiting.write_all(&[u8::from(value)])?,
                        None => self.missing()?,
                    }
                }
                Ok(())
            }
            DataType::Int8 => self.numbers::<Int8Type, 1>(values, i8::to_le_bytes),
            DataType::Int16 => self.numbers::<Int16Type, 2>(values, i16::to_le_bytes),
            DataType::Int32 => self.numbers::<Int32Type, 4>(values, i32::to_le_bytes),
            DataType::Int64 => self.numbers::<Int64Type, 8>(values, i64::to_le_bytes),
            DataType::UInt8 => self.numbers::<UInt8Type, 1>(values, u8::to_le_bytes),
            DataType::UInt16 => self.numbers::<UInt16Type, 2>(values, u16::to_le_bytes),
            DataType::UInt32 => self.numbers::<UInt32Type, 4>(values, u32::to_le_bytes),
            DataType::UInt64 => self.numbers::<UInt64Type, 8>(values, u64::to_le_bytes),
            DataType::Float16 => self.numbers::<Float16Type, 2>(values, f16::to_le_bytes),
            DataType::Float32 => self.numbers::<Float32Type, 4>(values, f32::to_le_bytes),
            _ => self.numbers::<Float64Type, 8>(values, f64::to_le_bytes),
        }
    }

    fn numbers<T: ArrowPrimitiveType, const SIZE: usize>(
        &mut self,
        values: &dyn Array,
        to_le_bytes: fn(T::Native) -> [u8; SIZE],
    ) -> Result<(), SinkError> {
        for value in values.as_primitive::<T>() {
            match value {
                Some(value) => self.waiting.write_all(&to_le_bytes(value))?,
                None => self.missing()?,
            }
        }
        Ok(())
    }

    /// Writes NaN, which is how NumPy has no value.
    fn missing(&mut self) -> Result<(), SinkError> {
        match self.descr {
            "<f2" => self.waiting.write_all(&f16::NAN.to_le_bytes())?,
            "<f4" => self.waiting.write_all(&f32::NAN.to_le_bytes())?,
            "<f8" => self.waiting.write_all(&f64::NAN.to_le_bytes())?,
            _ => {
                return Err(SinkError::Other(format!(
                    "`{}` has a row without a value, which integers of NumPy cannot say; write parquet",
                    self.name
                )));
            }
        }
        Ok(())
    }

    /// Writes the whole array, header first.
    fn copy_to(&mut self, out: &mut dyn Write) -> Result<(), SinkError> {
        let shape = match self.list {
            None => format!("({},)", self.rows),
            Some(size) => format!("({}, {size})", self.rows),
        };
        let dictionary = format!(
            "{{'descr': '{}', 'fortran_order': False, 'shape': {shape}, }}",
            self.descr
        );
        // Ten bytes come before it; the elements begin at a multiple of 64.
        let length = (10 + dictionary.len() + 1).next_multiple_of(64) - 10;
        let mut header = b"\x93NUMPY\x01\x00".to_vec();
        header.extend_from_slice(&(length as u16).to_le_bytes());
        header.extend_from_slice(dictionary.as_bytes());
        header.resize(10 + length - 1, b' ');
        header.push(b'\n');
        out.write_all(&header)?;
        self.waiting.flush()?;
        let elements = self.waiting.get_mut();
        elements.seek(SeekFrom::Start(0))?;
        io::copy(elements, out)?;
        Ok(())
    }
}
