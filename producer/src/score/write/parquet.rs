//! Parquet with Zstandard, in row groups of bounded rows and bytes.

use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::schema::types::ColumnPath;
use arrow_array::RecordBatch;
use arrow_schema::{DataType, Schema};

use super::packed::Packed;
use super::{Sink, SinkError};

/// A row group is in memory until it is whole.
const GROUP_ROWS: usize = 65_536;
const GROUP_BYTES: usize = 32 << 20;

pub(super) struct Parquet(ArrowWriter<Packed>);

impl Parquet {
    pub(super) fn new(out: Packed, columns: &Schema) -> Result<Self, SinkError> {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_max_row_group_bytes(Some(GROUP_BYTES))
            // Without the version of today, so equal rows are equal bytes.
            .set_created_by("inferq".to_owned())
            // Scores hardly repeat; a dictionary of them is the column once more.
            .set_dictionary_enabled(false);
        for field in columns
            .fields()
            .iter()
            .filter(|field| repeats(field.data_type()))
        {
            let path = ColumnPath::from(field.name().as_str());
            properties = properties.set_column_dictionary_enabled(path, true);
        }
        let columns = Arc::new(columns.clone());
        Ok(Self(ArrowWriter::try_new(
            out,
            columns,
            Some(properties.build()),
        )?))
    }
}

/// Whether values of this type tend to come again: labels and words.
fn repeats(datatype: &DataType) -> bool {
    datatype.is_integer() || matches!(datatype, DataType::Utf8 | DataType::Binary)
}

impl Sink for Parquet {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        Ok(self.0.write(batch)?)
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(self.0.into_inner()?.finish()?)
    }
}

impl From<ParquetError> for SinkError {
    fn from(error: ParquetError) -> Self {
        match error {
            ParquetError::External(source) => match source.downcast::<std::io::Error>() {
                Ok(source) => Self::Io(*source),
                Err(source) => Self::Other(source.to_string()),
            },
            other => Self::Other(other.to_string()),
        }
    }
}
