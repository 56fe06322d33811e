//! One copy in memory of what several models have in common.
//!
//! Versions of a model often differ in a few layers only. Whatever is large is looked up by a digest of
//! its numbers and of how they are laid out; what is there already is shared, and goes when the last
//! model that uses it does. On a card it is the same, with a table for each device.
//!
//! So a version with a few new layers packs, and uploads, those alone (of queries, keys and values, which are one layer
//! on a card, all three). Its graph is compiled anew all the same: what the compiler leaves out depends on the numbers
//! (a factor of 1, a bias of 0), and it takes a fraction of the time in which the file is read.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use tract_onnx::prelude::{Tensor, TractError, TractResult, TypedModel};
use tract_onnx::tract_core::ops::konst::Const;

/// Smaller things are not worth the look.
pub(crate) const LEAST_BYTES: usize = 64 << 10;

/// Names numbers in a layout. BLAKE3, so that nobody can make two that are taken for each other.
pub(crate) type Digest = [u8; 32];

/// What is there, by digest, as long as somebody uses it.
#[derive(Debug)]
pub(crate) struct Table<T>(Mutex<HashMap<Digest, Weak<T>>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table(Mutex::default())
    }
}

impl<T> Table<T> {
    /// What has this digest: the one that is there, else the one that `make` makes.
    ///
    /// Two threads may both make it; then one of the two is kept.
    pub(crate) fn shared<E>(
        &self,
        digest: Digest,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        if let Some(there) = self.lock().get(&digest).and_then(Weak::upgrade) {
            return Ok(there);
        }
        let made = Arc::new(make()?);
        let mut table = self.lock();
        if let Some(there) = table.get(&digest).and_then(Weak::upgrade) {
            return Ok(there);
        }
        table.retain(|_, there| there.strong_count() > 0);
        table.insert(digest, Arc::downgrade(&made));
        Ok(made)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Weak<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Digest of `values` laid out as `layout` says.
pub(crate) fn digest(layout: &str, values: &[&[f32]]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(layout.len() as u64).to_le_bytes());
    hasher.update(layout.as_bytes());
    let mut bytes = Vec::with_capacity(4 * 1_024);
    for values in values {
        hasher.update(&(values.len() as u64).to_le_bytes());
        for values in values.chunks(1_024) {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            hasher.update(&bytes);
        }
    }
    *hasher.finalize().as_bytes()
}

/// Lets the large constants of a compiled model be those that other models have already.
pub(crate) fn share_constants(model: &mut TypedModel) -> TractResult<()> {
    static CONSTANTS: LazyLock<Table<Tensor>> = LazyLock::new(Table::default);
    for node in &mut model.nodes {
        let Some(constant) = node.op_as::<Const>() else {
            continue;
        };
        let tensor = Arc::clone(constant.val());
        let element = tensor.datum_type();
        // Strings and the like have no bytes to compare.
        if constant.exotic_fact().is_some()
            || !tensor.is_plain_ram()
            || !element.is_copy()
            || tensor.len() * element.size_of() < LEAST_BYTES
        {
            continue;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{element:?} {:?}", tensor.shape()).as_bytes());
        hasher.update(tensor.as_bytes());
        let digest = *hasher.finalize().as_bytes();
        let own = || Ok::<_, TractError>(tensor.as_ref().clone());
        let shared = CONSTANTS.shared(digest, own)?;
        node.op = Box::new(Const::new(Arc::clone(&shared))?);
        for output in &mut node.outputs {
            if output.fact.konst.is_some() {
                output.fact.konst = Some(Arc::clone(&shared));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_numbers_in_the_same_layout_are_one_and_go_with_their_last_user() {
        let table = Table::<Vec<f32>>::default();
        let numbers = [1.0, 2.0];
        let get = |layout: &str| {
            let make = || Ok::<_, ()>(numbers.to_vec());
            table
                .shared(digest(layout, &[&numbers]), make)
                .expect("it is made")
        };
        let (first, second, other) = (get("row"), get("row"), get("column"));
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first, &other));
        drop((first, second));
        get("another");
        assert_eq!(table.lock().len(), 2, "what nobody uses is forgotten");
    }

    #[test]
    fn where_one_list_ends_matters() {
        assert_ne!(digest("", &[&[1.0], &[2.0]]), digest("", &[&[1.0, 2.0]]));
        assert_ne!(digest("", &[&[0.0]]), digest("", &[&[-0.0]]));
    }
}
