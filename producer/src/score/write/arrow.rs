//! Arrow IPC as a file, which Feather 2 is, too. Not compressed, so that readers can map it.

use arrow_array::RecordBatch;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, Schema};

use super::packed::Packed;
use super::{Sink, SinkError};

pub(super) struct Arrow(FileWriter<Packed>);

impl Arrow {
    pub(super) fn new(out: Packed, columns: &Schema) -> Result<Self, SinkError> {
        Ok(Self(FileWriter::try_new(out, columns)?))
    }
}

impl Sink for Arrow {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        Ok(self.0.write(batch)?)
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        // This writes the footer.
        Ok(self.0.into_inner()?.finish()?)
    }
}

impl From<ArrowError> for SinkError {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::IoError(_, source) => Self::Io(source),
            other => Self::Other(other.to_string()),
        }
    }
}
