//! One cached answer, the tensors of a row or of a whole job, and its bytes.
//!
//! A format of our own because it is read for every row of every job: a format byte, the numeric class,
//! then per tensor name, datatype and shape, each preceded by its length, and the data. What does not decode is
//! a miss, never an error.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use inferq_schemas::tensor::{DataType, Tensor};

/// Changes whenever the layout does, so that older entries are misses.
const FORMAT: u8 = 2;

/// An answer as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CachedAnswer {
    pub(super) outputs: Vec<Tensor>,
    /// Numeric class of the run that gave it.
    pub(super) device: Arc<str>,
}

pub(super) fn encode(entry: &CachedAnswer) -> Bytes {
    let size: usize = entry
        .outputs
        .iter()
        .map(|tensor| 64 + tensor.name.len() + 8 * tensor.shape.len() + tensor.data.len())
        .sum();
    let mut out = BytesMut::with_capacity(16 + entry.device.len() + size);
    out.put_u8(FORMAT);
    put(&mut out, entry.device.as_bytes());
    for tensor in &entry.outputs {
        put(&mut out, tensor.name.as_bytes());
        put(&mut out, tensor.datatype.as_str().as_bytes());
        out.put_u32_le(tensor.shape.len() as u32);
        for dim in &tensor.shape {
            out.put_u64_le(*dim as u64);
        }
        put(&mut out, &tensor.data);
    }
    out.freeze()
}

fn put(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u64_le(bytes.len() as u64);
    out.put_slice(bytes);
}

pub(super) fn decode(entry: &Bytes) -> Option<CachedAnswer> {
    let mut rest = entry.clone();
    if rest.try_get_u8().ok()? != FORMAT {
        return None;
    }
    let device = std::str::from_utf8(&take(&mut rest)?).ok()?.into();
    let mut outputs = Vec::new();
    while rest.has_remaining() {
        let name = String::from_utf8(take(&mut rest)?.to_vec()).ok()?;
        let datatype: DataType = std::str::from_utf8(&take(&mut rest)?).ok()?.parse().ok()?;
        let rank = rest.try_get_u32_le().ok()? as usize;
        // Dimensions are read only as far as the entry reaches, whatever rank it claims.
        let mut shape = Vec::new();
        for _ in 0..rank {
            shape.push(usize::try_from(rest.try_get_u64_le().ok()?).ok()?);
        }
        let data = take(&mut rest)?;
        outputs.push(Tensor::new(name, datatype, shape, data).ok()?);
    }
    Some(CachedAnswer { outputs, device })
}

fn take(rest: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(rest.try_get_u64_le().ok()?).ok()?;
    (length <= rest.len()).then(|| rest.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> CachedAnswer {
        let outputs = vec![
            Tensor::from_f32("probabilities", vec![1, 2], &[0.25, 0.75]).expect("two values"),
            Tensor::new(
                "label",
                DataType::Int64,
                vec![1],
                Bytes::copy_from_slice(&7i64.to_le_bytes()),
            )
            .expect("valid"),
        ];
        CachedAnswer {
            outputs,
            device: "cpu".into(),
        }
    }

    #[test]
    fn an_entry_holds_what_was_put_into_it() {
        assert_eq!(decode(&encode(&entry())), Some(entry()));
    }

    #[test]
    fn a_damaged_entry_is_a_miss_or_something_else_but_never_a_panic() {
        let entry = encode(&entry());
        for end in 0..entry.len() {
            decode(&entry.slice(..end));
        }
        for place in 0..entry.len() {
            let mut damaged = entry.to_vec();
            damaged[place] ^= 0xff;
            decode(&damaged.into());
        }
        assert_eq!(decode(&Bytes::from_static(&[FORMAT + 1])), None);
    }
}
